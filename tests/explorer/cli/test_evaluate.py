from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from caption_collection import write_caption_collection
from PIL import Image
from tiny_blip import tiny_blip

from sieve.explorer.benchmark_report import save_plot, verdicts
from sieve.explorer.cli import main
from sieve.model.backbone.clip import Backbone
from sieve.model.benchmark.methods import METHODS
from sieve.model.benchmark.results import (
    ConfidenceInterval,
    MethodResult,
    PairCount,
    TrackResult,
    list_evaluations,
    read_evaluation,
)
from sieve.model.collection import Collection
from sieve.model.evaluation.pairs import PairCriteria
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import train

QUICK = ("--methods", "A only,subtraction,oracle", "--trials", "3", "--resamples", "20")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Path:
    return write_caption_collection(
        tmp_path_factory.mktemp("collections") / "captioned", tiny_backbone
    )


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], home: Path) -> Iterator:  # noqa: ARG001
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_evaluate_prints_json_and_writes_a_folder(
    evaluate, collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    code, output, _ = evaluate(collection, *QUICK, "--json", "--out", out)
    assert code == 0
    data = json.loads(output)
    assert data["collection"] == "captioned"
    assert data["seeds"] == [0, 1, 2]
    assert [track["track"] for track in data["tracks"]] == ["label", "caption"]
    methods = data["tracks"][0]["methods"]
    assert [method["method"] for method in methods] == ["A only", "subtraction", "oracle"]
    assert json.loads((out / "result.json").read_text()) == data
    config = json.loads((out / "config.json").read_text())
    assert config["benchmark"]["trials"] == 3
    with (out / "label.csv").open() as stream:
        table = list(csv.DictReader(stream))
    rows = [*methods, *data["tracks"][0]["variants"]]
    assert [float(row["ap@10"]) for row in table] == [row["ap@10"] for row in rows]
    with (out / "label_pairs.csv").open() as stream:
        pairs = list(csv.DictReader(stream))
    assert len(pairs) == data["tracks"][0]["pairs"]
    mean = np.mean([float(pair["subtraction"]) for pair in pairs])
    assert mean == pytest.approx(methods[1]["ap@10"], abs=1e-5)
    assert all(pair["a"] != pair["without"] and int(pair["relevant"]) >= 10 for pair in pairs)
    with Image.open(out / "caption.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 3
    code, _, err = evaluate(collection, *QUICK, "--out", out)
    assert code == 1
    assert "exists already" in err


def test_evaluate_prints_readable_output(evaluate, collection: Path) -> None:
    trained = ("--methods", "subtraction,Sieve", "--epochs", "1", "--seeds", "4")
    code, output, _ = evaluate(
        collection, *trained, "--trials", "2", "--resamples", "10", "--track", "label",
        "--device", "cpu", "--baseline", f"twin={collection}",
    )  # fmt: skip
    assert code == 0, output
    lines = output.splitlines()
    assert lines[0].startswith("captioned, label track: ")
    assert {line.split("  ")[0] for line in lines} >= {"Method", "subtraction", "Sieve", "twin"}
    assert "Best training-free baseline: subtraction" in output
    switches = lines.index("AP@10 / violation@10 by the maximum number of switches:")
    assert lines[switches + 1].split() == ["Method", "1", "2", "3", "all"]
    assert re.fullmatch(r"Sieve(  +0\.\d{3} / 0\.\d{3}){4}", lines[switches + 2].rstrip())
    assert "backbone" in output
    (saved,) = list_evaluations(Collection.open(collection).sha256)[0]
    assert lines[-1].endswith(f" as {saved.id}") and saved.checkpoint is None


def test_queries_of_a_file_are_measured_for_every_method(
    evaluate, collection: Path, tmp_path: Path
) -> None:
    opened = Collection.open(collection)
    items = opened.items[opened.items["split"] == "test"]
    has = {
        word: items["labels"].map(lambda own, word=word: word in own) for word in ("dog", "beach")
    }
    queries = tmp_path / "own.jsonl"
    row = {
        "query": "dog", "without": ["beach", "a cloud"],
        "relevant": [*items["id"][has["dog"] & ~has["beach"]], "nowhere.png"],
        "violating": list(items["id"][has["dog"] & has["beach"]]),
    }  # fmt: skip
    queries.write_text(json.dumps(row))
    out = tmp_path / "out"
    trained = ("--epochs", "1", "--seeds", "0", "--device", "cpu", "--out", out)
    code, output, error = evaluate(
        collection, "--trials", "2", "--resamples", "5", "--queries", queries, *trained
    )
    assert code == 0, error
    assert output.startswith("captioned, query file: 1 pairs with 1 different A")
    assert "1 judged items are not in the collection: nowhere.png." in output
    (track,) = json.loads((out / "result.json").read_text())["tracks"]
    assert [method["method"] for method in track["methods"]] == list(METHODS)
    assert json.loads((out / "config.json").read_text())["queries"]["name"] == "own.jsonl"
    (saved,) = list_evaluations(opened.sha256)[0]
    assert saved.track_names == ("queries",)
    (pair,) = read_evaluation(saved.path).tracks[0].pair_counts
    assert pair[:2] == ("dog", "beach or cloud")
    queries.write_text("{}")
    code, _, error = evaluate(collection, "--queries", queries)
    assert code == 1 and "own.jsonl:1: query is required; expected {" in error
    code, _, error = evaluate(collection, "--qrels", queries)
    assert code == 1 and "--qrels has the judgments of --queries; give both" in error


def test_quick_evaluation_trains_nothing(
    evaluate, collection: Path, tiny_backbone: Backbone, tmp_path: Path, home: Path
) -> None:
    fresh = write_caption_collection(tmp_path / "fresh", tiny_backbone, 5)
    made = train(
        Collection.open(fresh), tmp_path / "made", TrainingConfig(m=32, k=4, epochs=2),
        device="cpu", progress=False,
    )  # fmt: skip
    output = evaluate(
        collection, "--quick", "--checkpoint", made.path, "--trials", "2", "--resamples", "5",
        "--json", "--device", "cpu",
    )  # fmt: skip
    assert output[0] == 0, output[2]
    (saved,) = list_evaluations(Collection.open(collection).sha256)[0]
    assert saved.is_short and saved.checkpoint == ("made", made.sha256)
    tracks = read_evaluation(saved.path).tracks
    assert [track.as_json() for track in tracks] == json.loads(output[1])["tracks"]
    assert not (home / "peers").exists()


def test_blip_is_a_baseline(evaluate, collection: Path, tmp_path: Path) -> None:
    blip = Backbone.load(f"blip:{tiny_blip(tmp_path / 'model')}", "cpu")
    baseline = write_caption_collection(tmp_path / "by-blip", blip)
    code, output, err = evaluate(
        collection,
        *QUICK,
        "--track",
        "label",
        "--json",
        "--device",
        "cpu",
        "--peer",
        f"BLIP={baseline}",
        "--trust-backbone",
    )
    assert code == 0, err
    methods = json.loads(output)["tracks"][0]["methods"]
    (found,) = [method for method in methods if method["method"] == "BLIP"]
    assert 0 < found["ap@10"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "nonsense"), "unknown method nonsense"),
        (("--seeds", "one"), "--seeds must be whole numbers"),
        (("--baseline", "nothing"), "--baseline must be NAME=COLLECTION"),
        (("--checkpoint", "nowhere"), "no checkpoint"),
    ],
)
def test_errors_are_one_line(evaluate, collection: Path, arguments: tuple, message: str) -> None:
    code, output, err = evaluate(collection, *arguments)
    assert (code, output, err.count("\n")) == (1, "", 1)
    assert message in err


def method(name: str, ap: float, ratio: float, low: float, high: float) -> MethodResult:
    near = ConfidenceInterval(ap - 0.02, ap + 0.02)
    return MethodResult(
        method=name, ap=ap, ci=near, precision=ap, violation=0.1,
        violation_ci=ConfidenceInterval(0.05, 0.15), ndcg=ap, plain_ap=0.8, kept_ap=0.6,
        spared_ap=0.7, spared_plain_ap=0.75, by_seed=(ap,), by_pair=(ap,),
        violation_by_pair=(0.1,), spread=None, hyperparameters={}, tuning_ap=ap, trials=1,
        ratio=ratio, ratio_ci=ConfidenceInterval(low, high),
        gap=0.1, gap_ci=ConfidenceInterval(0.0, 0.2),
    )  # fmt: skip


def test_better_baseline_is_reported(tmp_path: Path) -> None:
    methods = (
        method("subtraction", 0.5, 1.2, 1.1, 1.3),
        method("paper", 0.7, 0.86, 0.8, 0.95),
        method("SpLiCE", 0.6, 1.0, 0.9, 1.1),
        method("Sieve", 0.6, 1.0, 1.0, 1.0),
    )
    pair_counts = (PairCount("dog", "beach", 10, 10),)
    track = TrackResult("label", pair_counts, 100, 4, 50, PairCriteria(), methods, ())
    text = "\n".join(verdicts(track))
    assert "paper beats Sieve" in text
    assert "SpLiCE and Sieve are not significantly different" in text
    assert "subtraction beats" not in text
    assert "keeps 0.750 of the AP@10 of A" in text
    assert "removing exactly the items with B would keep 0.938" in text
    assert "Among items without B, Sieve keeps 0.933" in text
    for name in ("one", "two"):
        save_plot(track, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
