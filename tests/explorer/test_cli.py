from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from blip import tiny_blip
from command_line import Sieve, fault

from explorer.access import Access
from explorer.commands.making import Train
from explorer.training.desk import TrainingDesk
from model.checkpoint import Checkpoint
from model.checksums import CHECKSUMS
from model.collection import Collection
from model.engine import Engine
from model.training import PRESETS, TrainingConfig

ROOT = Path(__file__).parents[2]
COMMANDS = ("explore", "prepare", "prepare folder", "prepare coco", "prepare conceptual-captions",
            "prepare embeddings", "prepare codes", "prepare scenes", "add", "merge", "train",
            "search", "index", "evaluate", "info", "dimensions", "figure", "annotations",
            "annotations export", "annotations import", "export")  # fmt: skip


@pytest.fixture
def opened(tiny_collection: Collection, tiny_checkpoint: Checkpoint) -> tuple[str | Path, ...]:
    """The arguments that open the tiny world."""
    return tiny_collection.path, "--checkpoint", tiny_checkpoint.path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_gives_an_example(sieve: Sieve, command: str) -> None:
    answer = sieve(*command.split(), "--help")
    assert answer.code == 0
    assert f"Example: sieve {command}" in " ".join(answer.out.split())


def test_help_loads_nothing_heavy() -> None:
    look = (
        "import sys, explorer.cli\n"
        "try: explorer.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'gradio', 'pandas', 'open_clip'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "{explore,prepare,add,merge,train,search,index,evaluate,info," in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("search",),
        ("search", "scenes", "a dog", "--strictness", "1.5"),
        ("search", "scenes", "a dog", "--strictness", "always"),
        ("search", "scenes", "a dog", "--off", "17,dog"),
        ("search", "scenes", "a dog", "-k", "many"),
        ("prepare", "folder"),
        ("prepare", "coco", "--images", "val2017"),
        ("prepare", "embeddings", "embeddings"),
        ("train", "scenes", "--preset", "huge"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(sieve: Sieve, arguments: tuple[str, ...]) -> None:
    answer = sieve(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err


def test_a_mistyped_command_is_one_line_that_says_what_was_meant(sieve: Sieve) -> None:
    for words, line in (
        (("explor", "scenes"), "there is no command 'explor'; did you mean `sieve explore`?"),
        (("fly",), "there is no command 'fly'; there are explore, prepare, "),
        ((), "say what to do, one of explore, prepare, "),
    ):
        answer = sieve(*words)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert answer.err.startswith(f"sieve: {line}")


def test_help_is_a_word_too(sieve: Sieve) -> None:
    assert sieve("help").out == sieve("--help").out
    assert sieve("help", "prepare", "folder").out == sieve("prepare", "folder", "--help").out
    assert re.fullmatch(r"sieve \d+\.\d+\.\d+\n", sieve("--version").out)


def test_search_prints_its_json(sieve: Sieve, opened: tuple) -> None:
    found = sieve("search", *opened, "a circle", "--without", "a night", "-k", "7", "--json").data
    assert list(found) == ["query", "without", "off", "results", "notes", "seconds"]
    assert (found["query"], found["without"]) == ("a circle", "a night")
    assert found["off"] and set(found["off"][0]) == {"dimension", "name", "weight"}
    assert len(found["results"]) == 7
    assert 0 <= found["seconds"] < 5
    for result in found["results"]:
        assert list(result) == ["id", "score", "captions", "labels", "contributions"]
        earned = sum(part["value"] for part in result["contributions"])
        assert result["score"] == pytest.approx(earned, abs=1e-5)
        assert set(result["contributions"][0]) == {"dimension", "name", "value"}
    scores = [result["score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)


def test_search_is_the_engines(sieve: Sieve, opened: tuple, tiny_engine: Engine) -> None:
    for flags, options in (
        (("--strictness", "0"), {"strictness": 0.0}),
        (("--strictness", "never"), {"never": True}),
        (("--off", "3,5"), {"off": (3, 5)}),
        (("--off", ""), {"off": ()}),
    ):
        found = sieve("search", *opened, "a circle", "--without", "night", *flags, "--json").data
        query = tiny_engine.encode("a circle", "night")
        expected = tiny_engine.search(query, top=10, **options)
        assert [r["id"] for r in found["results"]] == [r.id for r in expected.results], flags
        assert [d["dimension"] for d in found["off"]] == [d.dimension for d in expected.off]


def test_search_by_item_and_by_image(
    sieve: Sieve, opened: tuple, tiny_engine: Engine, pictures: Path
) -> None:
    item = tiny_engine.collection.items["id"].iloc[4]
    by_item = sieve("search", *opened, "--item", item, "--json").data
    assert by_item["results"] and item not in [r["id"] for r in by_item["results"]]
    by_image = sieve("search", *opened, "--image", pictures / "images" / "004.png", "--json").data
    assert item in [r["id"] for r in by_image["results"][:3]]


def test_search_for_people(sieve: Sieve, opened: tuple) -> None:
    answer = sieve("search", *opened, "a circle but not in the night", "-k", "3")
    assert answer.code == 0
    assert "Read as “a circle” without “the night”." in answer.out
    assert re.search(r"^  1  \+0\.\d{3}  [0-9a-f]{16}  a ", answer.out, re.MULTILINE)
    assert re.search(r"^3 results in \d+\.\d ms$", answer.out, re.MULTILINE)


def test_info(sieve: Sieve, opened: tuple, tiny_collection: Collection) -> None:
    told = sieve("info", *opened, "--json").data
    assert (told["name"], told["items"], told["captions"]) == ("tiny", 60, 120)
    assert told["splits"] == {"train": 36, "select": 12, "test": 12}
    assert (told["labels"], told["skipped"], told["dimensions"]) == (9, 0, 64)
    assert told["backbone"] == tiny_collection.backbone.name
    assert told["checkpoint"] == str(opened[-1])
    assert 0 < told["live"] <= 64
    assert "items       60\n" in sieve("info", *opened).out
    without = sieve("info", opened[0], "--json").data
    assert (without["checkpoint"], without["live"]) == (None, None)


def test_dimensions(sieve: Sieve, opened: tuple) -> None:
    rows = sieve("dimensions", *opened, "--sort", "firing_images", "--json").data
    assert len(rows) == 64
    rates = [row["firing_images"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    table = list(csv.DictReader(io.StringIO(sieve("dimensions", *opened, "--csv").out)))
    assert [int(row["dimension"]) for row in table] == list(range(64))
    word = next(row["top_word"] for row in rows if row["top_word"])
    matched = sieve("dimensions", *opened, "--match", word.upper(), "--json").data
    assert 0 < len(matched) < 64
    assert all(word in row["name"] + row["top_word"] for row in matched)
    assert len(sieve("dimensions", *opened).out.splitlines()) == 65
    assert list(rows[0]) == list(table[0])
    for row in rows:
        assert row["name_source"] in ("captions", "vocabulary", "")
        assert row["label_auc"] is None or 0 <= row["label_auc"] <= 1
        assert (row["label"] == "") == (row["label_auc"] is None)


def test_dimensions_summary(sieve: Sieve, opened: tuple) -> None:
    told = sieve("dimensions", *opened, "--summary", "--json").data
    assert told["collection"] == "tiny"
    assert sum(told["naming"][kind] for kind in ("captions", "vocabulary", "unnamed")) == 64
    assert told["naming"]["words_in_list"] >= 5000
    assert told["labels"]["labels"] == 9
    for name in ("with_dimension", "mean_auc", "disentanglement", "completeness"):
        assert 0 <= told["labels"][name] <= 1
    assert told["leakage"] is None, "twelve test pictures are too few for a pair"
    text = sieve("dimensions", *opened, "--summary").out
    assert "\nnaming\n  captions" in text


def test_faults_are_one_line(sieve: Sieve, opened: tuple, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    search = ("search", *opened)
    for arguments, line in (
        ((*search, ""), "nothing to search for: give a text, an image or an item"),
        ((*search, "x", "--off", "640"), "there is no dimension 640; this checkpoint has 0 to 63"),
        ((*search, "x", "-k", "0"), "top must be between 1 and 200; got 0"),
        ((*search, "--item", "17"), "collection tiny has no item '17'; item ids are"),
        ((*search, "--image", tmp_path / "page.jpg"), "not an image of a known format"),
        ((*search, "--image", tmp_path / "none.jpg"), "none.jpg: file is missing"),
        (("search", "nowhere", "x"), "there is no collection 'nowhere'; there are: scenes"),
        (("search", tmp_path, "x"), "is not a collection (no collection.json); make one with"),
        (("search", opened[0], "x"), "no checkpoint fits backbone local-dir:"),
        (("search", opened[0], "x", "--checkpoint", "best"), "there is no checkpoint 'best'"),
        (("search", opened[0], "x", "--checkpoint", tmp_path), "is not a whole checkpoint"),
        (("dimensions", *opened, "--sort", "beauty"), "cannot sort by 'beauty'; columns are: "),
        (("dimensions", *opened, "--csv", "--json"), "give --csv or --json, not both"),
        (("dimensions", *opened, "--csv", "--summary"), "give --csv or --summary, not both"),
        (("dimensions", *opened, "--summary", "--match", "a"), "--summary is of all dimensions"),
        (("prepare", "scenes", "--count", "3"), "need a place: give --out"),
        (("prepare", "folder", tmp_path / "no", "--out", tmp_path / "c"), "there is no folder"),
        (("prepare", "folder", tmp_path, "--out", tmp_path), "exists already; choose another"),
    ):
        assert line in fault(sieve(*arguments)), arguments


def test_artifacts_that_do_not_fit_are_one_line(
    sieve: Sieve, opened: tuple, tmp_path: Path
) -> None:
    def changed(**facts: object) -> Path:
        copy = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(opened[0], copy, ignore=shutil.ignore_patterns(CHECKSUMS))
        manifest = json.loads((copy / "collection.json").read_text())
        (copy / "collection.json").write_text(json.dumps(manifest | facts))
        return copy

    older = changed(schema_version=0)
    assert "has schema_version 0, this Sieve reads 1; prepare" in fault(sieve("info", older))
    other = changed(backbone={"name": "other", "sha256": "ab" * 32, "d": 32})
    line = fault(sieve("search", other, "x", *opened[1:]))
    assert "tiny reads backbone local-dir:" in line and "other" in line and "sieve train" in line
    torn = changed()
    (torn / "image_embeddings.npy").write_bytes(b"\x93NUMPY")
    assert "image_embeddings.npy has 6 bytes, expected" in fault(sieve("info", torn))


def test_prepare_with_blip(sieve: Sieve, pictures: Path, tmp_path: Path) -> None:
    backbone = f"blip:{os.path.relpath(tiny_blip(tmp_path / 'model'))}"
    out = tmp_path / "by-blip"
    made = sieve(
        "prepare", "folder", pictures / "images", "--captions", pictures / "captions.csv",
        "--backbone", backbone, "--out", out, "--device", "cpu", "--json",
    ).data  # fmt: skip
    assert (made["items"], made["captions"]) == (60, 120)
    assert made["backbone"] == f"blip:{tmp_path / 'model'}"
    assert "no folder at" in fault(
        sieve("prepare", "folder", pictures / "images", "--backbone", "blip:./no", "--out", "x")
    )


def test_prepare_and_train(
    sieve: Sieve, pictures: Path, tiny_backbone_dir: Path, tmp_path: Path, home: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(pictures / "images", images)
    (images / "torn.png").write_bytes((images / "000.png").read_bytes()[:60])
    backbone = f"local-dir:{os.path.relpath(tiny_backbone_dir)}"
    out = tmp_path / "mine"
    made = sieve(
        "prepare", "folder", images, "--captions", pictures / "captions.csv",
        "--backbone", backbone, "--licence", "CC0", "--out", out, "--json",
    ).data  # fmt: skip
    assert (made["name"], made["items"], made["captions"], made["skipped"]) == ("mine", 60, 120, 1)
    assert (made["licence"], made["path"]) == ("CC0", str(out))
    assert made["backbone"] == f"local-dir:{tiny_backbone_dir}"
    skipped = list(csv.DictReader((out / "skipped.csv").open()))
    assert [row["key"] for row in skipped] == ["torn.png"]

    trained = sieve("train", out, "--m", "32", "--k", "4", "--epochs", "1", "--json").data
    assert Path(trained["checkpoint"]) == home / "checkpoints" / "mine"
    assert (trained["trained_on"], trained["items"]) == ("mine", 36)
    assert sieve("search", out, "a circle", "--json").data["results"]
    again = sieve("train", out, "--m", "32", "--k", "4", "--epochs", "1", "--json").data
    assert Path(again["checkpoint"]).name == "mine-2"
    assert sieve("info", out, "--checkpoint", "mine", "--json").data["dimensions"] == 32
    assert "k must be" in fault(sieve("train", out, "--m", "8", "--k", "9"))


def test_train_options_are_those_of_the_configuration() -> None:
    assert set(Train.SETTINGS) <= {field.name for field in fields(TrainingConfig)}
    assert set(Train.SETTINGS) <= {field.name for field in fields(Train)}
    assert set(get_args(get_type_hints(Train)["preset"])) == set(PRESETS)


def test_explore_opens_the_page(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def stopped_at_once(engine: Engine, **where: object) -> None:
        started.append((engine.collection.name, engine.checkpoint.path, where))
        raise KeyboardInterrupt

    monkeypatch.setattr("explorer.serving.start", stopped_at_once)
    monkeypatch.setenv("SIEVE_PASSWORD", "open")
    published = ("--public-safe", "--auth", "guest", "--root-path", "/sieve")
    for flags in ((), ("--no-training",), published):
        assert sieve("explore", *opened, "--port", "8123", *flags).code == 130
    (name, checkpoint, where), (*_, without), (*_, public) = started
    assert public["access"] == Access(public=True, root_path="/sieve", auth=("guest", "open"))
    assert public["training"] is None and where["access"] == Access()
    assert (name, checkpoint) == ("tiny", opened[-1])
    assert (where["host"], where["port"]) == ("127.0.0.1", 8123)
    assert where["training"] is not None and without["training"] is None


def test_explore_offers_to_train_where_nothing_fits(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_at_once(desk: TrainingDesk, **_: object) -> None:
        assert (desk.collection.name, desk.checkpoint) == ("tiny", None)
        raise KeyboardInterrupt

    monkeypatch.setattr("explorer.serving.start_offer", stopped_at_once)
    assert sieve("explore", opened[0]).code == 130
    assert "no checkpoint fits" in fault(sieve("explore", opened[0], "--no-training"))


def test_a_reader_that_leaves_is_no_fault(
    sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        answer = sieve("dimensions", *opened, "--csv")
    assert (answer.code, answer.err) == (141, "")


def test_a_stop_is_one_line(sieve: Sieve, opened: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "search", stopped)
    answer = sieve("search", *opened, "a circle")
    assert answer == (130, "", "sieve: stopped\n")


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (
            *(signal.SIGINT, 130),
            r"sieve: stopped; \d+ of 20,000 are done: the same command goes on from there\n",
        ),
        (signal.SIGTERM, 143, ""),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
    ids=["Ctrl-C", "terminated", "killed"],
)
def test_a_stopped_preparation_keeps_what_is_done(
    tiny_backbone_dir: Path, tmp_path: Path, sent: signal.Signals, code: int, said: str
) -> None:
    command = [
        sys.executable, "-m", "explorer", "prepare", "scenes", "--count", "20000",
        "--backbone", f"local-dir:{tiny_backbone_dir}", "--out", str(tmp_path / "c"),
    ]  # fmt: skip
    # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
    heard = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        running = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".c.part/parts/*.npz")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    if sent == signal.SIGINT:
        os.killpg(running.pid, sent)  # as a terminal does, to the decoders too
    else:
        running.send_signal(sent)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert re.fullmatch(said, err.decode())
    assert [path.name for path in tmp_path.iterdir()] == [".c.part"]


def test_shards_and_more_items(
    sieve: Sieve, pictures: Path, tiny_backbone_dir: Path, home: Path, tmp_path: Path
) -> None:
    images, captions = pictures / "images", pictures / "captions.csv"
    backbone = ("--backbone", f"local-dir:{tiny_backbone_dir}", "--device", "cpu")
    prepare = ("prepare", "folder", images, "--captions", captions, *backbone)
    told = sieve(*prepare, "--shard", "1/2", "--out", tmp_path / "1")
    assert "This is part 1/2: join all with `sieve merge PART… --out COLLECTION`" in told.out
    assert fault(sieve("merge", tmp_path / "1", "--out", tmp_path / "c")).startswith(
        "parts are missing: 2/2"
    )
    assert sieve(*prepare, "--shard", "2/2", "--out", tmp_path / "2").code == 0
    merged = sieve("merge", tmp_path / "2", tmp_path / "1", "--out", tmp_path / "c", "--json").data
    assert (merged["items"], merged["captions"]) == (60, 120)
    assert sieve(*prepare, "--shard", "3/2", "--out", tmp_path / "3").code == 2
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(images / "003.png", more / "new.png")
    added = sieve("add", tmp_path / "c", more, "--device", "cpu")
    assert (added.code, added.err) == (0, "")
    assert f"61 items, 120 captions in {home}/collections/c-2; " in added.out
    with (home / "collections" / "c-2" / "duplicates.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    assert (Path(last["image"]), Path(last["duplicate_of_image"]), last["kind"]) == (
        *(more / "new.png", images / "003.png"),
        "same",
    )
    assert fault(sieve("add", tmp_path / "c", images)).endswith(f"{tmp_path}/c already")
    assert "give its own --backbone" in fault(
        sieve("add", tmp_path / "c", more, "--out", tmp_path / "d", "--backbone", "sieve-lite")
    )
