"""Test training jobs in worker processes: start, progress, stop and resume."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corruption import reseal
from processes import ForkedPython

from sieve.explorer.jobs.manager import (
    JobDirectory,
    JobRequest,
    JobState,
    Progress,
    TrainingSettings,
)
from sieve.explorer.jobs.worker import N_POINTS, CurveRecorder, ProgressReporter
from sieve.explorer.tabs.train import TrainingManager, find_collection
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import find_checkpoint
from sieve.model.collection import Collection
from sieve.model.training.trainer import StepReport, read_metadata
from sieve.model.training.validation import ValidationReport

pytestmark = pytest.mark.slow


def short_training(epochs: int) -> TrainingSettings:
    return TrainingSettings.from_payload({"m": 32, "k": 4, "epochs": epochs})


SHORT = short_training(30)
LONG = short_training(1000)
PATIENCE = 240.0


@pytest.fixture
def trainings(
    tiny_collection: Collection,
    home: Path,  # noqa: ARG001
    forked_jobs: None,  # noqa: ARG001
) -> Iterator[TrainingManager]:
    made = TrainingManager(tiny_collection, "cpu")
    yield made
    if made.job_lock.running_job():
        made.stop()
        wait(lambda: not made.job_lock.running_job())


def wait(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)


def now(trainings: TrainingManager) -> Progress:
    folder = trainings.latest()
    assert folder is not None
    return trainings.progress(folder)


def reached(trainings: TrainingManager, step: int) -> bool:
    progress = now(trainings)
    assert progress.state != JobState.FAILED, progress.fault
    return progress.step >= step


def test_training_is_followed_to_its_checkpoint(trainings: TrainingManager) -> None:
    folder = trainings.start(SHORT)
    wait(lambda: not now(trainings).state.is_active)
    ended = now(trainings)
    assert (ended.state, ended.fault) == (JobState.DONE, "")
    assert ended.step == ended.n_steps > 0 and ended.seconds_left is None
    steps = [point["step"] for point in ended.points]
    assert steps == sorted(set(steps)) and steps[-1] == ended.n_steps
    assert {"total", "presence"} <= set(ended.losses) and 0 < (ended.live or 0) <= 1
    made = Checkpoint.load(ended.made)
    assert (made.encoder.config.m, made.encoder.config.k) == (32, 4)
    assert find_checkpoint(trainings.collection) == Path(ended.made)
    assert not folder.checkpoint.exists()


def test_validation_appears_at_its_step_in_the_curves(trainings: TrainingManager) -> None:
    request = JobRequest("training", "/nowhere", "tiny", "", "cpu", {})
    folder = JobDirectory.create(trainings.job_lock.home, request)
    curves = CurveRecorder(ProgressReporter(folder))
    for step in range(1, 2001):
        if step in (333, 2000):
            curves.on_validation(ValidationReport(step, step / 2000, None if step == 333 else 0.5))
        curves.on_step(StepReport(step, 2000, {"total": 1.0}, 1.0))
    points = folder.read().points
    assert len(points) <= N_POINTS + 1
    assert [point for point in points if "recall" in point] == [
        {"step": 333, "total": 1.0, "live": 1.0, "recall": 0.1665},
        {"step": 2000, "total": 1.0, "live": 1.0, "recall": 1.0, "exclusion": 0.5},
    ]
    steps = [point["step"] for point in points]
    assert steps == sorted(set(steps))


def test_one_training_at_a_time_can_be_stopped_resumed_and_killed(
    trainings: TrainingManager, tiny_collection: Collection
) -> None:
    trainings.start(LONG)
    other = TrainingManager(tiny_collection, "cpu")
    for one in (trainings, other):
        with pytest.raises(ValueError, match="a training of tiny is already running"):
            one.start(SHORT)
    wait(lambda: reached(trainings, 20))
    assert len(list(trainings.job_lock.home.glob("*/request.json"))) == 1
    other.stop()  # another server of the same user can do so
    wait(lambda: not trainings.job_lock.running_job())
    stopped = now(trainings)
    assert (stopped.state, stopped.fault) == (JobState.STOPPED, "")
    assert 20 <= stopped.step < stopped.n_steps
    with pytest.raises(ValueError, match="no training of this collection is running"):
        trainings.stop()

    other.resume()
    wait(lambda: reached(trainings, stopped.step + 10))
    steps = [point["step"] for point in now(trainings).points]
    assert steps == sorted(set(steps)) and steps[0] < stopped.step < steps[-1]
    assert other.job_lock.process is not None
    other.job_lock.process.kill()
    other.job_lock.process.wait()
    killed = now(trainings)
    assert killed.state == JobState.STOPPED and killed.step > stopped.step
    assert "ended from outside" in killed.fault
    trainings.discard()
    assert trainings.latest() is None


def test_killed_server_stops_its_training_without_losing_progress(
    trainings: TrainingManager, tiny_collection: Collection
) -> None:
    script = (
        "import sys, time; from sieve.explorer.tabs.train import TrainingManager;"
        "from sieve.explorer.jobs.manager import TrainingSettings;"
        "from sieve.model.collection import Collection;"
        "TrainingManager(Collection.open(sys.argv[1]), 'cpu')"
        ".start(TrainingSettings.from_payload({'m': 32, 'k': 4, 'epochs': 1000})); time.sleep(600)"
    )
    server = ForkedPython(["-c", script, tiny_collection.path])
    wait(lambda: list(trainings.job_lock.home.glob("*/progress.jsonl")))
    wait(lambda: reached(trainings, 10))
    server.kill()
    server.wait()
    wait(lambda: not trainings.job_lock.running_job())
    left = now(trainings)
    assert (left.state, left.fault) == (JobState.STOPPED, "") and left.step >= 10
    facts = read_metadata(trainings.latest().checkpoint.with_name(".checkpoint.unfinished"))  # type: ignore[union-attr]
    assert facts is not None and facts["step"] == left.step


def test_worker_error_is_one_line(trainings: TrainingManager) -> None:
    request = JobRequest(
        "training", "/nowhere", "tiny", trainings.collection.sha256, "cpu", SHORT.as_json()
    )
    JobDirectory.create(trainings.job_lock.home, request)
    assert now(trainings).state == JobState.FAILED  # no process uses it
    trainings.resume()
    wait(lambda: not trainings.job_lock.running_job())
    failed = now(trainings)
    assert failed.state == JobState.FAILED and "/nowhere is not a collection" in failed.fault
    assert "\n" not in failed.fault


def test_another_collection_can_be_trained(trainings: TrainingManager, home: Path) -> None:
    other = home / "collections" / "other"
    shutil.copytree(trainings.collection.path, other)
    manifest = other / "collection.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": "other"}))
    reseal(other)
    trainings.start(short_training(1), find_collection(trainings.collection, "other"))
    wait(lambda: not now(trainings).state.is_active)
    ended = now(trainings)
    assert (ended.state, ended.fault) == (JobState.DONE, "")
    made = Checkpoint.load(ended.made)
    assert made.trained_on == "other"
    made.check_fits(trainings.collection)
