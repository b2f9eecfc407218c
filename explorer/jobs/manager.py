"""Start, find, stop and resume jobs; one job runs at a time for each `$SIEVE_HOME`.

The worker process of a job holds a file lock from before it starts until it ends, however it ends.
Every server on this machine can therefore see whether a job is running, and which. Each job has a
directory:

$SIEVE_HOME/jobs/ID/request.json     kind, collection, device, settings
$SIEVE_HOME/jobs/ID/progress.jsonl   points of the curves; the last line holds the current state
$SIEVE_HOME/jobs/ID/stop             exists while a stop is requested
$SIEVE_HOME/jobs/ID/log              output of the worker process
$SIEVE_HOME/jobs/ID/checkpoint       the checkpoint that is being trained

The progress file is replaced atomically, so a reader never sees a partial line.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import IO, Any, ClassVar, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sieve.explorer.errors import one_line
from sieve.explorer.json_validation import check_choice, read_object, short_repr, validate
from sieve.model.collection import Collection
from sieve.model.files import Line, atomic_file, fault_in, sieve_home
from sieve.model.hyperparameters import OPTIONS, PRESETS, TrainingConfig, configure

try:
    import fcntl
except ImportError:  # Windows: only jobs of this server are seen as running
    fcntl = None

_LOCK_TIMEOUT = 60.0
"""Time in seconds to wait for a lock that is about to be released: `running_job` holds it for a
moment, and a worker that has written its final state takes a moment to exit."""
_KILLED = "its process was ended from outside; perhaps memory ran out"
_ARTICLES = {"training": "a training", "evaluation": "an evaluation"}
_EXACT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_SHOWN = 300
MAX_FAULT = 2000
"""Maximum length of `Progress.fault`, in characters."""
MAX_HYPERPARAMETER = 16_384
"""Maximum value of a hyperparameter set on the page; a mistyped one could exhaust the memory."""


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


class TrainingSettings(NamedTuple):
    """Settings of a training: a preset with changed hyperparameters."""

    preset: str
    config: TrainingConfig

    @classmethod
    def from_payload(cls, payload: Any) -> TrainingSettings:
        """Validate the JSON of a request; missing hyperparameters keep the preset's values.

        Raises a ValueError that names the field if one is unknown or has an invalid value.
        """
        given = dict(read_object(payload, "training settings"))
        preset = check_choice("preset", given.pop("preset", "compact"), tuple(PRESETS))
        for name in given:
            if name not in OPTIONS:
                raise ValueError(f"there is no training setting {short_repr(name)}")
        values = asdict(PRESETS[preset]) | given
        config = validate(TrainingConfig, values, "training settings")
        changes = {name: getattr(config, name) for name in given}
        for name, value in changes.items():
            if not isinstance(value, str) and value > MAX_HYPERPARAMETER:
                limit = f"{MAX_HYPERPARAMETER:,}"
                raise ValueError(f"{name} must be at most {limit}; got {short_repr(value)}")
        return cls(preset, configure(preset, changes))

    def as_json(self) -> dict[str, Any]:
        """Return the payload of these settings, with all options."""
        return {"preset": self.preset, **{name: getattr(self.config, name) for name in OPTIONS}}


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


class JobLock:
    """Lock that lets one job run at a time. Thread-safe."""

    def __init__(self) -> None:
        self.home = sieve_home() / "jobs"
        """Parent of all job directories."""
        self.process: subprocess.Popen[bytes] | None = None
        """The last worker process that was started by this object."""
        self.mutex = Lock()
        """Held while a job is started, resumed or discarded."""

    def running_job(self) -> str:
        """Return the id of the running job of any kind; empty if no job is running."""
        own = self.process
        ended = own is None or own.poll() is not None
        if fcntl is None:
            return "" if ended else self._last_job()
        try:
            with (self.home / "lock").open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return ""
        except BlockingIOError:
            return self._last_job()
        return ""

    def acquire(self) -> IO[bytes]:
        """Acquire the lock; closing the stream releases it, unless a worker holds it too.

        Raises a ValueError if a job is running.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _LOCK_TIMEOUT
        stream = (self.home / "lock").open("ab")
        while not self._try_lock(stream):
            job = self.running_job()
            is_working = bool(job) and JobDirectory(self.home / job).read().state.is_active
            if time.monotonic() > deadline or is_working:
                stream.close()
                raise ValueError(f"{self.describe_job()} is already running; stop it or wait")
            time.sleep(0.05)
        return stream

    def run(self, folder: JobDirectory, lock: IO[bytes]) -> None:
        """Start the worker process of a job; it inherits the lock."""
        lock.truncate(0)
        lock.write(folder.path.name.encode())
        lock.flush()
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        with folder.log.open("ab") as output:
            self.process = subprocess.Popen(
                # -P: do not import packages from the working directory of the server.
                [sys.executable, "-P", "-m", "sieve.explorer.jobs.worker", str(folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": paths},
                pass_fds=() if fcntl is None else (lock.fileno(),),
            )

    def describe_job(self) -> str:
        """Describe the running job, or else the last one, as "a training of NAME"."""
        request = JobDirectory(self.home / (self._last_job() or "-")).request()
        if request is None:
            return "a job"
        return f"{_ARTICLES.get(request.kind, 'a job')} of {request.name}"

    def _try_lock(self, stream: IO[bytes]) -> bool:
        if fcntl is None:
            return not self.running_job()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _last_job(self) -> str:
        try:
            return (self.home / "lock").read_text(encoding="utf-8")
        except OSError:
            return ""


@dataclass(eq=False)
class JobManager:
    """Start, find, stop and resume jobs of one kind for one collection. Thread-safe.

    The job lock is shared by managers of other kinds, so that one job runs at a time. The text
    encoder, if any, replaces the collection's backbone.
    """

    kind: ClassVar[str]
    """training or evaluation"""

    collection: Collection
    device: str = "auto"
    job_lock: JobLock = field(default_factory=JobLock)
    text_encoder: str = ""

    def latest(self) -> JobDirectory | None:
        """Return the newest job of this kind on this collection or requested from its page."""
        for path in sorted(self.job_lock.home.glob("*/request.json"), reverse=True):
            folder = JobDirectory(path.parent)
            request = folder.request()
            if request is None or request.kind != self.kind:
                continue
            if self.collection.sha256 in (request.sha256, request.requested_by_sha256):
                return folder
        return None

    def progress(self, folder: JobDirectory) -> Progress:
        """Return the progress of a job; one whose process is gone is stopped or failed."""
        progress = folder.read()
        if not progress.state.is_active or self.job_lock.running_job() == folder.path.name:
            return progress
        progress = folder.read()  # the job may have ended before the lock was checked
        if not progress.state.is_active:
            return progress
        if progress.state == JobState.STARTING and not progress.step:
            fault = f"it did not start: {folder.last_log_line()}"
            return replace(progress, state=JobState.FAILED, fault=fault)
        return replace(progress, state=JobState.STOPPED, fault=_KILLED, seconds_left=None)

    def other_job(self, folder: JobDirectory | None) -> str:
        """Describe the running job if it is not this one; empty if no other job is running."""
        job = self.job_lock.running_job()
        if not job or (folder is not None and job == folder.path.name):
            return ""
        return self.job_lock.describe_job()

    def begin(self, settings: Mapping[str, Any]) -> JobDirectory:
        """Start a job.

        Raises a ValueError if another job is running, or this collection is not suitable.
        """
        if reason := self.refusal():
            raise ValueError(reason)
        return self._run(self._request(self.collection, settings))

    def _request(self, collection: Collection, settings: Mapping[str, Any]) -> JobRequest:
        is_own = collection.sha256 == self.collection.sha256
        return JobRequest(
            kind=self.kind,
            collection=os.path.abspath(collection.path),
            name=collection.name,
            sha256=collection.sha256,
            device=self.device,
            settings=settings,
            requested_by_sha256=self.collection.sha256,
            text_encoder=self.text_encoder if is_own else "",
        )

    def _run(self, request: JobRequest) -> JobDirectory:
        with self.job_lock.mutex, self.job_lock.acquire() as lock:
            folder = JobDirectory.create(self.job_lock.home, request)
            self.job_lock.run(folder, lock)
        return folder

    def resume(self) -> None:
        """Resume the newest job where it stopped.

        Raises a ValueError if there is no unfinished job, or another job is running.
        """
        folder = self._require_latest()
        with self.job_lock.mutex, self.job_lock.acquire() as lock:
            if self.progress(folder).state == JobState.DONE:
                raise ValueError(f"this {self.kind} is complete; start another one")
            folder.cancel_stop()
            folder.write(replace(folder.read(), state=JobState.STARTING, fault=""))
            self.job_lock.run(folder, lock)

    def stop(self) -> None:
        """Ask the job of this collection to stop; ValueError if none is running."""
        folder = self._require_latest()
        if self.job_lock.running_job() != folder.path.name:
            raise ValueError(f"no {self.kind} of this collection is running")
        folder.request_stop()

    def discard(self) -> None:
        """Delete the newest job with its partial results; finished checkpoints stay."""
        folder = self._require_latest()
        with self.job_lock.mutex, self.job_lock.acquire():
            shutil.rmtree(folder.path, ignore_errors=True)

    def refusal(self) -> str:
        """Return why no such job can run on this collection; empty if it can."""
        raise NotImplementedError

    def _require_latest(self) -> JobDirectory:
        folder = self.latest()
        if folder is None:
            raise ValueError(f"there is no {self.kind} of this collection; start one")
        return folder
