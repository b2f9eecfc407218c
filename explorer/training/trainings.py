"""Trainings of one collection: one at a time on this machine's `$SIEVE_HOME`.

The process that trains holds a lock from before it starts until it ends, however it ends: so a
training that is under way is known to every server and to none other.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import IO

from explorer.training.folder import (
    DONE,
    FAILED,
    STARTING,
    STOPPED,
    UNDER_WAY,
    Progress,
    Request,
    TrainingFolder,
)
from explorer.training.settings import TrainingSettings
from model.collection import Collection
from model.home import sieve_home

try:
    import fcntl
except ImportError:  # Windows: only the trainings of this server are known to be under way
    fcntl = None

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that the lock is waited for where it is about to be free: who only looks holds it for a
moment, and a training that has told its end takes a moment to leave."""
_KILLED = "its process was ended from outside; perhaps memory ran out"


class Trainings:
    """Starts, finds, stops and resumes the trainings of one collection. Safe between threads.

    Parameters
    ----------
    collection : Collection
    device : str
        auto, cuda, mps or cpu.

    Attributes
    ----------
    home : Path
        Where the folders of all trainings are.
    process : subprocess.Popen or None
        The one that was started here last.
    """

    def __init__(self, collection: Collection, device: str = "auto") -> None:
        self.collection = collection
        self._device = device
        self.home = sieve_home() / "trainings"
        self.process: subprocess.Popen[bytes] | None = None
        self._one = Lock()

    def latest(self) -> TrainingFolder | None:
        """Find the newest training of this collection."""
        for path in sorted(self.home.glob("*/request.json"), reverse=True):
            folder = TrainingFolder(path.parent)
            request = folder.request()
            if request and request.sha256 == self.collection.sha256:
                return folder
        return None

    def progress(self, folder: TrainingFolder) -> Progress:
        """Tell how far a training is; one whose process is gone is stopped, or failed to start."""
        before = folder.read()
        if before.state not in UNDER_WAY or self.under_way() == folder.path.name:
            return before
        now = folder.read()  # it may have ended between the two looks
        if now.state not in UNDER_WAY:
            return now
        if now.state == STARTING and not now.step:
            return replace(now, state=FAILED, fault=f"it did not begin: {folder.last_words()}")
        return replace(now, state=STOPPED, fault=_KILLED, seconds_left=None)

    def under_way(self) -> str:
        """Id of the training that is under way, of whatever collection; empty where none is."""
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

    def start(self, settings: TrainingSettings) -> TrainingFolder:
        """Start a training.

        Raises
        ------
        ValueError
            If another one is under way, or there is nothing to train on.
        """
        if reason := self.refusal():
            raise ValueError(reason)
        path = os.path.abspath(self.collection.path)
        name, sha256 = self.collection.name, self.collection.sha256
        request = Request(path, name, sha256, self._device, settings)
        with self._one, self._locked() as lock:
            folder = TrainingFolder.create(self.home, request)
            self._run(folder, lock)
        return folder

    def resume(self) -> None:
        """Let the newest training go on where it stopped.

        Raises
        ------
        ValueError
            If there is none that can go on, or another one is under way.
        """
        folder = self._needed()
        with self._one, self._locked() as lock:
            if self.progress(folder).state == DONE:
                raise ValueError("this training is done; start another one")
            folder.forget_stop()
            folder.write(replace(folder.read(), state=STARTING, fault=""))
            self._run(folder, lock)

    def stop(self) -> None:
        """Ask the training of this collection to stop; ValueError where none is under way."""
        folder = self._needed()
        if self.under_way() != folder.path.name:
            raise ValueError("no training of this collection is under way")
        folder.ask_to_stop()

    def discard(self) -> None:
        """Forget the newest training and what it has learned; a finished checkpoint stays."""
        folder = self._needed()
        with self._one, self._locked():
            shutil.rmtree(folder.path, ignore_errors=True)

    def refusal(self) -> str:
        """Tell why this collection cannot be trained on; empty where it can."""
        try:
            self.collection.backbone  # noqa: B018  # codes from elsewhere have none
            rows = self.collection.rows_of_split(["train"])
            if len(self.collection.captions_of_rows(rows)):
                return ""
        except ValueError as error:
            return str(error)
        return (
            "training needs images with captions, and the train split of this collection has "
            "none; prepare it with a caption file"
        )

    def _needed(self) -> TrainingFolder:
        folder = self.latest()
        if folder is None:
            raise ValueError("there is no training of this collection; start one")
        return folder

    def _run(self, folder: TrainingFolder, lock: IO[bytes]) -> None:
        """Start the process; it takes the lock over."""
        lock.truncate(0)
        lock.write(folder.path.name.encode())
        lock.flush()
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        with folder.log.open("ab") as output:
            self.process = subprocess.Popen(
                # -P: a folder named explorer where the server was started is not ours.
                [sys.executable, "-P", "-m", "explorer.training.child", str(folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": paths},
                pass_fds=() if fcntl is None else (lock.fileno(),),
            )

    def _locked(self) -> IO[bytes]:
        """Take the lock; closing the stream gives it back, unless a process has it too."""
        self.home.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + _PATIENCE
        stream = (self.home / "lock").open("ab")
        while not self._try_lock(stream):
            if time.monotonic() > until or self._at_work():
                stream.close()
                raise ValueError(self._busy())
            time.sleep(0.05)
        return stream

    def _try_lock(self, stream: IO[bytes]) -> bool:
        if fcntl is None:
            return not self.under_way()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _at_work(self) -> bool:
        """Whether the training that has the lock has not told its end yet."""
        named = self.under_way()
        return bool(named) and TrainingFolder(self.home / named).read().state in UNDER_WAY

    def _named(self) -> str:
        try:
            return (self.home / "lock").read_text(encoding="utf-8")
        except OSError:
            return ""

    def _busy(self) -> str:
        request = TrainingFolder(self.home / (self._named() or "-")).request()
        of = f" of {request.name}" if request else ""
        return f"a training{of} is under way already, and one runs at a time; stop it or wait"
