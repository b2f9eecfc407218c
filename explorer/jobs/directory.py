"""The directory of one job: its request, settings, progress and log.

$SIEVE_HOME/jobs/ID/request.json     kind, collection, device, settings
$SIEVE_HOME/jobs/ID/progress.jsonl   points of the curves; the last line holds the current state
$SIEVE_HOME/jobs/ID/stop             exists while a stop is requested
$SIEVE_HOME/jobs/ID/log              output of the worker process
$SIEVE_HOME/jobs/ID/checkpoint       the checkpoint that is being trained

The progress file is replaced atomically, so a reader never sees a partial line.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sieve.explorer.errors import one_line
from sieve.explorer.json_validation import Whole, check_choice, read_object, validate
from sieve.model.files import Line, atomic_file, fault_in
from sieve.model.hyperparameters import PRESETS, TrainingConfig

_EXACT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_SHOWN = 300
MAX_FAULT = 2000
"""Maximum length of `Progress.fault`, in characters."""
MAX_M = 16_384
MAX_EPOCHS = 1000
MAX_WEIGHT = 1000
Weight = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_WEIGHT)]


class JobState(StrEnum):
    """State of a job; NONE if there is no job."""

    NONE = "none"
    STARTING = "starting"
    TRAINING = "training"
    MEASURING = "measuring"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"

    @property
    def is_active(self) -> bool:
        """Whether the job has not ended, as far as its worker has written."""
        return self in (JobState.STARTING, JobState.TRAINING, JobState.MEASURING)


@dataclass(frozen=True)
class JobRequest:
    """The parameters of a job, as stored in `request.json`."""

    __pydantic_config__ = _EXACT

    kind: str
    """training or evaluation"""
    collection: str
    """Absolute path, or the name of a bundled collection that is prepared first."""
    name: str
    """Name of the collection."""
    sha256: str
    """SHA-256 of the collection; empty if it is prepared first."""
    device: str
    settings: Mapping[str, Any]
    """Unvalidated; the worker validates them."""
    requested_by_sha256: str = ""
    """SHA-256 of the collection whose page requested the job."""
    text_encoder: str = ""
    """Text encoder to use instead of the collection's backbone."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingSettings:
    """Settings of a training: a preset with changed hyperparameters."""

    preset: str = "compact"
    m: Annotated[Whole, Field(ge=1, le=MAX_M)] = PRESETS["compact"].m
    """Number of dimensions of a code."""
    k: Annotated[Whole, Field(ge=1)] = PRESETS["compact"].k
    """Maximum number of active dimensions."""
    epochs: Annotated[Whole, Field(ge=0, le=MAX_EPOCHS)] = 0
    """Passes over all captions; 0 chooses a number by the size of the collection."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """Loss weights by the names of `TrainingConfig`; missing ones are taken from the preset."""

    def __post_init__(self) -> None:
        known = PRESETS[check_choice("preset", self.preset, tuple(PRESETS))].weights()
        if self.k > self.m:
            raise ValueError(f"k must be at most m = {self.m}; got {self.k}")
        for name in self.weights:
            check_choice(f"a loss of {self.preset}", name, tuple(known))
        # Reviving dead dimensions alone is no training objective.
        if not any((known | self.weights)[name] for name in known if name != "revive"):
            raise ValueError("at least one loss needs a weight above 0")

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Validate the JSON of a request; missing fields are taken from the preset.

        Raises a ValueError that names the field if one is unknown or has an invalid value.
        """
        given = read_object(payload, "training settings")
        preset = PRESETS[check_choice("preset", given.get("preset", "compact"), tuple(PRESETS))]
        numbers = {"m": preset.m, "k": preset.k, "epochs": preset.epochs}
        return validate(cls, {**numbers, **given}, "training settings")

    def config(self) -> TrainingConfig:
        """Return the complete training configuration."""
        numbers = {"m": self.m, "k": self.k, "epochs": self.epochs}
        return replace(PRESETS[self.preset], **numbers, **self.weights)


@dataclass(frozen=True)
class Progress:
    """The state and progress of a job."""

    __pydantic_config__ = _EXACT

    state: JobState = JobState.STARTING
    step: int = 0
    n_steps: int = 0
    """0 until it is known."""
    doing: Line = ""
    """Description of the current step of an evaluation."""
    seconds_left: float | None = None
    """Estimated from the rate of the steps so far."""
    live: float | None = None
    """Training only: share of the dimensions that fired recently."""
    losses: dict[str, float] = field(default_factory=dict)
    """Training only: the unweighted terms and their weighted `total`."""
    points: tuple[dict[str, float], ...] = ()
    """Training only: points of the curves, each with its `step` and the values measured there."""
    fault: Line = ""
    """Why the job failed or ended, in one line."""
    made: str = ""
    """Path of the resulting checkpoint or evaluation."""


_REQUEST, _PROGRESS = TypeAdapter(JobRequest), TypeAdapter(Progress)


class JobDirectory:
    """Read and write the files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        """The checkpoint that is being trained, until it gets its final name."""
        self.log = path / "log"
        self._stop_file = path / "stop"
        self._progress_file = path / "progress.jsonl"

    @classmethod
    def create(cls, parent: Path, request: JobRequest) -> JobDirectory:
        """Create the directory of a new job; directory names sort by time."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        folder = cls(parent / f"{stamp}-{secrets.token_hex(3)}")
        folder.path.mkdir(parents=True)
        _replace(folder.path / "request.json", json.dumps(asdict(request)))
        folder.write(Progress())
        return folder

    def request(self) -> JobRequest | None:
        """Read the request; None if it is missing or invalid."""
        try:
            return _REQUEST.validate_json((self.path / "request.json").read_bytes())
        except (OSError, ValueError):
            return None

    def write(self, progress: Progress) -> None:
        """Replace the progress."""
        last = asdict(progress)
        lines = [*last.pop("points"), last]
        _replace(self._progress_file, "".join(f"{json.dumps(line)}\n" for line in lines))

    def read(self) -> Progress:
        """Read the progress; a missing or damaged file counts as a failed job."""
        try:
            lines = self._progress_file.read_text(encoding="utf-8").splitlines()
            *points, last = map(json.loads, lines)
            return _PROGRESS.validate_json(json.dumps({**last, "points": points}))
        except ValidationError as error:
            reason = fault_in(error)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            reason = one_line(error)
        fault = f"{self._progress_file} cannot be read ({reason[:_SHOWN]})"
        return Progress(JobState.FAILED, fault=fault)

    def last_log_line(self) -> str:
        """Return the last line of the log, or a general explanation if the log is empty."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        written = [line.strip() for line in lines if line.strip()]
        return written[-1][:_SHOWN] if written else "its process was ended from outside"

    def request_stop(self) -> None:
        """Ask the worker process to stop."""
        self._stop_file.touch()

    def cancel_stop(self) -> None:
        """Withdraw a request to stop."""
        self._stop_file.unlink(missing_ok=True)

    def should_stop(self) -> bool:
        """Return whether a stop was requested or the directory was deleted."""
        return self._stop_file.exists() or not self.path.is_dir()


def _replace(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
