"""The folder of one job: what was asked for, and how far it is.

$SIEVE_HOME/jobs/ID/request.json     kind, collection, device, settings
$SIEVE_HOME/jobs/ID/progress.jsonl   points of the curves; the last line says how it stands
$SIEVE_HOME/jobs/ID/stop             there while a stop is asked for
$SIEVE_HOME/jobs/ID/log              what the process wrote

The progress is replaced as a whole, so that who reads it never finds half a line.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sieve.model.files import whole_file
from sieve.model.schemas import Line, fault_in

STARTING, TRAINING, MEASURING = "starting", "training", "measuring"
STOPPED, FAILED, DONE = "stopped", "failed", "done"
UNDER_WAY = (STARTING, TRAINING, MEASURING)
_STATES = (*UNDER_WAY, STOPPED, FAILED, DONE)
_EXACT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_SHOWN = 300
MAX_FAULT = 2000
"""Characters of a fault that are kept."""


@dataclass(frozen=True)
class Request:
    """What a job is of."""

    __pydantic_config__ = _EXACT

    kind: str
    """training or evaluation"""
    collection: str
    """Absolute path; the word of a bundled one that is prepared first."""
    name: str
    """The collection's."""
    sha256: str
    """Of the collection; empty where it is prepared first."""
    device: str
    settings: Mapping[str, Any]
    """As they were asked for; what does the job reads them with care."""
    asked_at: str = ""
    """SHA-256 of the collection whose page asked, where that is another one."""
    text_encoder: str = ""
    """Text encoder to use in place of the collection's backbone."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    __pydantic_config__ = _EXACT

    state: str = STARTING
    step: int = 0
    n_steps: int = 0
    """0 until it is known."""
    doing: Line = ""
    """What the step under way is, where steps differ."""
    seconds_left: float | None = None
    """Of the steps, from their rate so far."""
    live: float | None = None
    """Of a training: share of the dimensions that fired lately."""
    losses: dict[str, float] = field(default_factory=dict)
    """Of a training: unweighted terms and their weighted `total`."""
    points: tuple[dict[str, float], ...] = ()
    """Of a training's curves: `step`, and what was measured there."""
    fault: Line = ""
    """Why it failed or ended, in one line."""
    made: str = ""
    """Path of what it made."""


_REQUEST, _PROGRESS = TypeAdapter(Request), TypeAdapter(Progress)


class JobDirectory:
    """One job's folder.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.draft = path / "checkpoint"
        """A checkpoint while it is made."""
        self.log = path / "log"
        self._stop = path / "stop"
        self._progress = path / "progress.jsonl"

    @classmethod
    def create(cls, parent: Path, request: Request) -> JobDirectory:
        """Make the folder of a new job; names sort by time."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        folder = cls(parent / f"{stamp}-{secrets.token_hex(3)}")
        folder.path.mkdir(parents=True)
        _replace(folder.path / "request.json", json.dumps(asdict(request)))
        folder.write(Progress())
        return folder

    def request(self) -> Request | None:
        """Read what was asked for; None if that cannot be read."""
        try:
            return _REQUEST.validate_json((self.path / "request.json").read_bytes())
        except (OSError, ValueError):
            return None

    def write(self, progress: Progress) -> None:
        """Replace the progress."""
        last = asdict(progress)
        lines = [*last.pop("points"), last]
        _replace(self._progress, "".join(f"{json.dumps(line)}\n" for line in lines))

    def read(self) -> Progress:
        """Read the progress; a missing or damaged file is a job that failed."""
        try:
            lines = self._progress.read_text(encoding="utf-8").splitlines()
            *points, last = (_object(line) for line in lines)
            progress = _PROGRESS.validate_json(json.dumps({**last, "points": points}))
            if progress.state not in _STATES:
                raise ValueError(f"there is no state {progress.state[:40]!r}")
            return progress
        except ValidationError as error:
            reason = fault_in(error)
        except (OSError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
        return Progress(FAILED, fault=f"{self._progress} cannot be read ({reason[:_SHOWN]})")

    def last_words(self) -> str:
        """Read the last line that its process wrote, if it wrote any."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:_SHOWN] if said else "its process was ended from outside"

    def ask_to_stop(self) -> None:
        """Let its process know that it should stop."""
        self._stop.touch()

    def forget_stop(self) -> None:
        """Take the wish to stop back."""
        self._stop.unlink(missing_ok=True)

    def should_stop(self) -> bool:
        """Whether a stop was asked for, or the folder is gone."""
        return self._stop.exists() or not self.path.is_dir()


def _object(line: str) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"a line is no object: {line[:40]}")
    return value


def _replace(path: Path, text: str) -> None:
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
