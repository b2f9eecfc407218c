"""The one place on this machine's `$SIEVE_HOME` where a job runs: two would fight for the cores.

The process of a job holds a lock from before it starts until it ends, however it ends: so a job
that is under way is known to every server and to none other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock
from typing import IO

from sieve.explorer.jobs.folder import UNDER_WAY, JobFolder
from sieve.model.home import sieve_home

try:
    import fcntl
except ImportError:  # Windows: only the jobs of this server are known to be under way
    fcntl = None

_PATIENCE = 60.0
"""Seconds that the lock is waited for where it is about to be free: who only looks holds it for a
moment, and a job that has told its end takes a moment to leave."""
_ARTICLES = {"training": "a training", "evaluation": "an evaluation"}


class Lane:
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

    def run(self, folder: JobFolder, module: str, lock: IO[bytes]) -> None:
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
        request = JobFolder(self.home / (self._named() or "-")).request()
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
        return bool(named) and JobFolder(self.home / named).read().state in UNDER_WAY

    def _named(self) -> str:
        try:
            return (self.home / "lock").read_text(encoding="utf-8")
        except OSError:
            return ""
