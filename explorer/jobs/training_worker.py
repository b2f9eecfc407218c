"""The process of one training: `python -m sieve.explorer.jobs.training_worker FOLDER`.

Whatever ends it leaves a state from which it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sieve.explorer.jobs.directory import MEASURING, TRAINING, JobDirectory, Progress, Request
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
    """A preset, and what is changed of it."""

    preset: str = "compact"
    m: int = PRESETS["compact"].m
    """Dimensions of a code."""
    k: int = PRESETS["compact"].k
    """At most this many are active."""
    epochs: int = 0
    """Passes over all captions; 0: as many as the size of the collection asks for."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of losses, by the names of `TrainingConfig`; those left out are the preset's."""

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(PRESETS))
        check_number("m, the dimensions of a code,", self.m, 1, MAX_M)
        check_number("k, the active dimensions,", self.k, 1, self.m, "(m)")
        check_number("epochs", self.epochs, 0, MAX_EPOCHS)
        known = PRESETS[self.preset].weights()
        for name, weight in self.weights.items():
            check_number(f"the weight of {name}", weight, 0, MAX_WEIGHT)
        # Reviving dead dimensions is a care, no aim: with nothing else there is nothing to learn.
        aims = {name: self.weights.get(name, known[name]) for name in known if name != "revive"}
        if not any(aims.values()):
            raise ValueError("at least one loss needs a weight above 0")

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Read what a browser or a file says; what is missing is the preset's.

        Raises
        ------
        ValueError
            In one line that names the field.
        """
        given = read_object(payload, "a training's settings")
        refuse_unknown(given, _FIELDS, "a training's settings")
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
        """Make the whole configuration."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return replace(PRESETS[self.preset], **numbers, **self.weights)


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
