"""The process of one training: `python -m sieve.explorer.jobs.training_worker FOLDER`.

Whatever ends it leaves a state from which it goes on.
"""

from __future__ import annotations

import time
from pathlib import Path

from sieve.explorer.jobs.directory import MEASURING, TRAINING, JobDirectory, Progress, Request
from sieve.explorer.jobs.worker import ProgressReporter, run_job
from sieve.explorer.tabs.train import TrainingSettings
from sieve.model.checkpoint import default_checkpoint_out
from sieve.model.collection import Collection
from sieve.model.training import train
from sieve.model.training.trainer import StepReport
from sieve.model.training.validation import ValidationReport

N_POINTS = 200
"""Points of a curve."""
_SAVE_EVERY = 15.0


class Curves:
    """Turns a training's reports into its progress."""

    def __init__(self, teller: ProgressReporter) -> None:
        self._teller = teller
        self._begun: tuple[float, int] | None = None
        self._probed: ValidationReport | None = None

    def on_probe(self, found: ValidationReport) -> None:
        """Take a probe; the report of its step follows."""
        self._probed = found

    def on_step(self, report: StepReport) -> None:
        """Take a step's report."""
        clock = time.monotonic()
        if self._begun is None:
            self._begun = (clock, report.step)
        begun, first = self._begun
        rate = (clock - begun) / max(report.step - first, 1)
        self._teller.tell(
            Progress(
                state=TRAINING if report.step < report.n_steps else MEASURING,
                step=report.step,
                n_steps=report.n_steps,
                seconds_left=rate * (report.n_steps - report.step) if report.step > first else None,
                live=report.live,
                losses=report.losses,
                points=self._points(report),
            )
        )

    def _points(self, report: StepReport) -> tuple[dict[str, float], ...]:
        """Add a point now and then; those of steps that are taken again go."""
        every = max(report.n_steps // N_POINTS, 1)
        points = self._teller.now.points
        while points and points[-1]["step"] >= report.step:
            points = points[:-1]
        probed, self._probed = self._probed, None
        if report.step % every and report.step != report.n_steps and probed is None:
            return points
        point = {"step": report.step, "total": report.losses["total"], "live": report.live}
        if probed is not None:
            point["recall"] = probed.recall
            if probed.exclusion is not None:
                point["exclusion"] = probed.exclusion
        return (*points, point)


def train_as_asked(request: Request, collection: Collection, teller: ProgressReporter) -> Path:
    """Train, or go on training, and give the finished checkpoint its name."""
    settings = TrainingSettings.from_payload(request.settings)
    curves = Curves(teller)
    if not teller.folder.draft.exists():
        train(
            collection,
            teller.folder.draft,
            settings.config(),
            device=request.device,
            text_encoder=request.text_encoder,
            allow_code=bool(request.text_encoder),
            on_step=curves.on_step,
            on_probe=curves.on_probe,
            progress=False,
            save_every=_SAVE_EVERY,
        )
    return _keep(teller.folder, request)


def _keep(folder: JobDirectory, request: Request) -> Path:
    """Give the finished checkpoint a name of its own, by which `sieve` finds it."""
    while True:
        out = default_checkpoint_out(request.name)
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.draft.rename(out)
        except OSError:
            if not out.exists():
                raise
            continue  # another writer was faster; the next name is free
        return out


if __name__ == "__main__":
    run_job(train_as_asked)
