"""Worker process of a training or a quick evaluation: `python -m sieve.explorer.jobs.worker DIR`.

A worker ends when the server that started it ends, or when a stop is requested. It communicates
only through the progress file of its job directory. The training state is saved regularly, so a
stopped or killed training can be resumed.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from sieve.data_prep.bundled import locate_collection
from sieve.explorer.errors import one_line
from sieve.explorer.jobs.manager import (
    MAX_FAULT,
    JobDirectory,
    JobRequest,
    JobState,
    Progress,
    TrainingSettings,
)
from sieve.model.benchmark.methods import SHORT_METHODS
from sieve.model.benchmark.results import BenchmarkConfig, save_evaluation
from sieve.model.benchmark.run import Benchmark
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import default_checkpoint_out
from sieve.model.collection import Collection
from sieve.model.evaluation.pairs import tracks_of
from sieve.model.training.trainer import StepReport, train
from sieve.model.training.validation import ValidationReport

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_WRITE_EVERY = 0.5  # seconds


class Stopped(BaseException):
    """Raised inside a worker when its job has to stop; finished work is not undone."""


class ProgressReporter:
    """Write the progress of a job, and raise `Stopped` once a stop is requested."""

    def __init__(self, folder: JobDirectory) -> None:
        self.folder = folder
        before = folder.read()
        self.progress = Progress(points=before.points, step=before.step, n_steps=before.n_steps)
        self.stop, self.ended = Event(), Event()
        self._written_at = 0.0
        folder.write(self.progress)

    def report(self, progress: Progress) -> None:
        """Record progress; written at most every half second, and when the state changes."""
        now = time.monotonic()
        due = now - self._written_at > _WRITE_EVERY or progress.state != self.progress.state
        self.progress = progress
        if due:
            self.folder.write(progress)
            self._written_at = now
        if self.stop.is_set():
            raise Stopped

    def end(self, state: JobState, fault: str = "", made: str = "") -> None:
        """Write the final state; from then on the job cannot be stopped."""
        self.ended.set()
        self.progress = replace(
            self.progress, state=state, fault=fault[:MAX_FAULT], made=made, seconds_left=None
        )
        if self.folder.path.is_dir():
            self.folder.write(self.progress)


N_POINTS = 200
"""Maximum number of regular points of a curve."""
_SAVE_EVERY = 15.0  # seconds


class CurveRecorder:
    """Convert the step and validation reports of a training to progress with curves."""

    def __init__(self, reporter: ProgressReporter) -> None:
        self._reporter = reporter
        self._started: tuple[float, int] | None = None
        self._validation: ValidationReport | None = None

    def on_validation(self, report: ValidationReport) -> None:
        """Store a validation report; the report of its step follows."""
        self._validation = report

    def on_step(self, report: StepReport) -> None:
        """Report the progress after a training step."""
        now = time.monotonic()
        if self._started is None:
            self._started = (now, report.step)
        started_at, first_step = self._started
        seconds_per_step = (now - started_at) / max(report.step - first_step, 1)
        seconds_left = seconds_per_step * (report.n_steps - report.step)
        self._reporter.report(
            Progress(
                state=JobState.TRAINING if report.step < report.n_steps else JobState.MEASURING,
                step=report.step,
                n_steps=report.n_steps,
                seconds_left=seconds_left if report.step > first_step else None,
                live=report.live,
                losses=report.losses,
                points=self._points(report),
            )
        )

    def _points(self, report: StepReport) -> tuple[dict[str, float], ...]:
        """Return the points with the one of this step, if it is due.

        Points of this and later steps, left by an interrupted run, are dropped.
        """
        every = max(report.n_steps // N_POINTS, 1)
        points = self._reporter.progress.points
        while points and points[-1]["step"] >= report.step:
            points = points[:-1]
        validation, self._validation = self._validation, None
        if report.step % every and report.step != report.n_steps and validation is None:
            return points
        point = {"step": report.step, "total": report.losses["total"], "live": report.live}
        if validation is not None:
            point["recall"] = validation.recall
            if validation.exclusion is not None:
                point["exclusion"] = validation.exclusion
        return (*points, point)


def run_training(request: JobRequest, collection: Collection, reporter: ProgressReporter) -> Path:
    """Train or resume training; return the path of the finished checkpoint."""
    config = TrainingSettings.from_payload(request.settings).config
    curves = CurveRecorder(reporter)
    if not reporter.folder.checkpoint.exists():
        train(
            collection,
            reporter.folder.checkpoint,
            config,
            device=request.device,
            text_encoder=request.text_encoder,
            allow_code=bool(request.text_encoder),
            on_step=curves.on_step,
            on_validation=curves.on_validation,
            progress=False,
            save_every=_SAVE_EVERY,
        )
    return _move_checkpoint(reporter.folder, request)


def _move_checkpoint(folder: JobDirectory, request: JobRequest) -> Path:
    """Move the finished checkpoint to a free name among the collection's checkpoints."""
    while True:
        out = default_checkpoint_out(request.name)
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.checkpoint.rename(out)
        except OSError:
            if not out.exists():
                raise
            continue  # another process has taken this name
        return out


def run_evaluation(request: JobRequest, collection: Collection, reporter: ProgressReporter) -> Path:
    """Compare one checkpoint with the training-free baselines; return the stored evaluation."""

    def on_progress(done: int, total: int, doing: str) -> None:
        reporter.report(Progress(JobState.MEASURING, step=done, n_steps=total, doing=doing))

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
    return save_evaluation(benchmark.run(on_progress), checkpoint.name)


def main() -> None:
    """Run the job whose directory is given on the command line, and write its final state."""
    folder = JobDirectory(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    reporter = ProgressReporter(folder)
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; we follow it
    Thread(target=_watch, args=(reporter, os.getppid()), daemon=True).start()
    try:
        request, collection = _open_job(folder)
        work = run_training if request.kind == "training" else run_evaluation
        reporter.end(JobState.DONE, made=str(work(request, collection, reporter)))
    except Stopped:
        reporter.end(JobState.STOPPED)
    except (ValueError, OSError) as error:
        reporter.end(JobState.FAILED, fault=one_line(error))
    except Exception:
        log.exception("the job failed")
        reporter.end(JobState.FAILED, fault=f"An internal error occurred; see {folder.log}")


def _open_job(folder: JobDirectory) -> tuple[JobRequest, Collection]:
    request = folder.request()
    if request is None:
        raise ValueError(f"{folder.path / 'request.json'} cannot be read; start a new job")
    path = Path(request.collection)
    if not request.sha256:  # a bundled collection that is not prepared yet
        path = locate_collection(request.collection, device=request.device, progress=False)
    collection = Collection.open(path)
    if request.sha256 and collection.sha256 != request.sha256:
        raise ValueError(f"{path} has changed since the job was requested; start a new job")
    return request, collection


def _raise_stopped(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise Stopped


def _watch(reporter: ProgressReporter, parent: int) -> None:
    """Stop the job on request or when the server ends.

    A training stops after its current step; any other work is interrupted at once.
    """
    while not (reporter.folder.should_stop() or os.getppid() != parent):
        time.sleep(_POLL_SECONDS)
    reporter.stop.set()
    if reporter.progress.state != JobState.TRAINING and not reporter.ended.is_set():
        _thread.interrupt_main(signal.SIGTERM)


if __name__ == "__main__":
    main()
