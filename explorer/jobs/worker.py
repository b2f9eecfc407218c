"""Shared code of the worker processes: `python -m MODULE JOB_DIRECTORY`.

A worker ends when the server that started it ends, or when a stop is requested. It communicates
only through the progress file of its job directory.
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
    JobRequest,
    Progress,
)
from sieve.model.collection import Collection

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_WRITE_EVERY = 0.5  # seconds


class Stopped(BaseException):
    """Raised inside a worker when its job has to stop; finished work is not undone."""


class ProgressReporter:
    """Write the progress of a job, and raise `Stopped` once a stop is requested."""

    def __init__(self, folder: JobDirectory) -> None:
        self.folder = folder
        before = folder.read()
        self.progress = Progress(points=before.points, step=before.step, n_steps=before.n_steps)
        self.stop, self.ended = Event(), Event()
        self._written_at = 0.0
        folder.write(self.progress)

    def report(self, progress: Progress) -> None:
        """Record progress; written at most every half second, and when the state changes."""
        now = time.monotonic()
        due = now - self._written_at > _WRITE_EVERY or progress.state != self.progress.state
        self.progress = progress
        if due:
            self.folder.write(progress)
            self._written_at = now
        if self.stop.is_set():
            raise Stopped

    def end(self, state: str, fault: str = "", made: str = "") -> None:
        """Write the final state; from then on the job cannot be stopped."""
        self.ended.set()
        self.progress = replace(
            self.progress, state=state, fault=fault[:MAX_FAULT], made=made, seconds_left=None
        )
        if self.folder.path.is_dir():
            self.folder.write(self.progress)


def run_job(work: Callable[[JobRequest, Collection, ProgressReporter], Path]) -> None:
    """Run the job whose directory is given on the command line, and write its final state.

    Parameters
    ----------
    work : callable
        Does the job and returns the path of its result.
    """
    folder = JobDirectory(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    reporter = ProgressReporter(folder)
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; we follow it
    Thread(target=_watch, args=(reporter, os.getppid()), daemon=True).start()
    try:
        request, collection = _open_job(folder)
        reporter.end(DONE, made=str(work(request, collection, reporter)))
    except Stopped:
        reporter.end(STOPPED)
    except (ValueError, OSError) as error:
        reporter.end(FAILED, fault=one_line(error))
    except Exception:
        log.exception("the job failed")
        reporter.end(FAILED, fault=f"An internal error occurred; see {folder.log}")


def _open_job(folder: JobDirectory) -> tuple[JobRequest, Collection]:
    request = folder.request()
    if request is None:
        raise ValueError(f"{folder.path / 'request.json'} cannot be read; start a new job")
    path = Path(request.collection)
    if not request.sha256:  # a bundled collection that is not prepared yet
        path = locate_collection(request.collection, device=request.device, progress=False)
    collection = Collection.open(path)
    if request.sha256 and collection.sha256 != request.sha256:
        raise ValueError(
            f"{collection.path} has changed since the job was requested; start a new job"
        )
    return request, collection


def _raise_stopped(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise Stopped


def _watch(reporter: ProgressReporter, parent: int) -> None:
    """Stop the job on request or when the server ends.

    A training stops after its current step; any other work is interrupted at once.
    """
    while not (reporter.folder.should_stop() or os.getppid() != parent):
        time.sleep(_POLL_SECONDS)
    reporter.stop.set()
    if reporter.progress.state != TRAINING and not reporter.ended.is_set():
        _thread.interrupt_main(signal.SIGTERM)
