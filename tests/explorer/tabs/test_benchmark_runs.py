"""Test quick evaluations: the worker process and the reasons to refuse one."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_collection import write_caption_collection

from sieve.explorer.jobs.manager import JobDirectory, JobRequest, JobState
from sieve.explorer.jobs.worker import ProgressReporter, Stopped, run_evaluation
from sieve.explorer.tabs.benchmark import EvaluationManager
from sieve.explorer.tabs.train import TrainingManager
from sieve.model.backbone.clip import Backbone
from sieve.model.benchmark.methods import SHORT_METHODS
from sieve.model.benchmark.results import list_evaluations, read_evaluation
from sieve.model.collection import Collection
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import train

pytestmark = pytest.mark.slow


def test_quick_benchmark_is_run_reported_and_saved(
    tiny_backbone: Backbone, tmp_path: Path, home: Path
) -> None:
    collection = Collection.open(write_caption_collection(tmp_path / "captioned", tiny_backbone))
    fresh = Collection.open(write_caption_collection(tmp_path / "fresh", tiny_backbone, 5))
    (tmp_path / "two  spaces").mkdir()
    made = train(
        fresh, tmp_path / "two  spaces" / "made", TrainingConfig(m=32, k=4, epochs=2), device="cpu",
        backbone=tiny_backbone, progress=False,
    )  # fmt: skip
    of = (str(collection.path), collection.name, collection.sha256)
    request = JobRequest("evaluation", *of, "cpu", {"checkpoint": str(made.path)})
    folder = JobDirectory.create(home / "jobs", request)
    reporter = ProgressReporter(folder)
    saved = run_evaluation(request, collection, reporter)
    (evaluation,) = list_evaluations(collection.sha256)[0]
    assert evaluation.id == saved.stem and evaluation.is_short
    assert evaluation.checkpoint == ("made", made.sha256)
    tracks = read_evaluation(evaluation.path).tracks
    assert [method.method for method in tracks[0].methods] == list(SHORT_METHODS)
    now = reporter.progress
    n_methods = 2 * len(SHORT_METHODS)
    assert (now.state, now.step, now.n_steps) == (JobState.MEASURING, n_methods - 1, n_methods)
    assert now.doing == "caption track, Sieve"

    reporter.stop.set()
    with pytest.raises(Stopped):
        run_evaluation(request, collection, reporter)
    assert len(list_evaluations(collection.sha256)[0]) == 1


def test_collection_that_cannot_be_evaluated_is_explained(
    tiny_collection: Collection,
    home: Path,  # noqa: ARG001
) -> None:
    assert EvaluationManager(tiny_collection).refusal() == ""
    bare = Collection(tiny_collection.path, tiny_collection.manifest, tiny_collection.sha256)
    bare.__dict__["items"] = tiny_collection.items.assign(split="train")
    runs = EvaluationManager(bare)
    assert "select split" in runs.refusal()
    with pytest.raises(ValueError, match="select split"):
        runs.start(Path("anywhere"))


def test_jobs_of_different_kinds_are_separate(tiny_collection: Collection, home: Path) -> None:
    of = (str(tiny_collection.path), tiny_collection.name, tiny_collection.sha256)
    folder = JobDirectory.create(home / "jobs", JobRequest("evaluation", *of, "cpu", {}))
    found = EvaluationManager(tiny_collection).latest()
    assert found is not None and found.path == folder.path
    assert TrainingManager(tiny_collection).latest() is None
