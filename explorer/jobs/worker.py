"""What the process of every job does: `python -m MODULE FOLDER`.

It ends with the server that started it, or when a stop is asked for. Its progress is the only
thing that it tells.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from sieve.data_prep.bundled import locate_collection
from sieve.explorer.errors import one_line
from sieve.explorer.jobs.directory import (
    DONE,
    FAILED,
    MAX_FAULT,
    STOPPED,
    TRAINING,
    JobDirectory,
    Progress,
    Request,
)
from sieve.model.collection import Collection

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.25
_WRITE_EVERY = 0.5


class Stopped(BaseException):
    """The job is to stop; what is done stays done."""


class ProgressReporter:
    """Writes how far a job is, and raises `Stopped` where it is to stop."""

    def __init__(self, folder: JobDirectory) -> None:
        self.folder = folder
        before = folder.read()
        self.now = Progress(points=before.points, step=before.step, n_steps=before.n_steps)
        self.stop, self.ended = Event(), Event()
        self._written = 0.0
        folder.write(self.now)

    def tell(self, now: Progress) -> None:
        """Take how far it is; written now and then, and where the state changes."""
        clock = time.monotonic()
        due = clock - self._written > _WRITE_EVERY or now.state != self.now.state
        self.now = now
        if due:
            self.folder.write(now)
            self._written = clock
        if self.stop.is_set():
            raise Stopped

    def end(self, state: str, fault: str = "", made: str = "") -> None:
        """Write how it ended; from then on nothing can stop it."""
        self.ended.set()
        self.now = replace(
            self.now, state=state, fault=fault[:MAX_FAULT], made=made, seconds_left=None
        )
        if self.folder.path.is_dir():
            self.folder.write(self.now)


def run_job(work: Callable[[Request, Collection, ProgressReporter], Path]) -> None:
    """Do a job as its folder says, and write there how it ended.

    Parameters
    ----------
    work : callable
        Returns the path of what it made.
    """
    folder = JobDirectory(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    teller = ProgressReporter(folder)
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; we follow it
    Thread(target=_watch, args=(teller, os.getppid()), daemon=True).start()
    try:
        request, collection = _opened(folder)
        teller.end(DONE, made=str(work(request, collection, teller)))
    except Stopped:
        teller.end(STOPPED)
    except (ValueError, OSError) as error:
        teller.end(FAILED, fault=one_line(error))
    except Exception:
        log.exception("the job failed")
        teller.end(FAILED, fault=f"Sieve failed at this; {folder.log} says how")


def _opened(folder: JobDirectory) -> tuple[Request, Collection]:
    request = folder.request()
    if request is None:
        raise ValueError(f"{folder.path / 'request.json'} cannot be read; start anew")
    path = Path(request.collection)
    if not request.sha256:  # a bundled one, which is prepared now
        path = locate_collection(request.collection, device=request.device, progress=False)
    collection = Collection.open(path)
    if request.sha256 and collection.sha256 != request.sha256:
        raise ValueError(f"{collection.path} was prepared anew meanwhile; start anew")
    return request, collection


def _raise_stopped(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise Stopped


def _watch(teller: ProgressReporter, parent: int) -> None:
    """See to it that the job stops when it is to: a training after its step, all else at once."""
    while not (teller.folder.should_stop() or os.getppid() != parent):
        time.sleep(_LOOK_EVERY)
    teller.stop.set()
    if teller.now.state != TRAINING and not teller.ended.is_set():
        _thread.interrupt_main(signal.SIGTERM)
