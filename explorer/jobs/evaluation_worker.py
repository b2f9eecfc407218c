"""The process of one quick evaluation: `python -m sieve.explorer.jobs.evaluation_worker FOLDER`."""

from __future__ import annotations

from pathlib import Path

from sieve.explorer.jobs.directory import MEASURING, Progress, Request
from sieve.explorer.jobs.worker import ProgressReporter, run_job
from sieve.model.benchmark import (
    SHORT_METHODS,
    Benchmark,
    BenchmarkConfig,
    keep_evaluation,
    tracks_of,
)
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection


def evaluate_as_asked(request: Request, collection: Collection, teller: ProgressReporter) -> Path:
    """Measure one checkpoint against the baselines that need no training."""

    def tell(done: int, total: int, doing: str) -> None:
        teller.tell(Progress(MEASURING, step=done, n_steps=total, doing=doing))

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
    return keep_evaluation(benchmark.run(tell), checkpoint.path.name)


if __name__ == "__main__":
    run_job(evaluate_as_asked)
