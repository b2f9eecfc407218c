from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, word_benchmark, write_word_collection
from corruption import reseal

from sieve.model.benchmark.methods import METHODS
from sieve.model.benchmark.results import BenchmarkConfig, BenchmarkResult, MethodResult
from sieve.model.benchmark.run import Benchmark
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.training.trainer import StepReport, Trainer

pytestmark = pytest.mark.slow

TRAINING = replace(QUICK, epochs=3)
CONFIG = BenchmarkConfig(
    tracks=("label", "caption"), seeds=(0, 1), trials=9, resamples=30, training=TRAINING
)


def benchmark(collection: Collection, config: BenchmarkConfig = CONFIG, **options) -> Benchmark:
    return word_benchmark(collection, config, **options)


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def result(large_word_collection: Collection, home_of_module: None) -> BenchmarkResult:  # noqa: ARG001
    return benchmark(large_word_collection).run()


def rows(result: BenchmarkResult, track: int = 0) -> dict[str, MethodResult]:
    return {method.method: method for method in result.tracks[track].methods}


def test_oracle_is_perfect(result: BenchmarkResult) -> None:
    for track in (0, 1):
        best = rows(result, track)["oracle"]
        assert best.ap == 1
        assert best.violation == 0
        assert best.ci == (1, 1)


def test_a_only_violates_as_often_as_b_occurs_with_a(result: BenchmarkResult) -> None:
    alone = rows(result)["A only"]
    assert alone.ap < 0.9
    # Each word occurs in a quarter of the items, independently of others.
    assert 0.1 < alone.violation < 0.4
    assert alone.plain_ap == alone.kept_ap
    assert alone.spared_ap == alone.spared_plain_ap


def test_exclusion_reduces_violations(result: BenchmarkResult) -> None:
    found = rows(result)
    for name in ("subtraction", "orthogonal", "SpaceVLM", "SpLiCE", "Sieve", "dense control"):
        assert found[name].violation < found["A only"].violation, name
        assert found[name].ap > found["A only"].ap, name
    assert found["subtraction"].hyperparameters["weight"] > 0


def test_results_are_complete_and_in_range(result: BenchmarkResult) -> None:
    for track in result.tracks:
        assert tuple(method.method for method in track.methods) == METHODS
        for method in (*track.methods, *track.variants):
            assert 0 <= method.ap <= 1
            assert method.ci.low - 1e-9 <= method.ap <= method.ci.high + 1e-9
            assert method.trials <= CONFIG.trials
            assert method.ratio is not None
            assert method.ratio_ci is not None
        sieve = {method.method: method for method in track.methods}["Sieve"]
        assert sieve.ratio == 1
        assert sieve.ratio_ci == pytest.approx((1, 1))
        assert sieve.spread == pytest.approx(np.std(sieve.by_seed, ddof=1))
        assert set(sieve.recall or {}) == {"recall@1", "recall@5", "recall@10"}
        same = {method.method: method.same_rule_ratio for method in track.variants}
        assert same["dense control: zero"] == pytest.approx(
            next(v.ap for v in track.variants if v.method == "Sieve: zero")
            / next(v.ap for v in track.variants if v.method == "dense control: zero")
        )


def test_same_run_gives_identical_json(
    result: BenchmarkResult, large_word_collection: Collection
) -> None:
    methods = ("A only", "subtraction", "Sieve", "oracle")
    config = BenchmarkConfig(
        tracks=("label",), methods=methods, seeds=(0, 1), trials=9, resamples=30, training=TRAINING
    )
    once, again = (json.dumps(benchmark(large_word_collection, config).run().as_json())
                   for _ in range(2))  # fmt: skip
    assert once == again
    data = json.loads(once)
    assert set(data) >= {"collection", "seeds", "tracks", "nouns_sha256"}
    (track,) = data["tracks"]
    assert [method["method"] for method in track["methods"]] == list(methods)
    assert set(track["methods"][0]) >= {
        "method", "ap@10", "ci", "ratio", "p@10", "violation@10", "ndcg@10", "plain_ap@10",
    }  # fmt: skip
    # The results of a method do not depend on the other methods.
    assert track["methods"][2]["ap@10"] == round(rows(result)["Sieve"].ap, 6)
    assert len(data["nouns_sha256"]) == 64


def test_trainings_at_once_are_reproducible(
    large_word_collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    two_threads: None,  # noqa: ARG001
) -> None:
    config = BenchmarkConfig(
        tracks=("label",),
        methods=("Sieve",),
        seeds=(0, 1),
        trials=3,
        resamples=9,
        training=TRAINING,
    )
    encoders = []
    for name in ("once", "again"):
        monkeypatch.setenv("SIEVE_HOME", str(tmp_path / name))
        encoders.append(benchmark(large_word_collection, config)._encoders()["Sieve"])
    for once, again in zip(*encoders, strict=True):
        assert torch.equal(once.encode_md, again.encode_md)
    assert not torch.equal(encoders[0][0].encode_md, encoders[0][1].encode_md)


def test_a_failed_training_stops_the_others(
    large_word_collection: Collection,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    two_threads: None,  # noqa: ARG001
) -> None:
    first_step = Trainer.train_step
    steps = Counter()

    def train_step(trainer: Trainer) -> StepReport:
        if trainer.config.seed == 1:
            raise ValueError("the loss is not finite")
        steps[trainer.config.seed] += 1
        return first_step(trainer)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    training = replace(QUICK, epochs=1000)
    config = BenchmarkConfig(methods=("Sieve",), seeds=(0, 1, 2), training=training)
    with pytest.raises(ValueError, match="not finite"):
        benchmark(large_word_collection, config).run()
    assert steps[0] < 1000
    assert steps[2] == 0
    assert not (home / "peers").exists()


def test_training_items_are_not_scored(
    large_word_collection: Collection, tmp_path: Path, word_checkpoint: Checkpoint
) -> None:
    # The same ids with other splits: some train items of one are test items of the other.
    path = write_word_collection(tmp_path / "other", 1500, select=10, test=11)
    other = Collection.open(path)
    trained = set(other.items["id"].iloc[other.rows_of_split(["train"])])
    scored = large_word_collection.rows_of_split(["select", "test"])
    n_shared = len(trained & set(large_word_collection.items["id"].iloc[scored]))
    with pytest.raises(ValueError, match=rf"trained on {n_shared:,} of the {len(scored):,} select"):
        benchmark(large_word_collection, train=other)
    with pytest.raises(ValueError, match=r"checkpoint .* was trained on [1-9]\d* of"):
        benchmark(large_word_collection, checkpoint=word_checkpoint)


@pytest.mark.parametrize(
    ("facts", "message"),
    [("[", "training.json is damaged"), ("{}", "does not record its training items"),
     ('{"items": []}', "does not record"), (None, "does not record")],
)  # fmt: skip
def test_checkpoint_without_training_items_is_rejected(
    large_word_collection: Collection,
    tmp_path: Path,
    word_checkpoint: Checkpoint,
    facts: str | None,
    message: str,
) -> None:
    copied = Path(shutil.copytree(word_checkpoint.path, tmp_path / "copied"))
    (copied / "training.json").unlink()
    if facts is not None:
        (copied / "training.json").write_text(facts)
    reseal(copied)
    with pytest.raises(ValueError, match=message):
        benchmark(large_word_collection, checkpoint=Checkpoint.load(copied))


def test_checkpoint_trained_on_another_collection_is_evaluated(
    large_word_collection: Collection, tmp_path: Path, word_checkpoint: Checkpoint
) -> None:
    path = write_word_collection(tmp_path / "fresh", 1500, select=10, test=7, seed=2)
    fresh = Collection.open(path)
    config = BenchmarkConfig(("label",), ("A only", "Sieve"), (0,), trials=3, resamples=20)
    found = benchmark(fresh, config, checkpoint=word_checkpoint).run()
    assert found.checkpoint == word_checkpoint.sha256
    assert len(rows(found)["Sieve"].by_seed) == 1
    assert rows(found)["Sieve"].ap > rows(found)["A only"].ap
    assert found.settings()["checkpoint_sha256"] == word_checkpoint.sha256
    assert large_word_collection.sha256 != fresh.sha256


def test_another_backbone_is_a_baseline(
    large_word_collection: Collection, tmp_path: Path, word_collection: Collection
) -> None:
    # The same items, embedded by a backbone that differs only in its hash.
    path = write_word_collection(tmp_path / "peer", 1500, "ee" * 32, select=12, test=7)
    config = BenchmarkConfig(("label",), ("subtraction",), (0,), trials=40, resamples=20)
    baselines = {"BLIP": Collection.open(path)}
    (track,) = benchmark(large_word_collection, config, baselines=baselines).run().tracks
    own, baseline = track.methods
    assert baseline.method == "BLIP"
    assert {v.method for v in track.variants} >= {"BLIP: subtract", "BLIP: SpaceVLM"}
    assert baseline.plain_ap == pytest.approx(own.plain_ap, abs=0.1)
    with pytest.raises(ValueError, match="lacks .* scored items"):
        benchmark(large_word_collection, baselines={"BLIP": word_collection})
    with pytest.raises(ValueError, match="already a method"):
        benchmark(large_word_collection, baselines={"Sieve": Collection.open(path)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("A only", "magic")}, "unknown method magic"),
        ({"seeds": ()}, "at least one seed"),
        ({"trials": 0}, "at least 1"),
    ],
)
def test_invalid_settings_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig(**options)


def test_training_collection_of_another_backbone_is_rejected(
    large_word_collection: Collection, tmp_path: Path
) -> None:
    path = write_word_collection(tmp_path / "other", 100, "ee" * 32, seed=3)
    with pytest.raises(ValueError, match="uses backbone words"):
        benchmark(large_word_collection, train=Collection.open(path))
