"""Test the handlers of the Benchmark tab, with untrusted input too."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from corruption import mutated_json
from tiny_evaluation import SHARES, save_small_evaluation

from sieve.explorer.app import build_app
from sieve.explorer.errors import json_errors
from sieve.explorer.jobs.manager import JobDirectory, JobLock, JobRequest, JobState, Progress
from sieve.explorer.tabs.benchmark import BenchmarkHandlers, EvaluationManager
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.benchmark.failures import FAILURE_KINDS
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection


@pytest.fixture
def handlers(
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    home: Path,  # noqa: ARG001
) -> BenchmarkHandlers:
    return BenchmarkHandlers(
        tiny_collection, tiny_checkpoint, EvaluationManager(tiny_collection, "cpu", JobLock())
    )


def test_empty_list_explains_how_to_evaluate(handlers: BenchmarkHandlers) -> None:
    answer = handlers.evaluations({"anything": 1})
    assert answer["evaluations"] == [] and answer["run"] is None and answer["refusal"] == ""
    assert answer["command"].startswith("sieve evaluate /")


def test_evaluations_are_listed_and_opened(
    handlers: BenchmarkHandlers, tiny_collection: Collection, tiny_checkpoint: Checkpoint
) -> None:
    own = save_small_evaluation(tiny_collection, "tiny", tiny_checkpoint.sha256)
    other = save_small_evaluation(tiny_collection, "zebra", "ab" * 32)
    trained = save_small_evaluation(tiny_collection, seeds=3)
    answer = {one["id"]: one for one in handlers.evaluations(None)["evaluations"]}
    assert set(answer) == {own.stem, other.stem, trained.stem}
    assert [answer[path.stem]["is_open"] for path in (own, other, trained)] == [True, False, False]
    assert answer[trained.stem]["checkpoint"] == "" and answer[trained.stem]["seeds"] == 3
    opened = handlers.evaluation({"id": own.stem})
    track, _ = opened["tracks"]
    assert [row["method"] for row in track["methods"]] == list(SHARES)
    stands = {row["method"]: row["stand"] for row in track["methods"]}
    assert stands == {"A only": "loses", "subtraction": "loses", "paper": "wins", "Sieve": ""}
    assert any(line.startswith("paper beats Sieve") for line in track["verdicts"])
    assert track["baselines"] == ["A only", "subtraction", "paper"]


def test_wins_and_losses_have_images(
    handlers: BenchmarkHandlers, tiny_collection: Collection
) -> None:
    saved = save_small_evaluation(tiny_collection)
    payload = {"id": saved.stem, "track": "label", "baseline": "subtraction"}
    answer = handlers.evaluation_pairs(payload)
    assert [(one["a"], one["b"]) for one in answer["wins"]] == [("circle", "snow")]
    assert [(one["a"], one["b"]) for one in answer["losses"]] == [("square", "night")]
    assert (answer["n_wins"], answer["n_losses"], answer["pairs"]) == (1, 1, 3)
    sieve, baseline = answer["losses"][0]["sides"]
    assert (sieve["method"], sieve["ap"], baseline["ap"]) == ("Sieve", 0.6, 0.9)
    assert [item["mark"] for item in baseline["results"]].count("both") == 2
    assert all(item["captions"] for item in baseline["results"])
    against = handlers.evaluation_pairs({**payload, "baseline": "paper"})
    assert not against["wins"] and against["n_losses"] == 3


def test_failures_are_grouped_by_kind_with_their_rules(
    handlers: BenchmarkHandlers, tiny_collection: Collection
) -> None:
    saved = save_small_evaluation(tiny_collection)
    kinds = handlers.evaluation_failures({"id": saved.stem, "track": "label"})
    assert [one["kind"] for one in kinds] == list(FAILURE_KINDS)
    assert all(one["rule"] for one in kinds)
    pairs = {one["kind"]: [pair["b"] for pair in one["pairs"]] for one in kinds if one["pairs"]}
    assert pairs == {"B absorbed in A": ["night"], "calibration": ["sand"]}
    (pair,) = next(one["pairs"] for one in kinds if one["kind"] == "calibration")
    assert pair["sides"][0]["ap"] == 0.4 and len(pair["sides"][0]["results"]) == 10


@pytest.mark.parametrize(
    "payload",
    [
        None, [], "x", {}, {"id": 1}, {"id": "../../../etc/passwd"}, {"id": "x" * 10_000},
        {"id": "KEPT", "track": "label"}, {"id": "KEPT", "track": "label", "baseline": "magic"},
        {"id": "KEPT", "track": ["label"], "baseline": "Sieve"}, {"id": "KEPT", "out": "/etc"},
        {"id": "KEPT", "track": "<b>", "baseline": "A only"},
    ],
)  # fmt: skip
def test_invalid_requests_are_one_line(
    handlers: BenchmarkHandlers, tiny_collection: Collection, payload: object
) -> None:
    saved = save_small_evaluation(tiny_collection)
    if isinstance(payload, dict) and payload.get("id") == "KEPT":
        payload = {**payload, "id": saved.stem}
    line = json_errors(handlers.evaluation_pairs)(payload)["error"]
    assert line and "\n" not in line and len(line) < 400


def test_damaged_evaluations_are_reported_next_to_valid_ones(
    handlers: BenchmarkHandlers, tiny_collection: Collection, tiny_checkpoint: Checkpoint
) -> None:
    good, bad = save_small_evaluation(tiny_collection), save_small_evaluation(tiny_collection)
    bad.write_text("{")
    answer = handlers.evaluations(None)
    assert [one["id"] for one in answer["evaluations"]] == [good.stem]
    (line,) = answer["faults"]
    assert str(bad) in line
    for_strangers = BenchmarkHandlers(tiny_collection, tiny_checkpoint).evaluations(None)
    assert str(bad.parent) not in str(for_strangers)


def test_mutated_evaluations_are_read_or_reported_with_one_line(
    handlers: BenchmarkHandlers, tiny_collection: Collection
) -> None:
    path = save_small_evaluation(tiny_collection)
    listed = dict(mutated_json(json.loads(path.read_text())))
    n_faults = 0
    for mutation in random.Random(0).sample(sorted(listed), 200):
        path.write_text(listed[mutation])
        answer = handlers.evaluations(None)
        views = [answer]
        for line in answer["faults"]:
            assert str(path) in line and "\n" not in line and len(line) < 500, mutation
            n_faults += 1
        for one in answer["evaluations"]:
            views.append(view := handlers.evaluation({"id": one["id"]}))
            for track in view["tracks"]:
                for baseline in track["baselines"]:
                    payload = {"id": one["id"], "track": track["track"], "baseline": baseline}
                    pairs = json_errors(handlers.evaluation_pairs)(payload)
                    assert "\n" not in pairs.get("error", ""), mutation
                    views.append(pairs)
        json.dumps(views, allow_nan=False)
    assert n_faults > 80


def test_running_job_of_another_kind_blocks_the_start(
    handlers: BenchmarkHandlers, tiny_collection: Collection, home: Path
) -> None:
    training = TrainHandlers(tiny_collection, None, "cpu")
    of = (str(tiny_collection.path), tiny_collection.name, tiny_collection.sha256)
    folder = JobDirectory.create(home / "jobs", JobRequest("training", *of, "cpu", {}))
    folder.write(Progress("training", step=1, n_steps=9))
    with training.trainings.job_lock.acquire() as lock:
        lock.write(folder.path.name.encode())
        lock.flush()
        assert handlers.evaluations(None)["elsewhere"] == "a training of tiny"
        line = json_errors(handlers.evaluation_start)(None)["error"]
        assert line.startswith("A training of tiny is already running")
    folder.write(Progress(JobState.STOPPED))
    assert handlers.evaluations(None)["elsewhere"] == ""
    assert len(list((home / "jobs").glob("*/request.json"))) == 1


def test_without_training_no_benchmark_can_be_run(tiny_engine, handlers: BenchmarkHandlers) -> None:  # noqa: ARG001
    def functions(app: object) -> set[str]:
        blocks = app.blocks.values()  # type: ignore[attr-defined]
        return {name for block in blocks for name in vars(block) if "sieve_evaluation_" in name}

    training = TrainHandlers(tiny_engine.collection, None, "cpu")
    asks = {"sieve_evaluation_pairs", "sieve_evaluation_failures"}
    assert functions(build_app(tiny_engine)) == asks
    runs = {"sieve_evaluation_start", "sieve_evaluation_stop"}
    assert functions(build_app(tiny_engine, training)) == asks | runs
