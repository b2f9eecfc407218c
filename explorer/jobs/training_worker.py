"""Worker process of a training: `python -m sieve.explorer.jobs.training_worker DIR`.

The training state is saved regularly, so a stopped or killed training can be resumed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sieve.explorer.jobs.directory import MEASURING, TRAINING, JobDirectory, JobRequest, Progress
from sieve.explorer.jobs.worker import ProgressReporter, run_job
from sieve.explorer.json_validation import (
    check_choice,
    check_number,
    read_number,
    read_object,
    read_whole,
    refuse_unknown,
)
from sieve.model.checkpoint import default_checkpoint_out
from sieve.model.collection import Collection
from sieve.model.training import PRESETS, TrainingConfig, train
from sieve.model.training.trainer import StepReport
from sieve.model.training.validation import ValidationReport

MAX_M = 16_384
MAX_EPOCHS = 1000
MAX_WEIGHT = 1000
_NUMBERS = ("m", "k", "epochs")
_FIELDS = {"preset", "weights", *_NUMBERS}


@dataclass(frozen=True)
class TrainingSettings:
    """A preset with changed hyperparameters."""

    preset: str = "compact"
    m: int = PRESETS["compact"].m
    """Number of dimensions of a code."""
    k: int = PRESETS["compact"].k
    """Maximum number of active dimensions."""
    epochs: int = 0
    """Passes over all captions; 0 chooses a number by the size of the collection."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Loss weights by the names of `TrainingConfig`; missing ones are taken from the preset."""

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(PRESETS))
        check_number("m, the dimensions of a code,", self.m, 1, MAX_M)
        check_number("k, the active dimensions,", self.k, 1, self.m, "(m)")
        check_number("epochs", self.epochs, 0, MAX_EPOCHS)
        known = PRESETS[self.preset].weights()
        for name, weight in self.weights.items():
            check_number(f"the weight of {name}", weight, 0, MAX_WEIGHT)
        # Reviving dead dimensions alone is no training objective.
        aims = {name: self.weights.get(name, known[name]) for name in known if name != "revive"}
        if not any(aims.values()):
            raise ValueError("at least one loss needs a weight above 0")

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Validate the JSON of a request; missing fields are taken from the preset.

        Raises
        ------
        ValueError
            If a field is unknown or has an invalid value; the message names the field.
        """
        given = read_object(payload, "training settings")
        refuse_unknown(given, _FIELDS, "training settings")
        name = check_choice("preset", given.get("preset", "compact"), tuple(PRESETS))
        preset = PRESETS[name]
        numbers = {
            field: read_whole(field, given.get(field, getattr(preset, field))) for field in _NUMBERS
        }
        weights = read_object(given.get("weights", {}), "weights")
        refuse_unknown(weights, set(preset.weights()), f"the losses of {name}")
        read = {loss: read_number(f"the weight of {loss}", weights[loss]) for loss in weights}
        return cls(name, weights=read, **numbers)

    def config(self) -> TrainingConfig:
        """Return the complete training configuration."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return replace(PRESETS[self.preset], **numbers, **self.weights)


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
                state=TRAINING if report.step < report.n_steps else MEASURING,
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
    settings = TrainingSettings.from_payload(request.settings)
    curves = CurveRecorder(reporter)
    if not reporter.folder.checkpoint.exists():
        train(
            collection,
            reporter.folder.checkpoint,
            settings.config(),
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


if __name__ == "__main__":
    run_job(run_training)
