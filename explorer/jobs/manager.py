"""Jobs of one kind and one collection: started, found, stopped and resumed.

The one place on this machine's `$SIEVE_HOME` where a job runs: two would fight for the cores.

The process of a job holds a lock from before it starts until it ends, however it ends: so a job
that is under way is known to every server and to none other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import IO, Any, ClassVar

from sieve.explorer.jobs.directory import (
    DONE,
    FAILED,
    STARTING,
    STOPPED,
    UNDER_WAY,
    JobDirectory,
    Progress,
    Request,
)
from sieve.model.collection import Collection
from sieve.model.files import sieve_home

try:
    import fcntl
except ImportError:  # Windows: only the jobs of this server are known to be under way
    fcntl = None

_PATIENCE = 60.0
"""Seconds that the lock is waited for where it is about to be free: who only looks holds it for a
moment, and a job that has told its end takes a moment to leave."""
_ARTICLES = {"training": "a training", "evaluation": "an evaluation"}


class JobLock:
    """Where one job runs at a time. Safe between threads.

    Attributes
    ----------
    home : Path
        Where the folders of all jobs are.
    process : subprocess.Popen or None
        The one that was started here last.
    one : Lock
        Held while a job is started, ended or forgotten.
    """

    def __init__(self) -> None:
        self.home = sieve_home() / "jobs"
        self.process: subprocess.Popen[bytes] | None = None
        self.one = Lock()

    def under_way(self) -> str:
        """Id of the job that is under way, of whatever kind; empty where none is."""
        own = self.process
        ended = own is None or own.poll() is not None
        if fcntl is None:
            return "" if ended else self._named()
        try:
            with (self.home / "lock").open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return ""
        except BlockingIOError:
            return self._named()
        return ""

    def locked(self) -> IO[bytes]:
        """Take the lock; closing the stream gives it back, unless a process has it too.

        Raises
        ------
        ValueError
            If a job is under way.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + _PATIENCE
        stream = (self.home / "lock").open("ab")
        while not self._try_lock(stream):
            if time.monotonic() > until or self._at_work():
                stream.close()
                raise ValueError(
                    f"{self.told()} is under way already, and one runs at a time; stop it or wait"
                )
            time.sleep(0.05)
        return stream

    def run(self, folder: JobDirectory, module: str, lock: IO[bytes]) -> None:
        """Start the process of a job; it takes the lock over."""
        lock.truncate(0)
        lock.write(folder.path.name.encode())
        lock.flush()
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        with folder.log.open("ab") as output:
            self.process = subprocess.Popen(
                # -P: a folder named explorer where the server was started is not ours.
                [sys.executable, "-P", "-m", module, str(folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": paths},
                pass_fds=() if fcntl is None else (lock.fileno(),),
            )

    def told(self) -> str:
        """Tell which job is under way, or was last."""
        request = JobDirectory(self.home / (self._named() or "-")).request()
        if request is None:
            return "a job"
        return f"{_ARTICLES.get(request.kind, 'a job')} of {request.name}"

    def _try_lock(self, stream: IO[bytes]) -> bool:
        if fcntl is None:
            return not self.under_way()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _at_work(self) -> bool:
        """Whether the job that has the lock has not told its end yet."""
        named = self.under_way()
        return bool(named) and JobDirectory(self.home / named).read().state in UNDER_WAY

    def _named(self) -> str:
        try:
            return (self.home / "lock").read_text(encoding="utf-8")
        except OSError:
            return ""


_KILLED = "its process was ended from outside; perhaps memory ran out"


class JobManager:
    """Starts, finds, stops and resumes jobs. Safe between threads.

    Parameters
    ----------
    collection : Collection
    device : str
        auto, cuda, mps or cpu.
    lane : JobLock, optional
        Where they run, shared with the jobs of other kinds.
    text_encoder : str
        What reads texts in place of the collection's backbone; a function was allowed to run.
    """

    kind: ClassVar[str]
    """In one word."""
    module: ClassVar[str]
    """What its process runs, with the folder as argument."""

    def __init__(
        self,
        collection: Collection,
        device: str = "auto",
        lane: JobLock | None = None,
        text_encoder: str = "",
    ) -> None:
        self.collection = collection
        self.device = device
        self.text_encoder = text_encoder
        self.lane = lane or JobLock()

    def latest(self) -> JobDirectory | None:
        """Find the newest job of this kind that is of this collection, or was asked for at it."""
        for path in sorted(self.lane.home.glob("*/request.json"), reverse=True):
            folder = JobDirectory(path.parent)
            request = folder.request()
            if request is None or request.kind != self.kind:
                continue
            if self.collection.sha256 in (request.sha256, request.asked_at):
                return folder
        return None

    def progress(self, folder: JobDirectory) -> Progress:
        """Tell how far a job is; one whose process is gone is stopped, or failed to start."""
        before = folder.read()
        if before.state not in UNDER_WAY or self.lane.under_way() == folder.path.name:
            return before
        now = folder.read()  # it may have ended between the two looks
        if now.state not in UNDER_WAY:
            return now
        if now.state == STARTING and not now.step:
            return replace(now, state=FAILED, fault=f"it did not begin: {folder.last_words()}")
        return replace(now, state=STOPPED, fault=_KILLED, seconds_left=None)

    def elsewhere(self, folder: JobDirectory | None) -> str:
        """Tell which job other than this one is under way; empty where none is."""
        named = self.lane.under_way()
        return self.lane.told() if named and (folder is None or named != folder.path.name) else ""

    def begin(self, settings: Mapping[str, Any]) -> JobDirectory:
        """Start a job.

        Raises
        ------
        ValueError
            If another one is under way, or this collection has not what it takes.
        """
        if reason := self.refusal():
            raise ValueError(reason)
        return self._run(self._request(self.collection, settings))

    def _request(self, collection: Collection, settings: Mapping[str, Any]) -> Request:
        path = os.path.abspath(collection.path)
        about = (self.kind, path, collection.name, collection.sha256, self.device)
        own = collection.sha256 == self.collection.sha256
        return Request(
            *about,
            settings,
            asked_at=self.collection.sha256,
            text_encoder=self.text_encoder if own else "",
        )

    def _run(self, request: Request) -> JobDirectory:
        with self.lane.one, self.lane.locked() as lock:
            folder = JobDirectory.create(self.lane.home, request)
            self.lane.run(folder, self.module, lock)
        return folder

    def resume(self) -> None:
        """Let the newest job go on where it stopped.

        Raises
        ------
        ValueError
            If there is none that can go on, or another one is under way.
        """
        folder = self._needed()
        with self.lane.one, self.lane.locked() as lock:
            if self.progress(folder).state == DONE:
                raise ValueError(f"this {self.kind} is done; start another one")
            folder.forget_stop()
            folder.write(replace(folder.read(), state=STARTING, fault=""))
            self.lane.run(folder, self.module, lock)

    def stop(self) -> None:
        """Ask the job of this collection to stop; ValueError where none is under way."""
        folder = self._needed()
        if self.lane.under_way() != folder.path.name:
            raise ValueError(f"no {self.kind} of this collection is under way")
        folder.ask_to_stop()

    def discard(self) -> None:
        """Forget the newest job and what it has done so far; what it finished stays."""
        folder = self._needed()
        with self.lane.one, self.lane.locked():
            shutil.rmtree(folder.path, ignore_errors=True)

    def refusal(self) -> str:
        """Tell why there can be no such job of this collection; empty where there can."""
        raise NotImplementedError

    def _needed(self) -> JobDirectory:
        folder = self.latest()
        if folder is None:
            raise ValueError(f"there is no {self.kind} of this collection; start one")
        return folder
