"""Worker process of a quick evaluation: `python -m sieve.explorer.jobs.evaluation_worker DIR`."""

from __future__ import annotations

from pathlib import Path

from sieve.explorer.jobs.directory import MEASURING, JobRequest, Progress
from sieve.explorer.jobs.worker import ProgressReporter, run_job
from sieve.model.benchmark import (
    SHORT_METHODS,
    Benchmark,
    BenchmarkConfig,
    save_evaluation,
    tracks_of,
)
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection


def run_evaluation(request: JobRequest, collection: Collection, reporter: ProgressReporter) -> Path:
    """Compare one checkpoint with the training-free baselines; return the stored evaluation."""

    def on_progress(done: int, total: int, doing: str) -> None:
        reporter.report(Progress(MEASURING, step=done, n_steps=total, doing=doing))

    checkpoint = Checkpoint.load(str(request.settings.get("checkpoint")))
    config = BenchmarkConfig(tracks=tracks_of(collection), methods=SHORT_METHODS, seeds=(0,))
    benchmark = Benchmark(
        collection,
        config,
        checkpoint=checkpoint,
        text_encoder=request.text_encoder,
        allow_code=bool(request.text_encoder),
        device=request.device,
        progress=False,
    )
    return save_evaluation(benchmark.run(on_progress), checkpoint.path.name)


if __name__ == "__main__":
    run_job(run_evaluation)
