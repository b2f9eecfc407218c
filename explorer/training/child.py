"""The process of one training: `python -m explorer.training.child FOLDER`.

It ends with the server that started it, or when a stop is asked for; both leave a state from which
it goes on. Its progress is the only thing that it tells.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from explorer.arguments import default_checkpoint_out
from explorer.faults import one_line
from explorer.training.folder import (
    DONE,
    FAILED,
    MEASURING,
    STOPPED,
    TRAINING,
    Progress,
    Request,
    TrainingFolder,
)
from model.collection import Collection
from model.training import train
from model.training.trainer import StepReport

log = logging.getLogger(__name__)

N_POINTS = 200
"""Points of a curve."""
_LOOK_EVERY = 0.25
_WRITE_EVERY = 0.5
_SAVE_EVERY = 15.0


class Stopped(BaseException):
    """The training is to stop; what is done stays done."""


class Teller:
    """Writes how far a training is, and raises `Stopped` after a step where it is to stop."""

    def __init__(self, folder: TrainingFolder) -> None:
        self.folder = folder
        before = folder.read()
        self.now = Progress(points=before.points, step=before.step, n_steps=before.n_steps)
        self.stop, self.ended = Event(), Event()
        self._begun: tuple[float, int] | None = None
        self._written = 0.0
        folder.write(self.now)

    def on_step(self, report: StepReport) -> None:
        """Take a step's report."""
        clock = time.monotonic()
        if self._begun is None:
            self._begun = (clock, report.step)
        begun, first = self._begun
        rate = (clock - begun) / max(report.step - first, 1)
        self.now = Progress(
            state=TRAINING if report.step < report.n_steps else MEASURING,
            step=report.step,
            n_steps=report.n_steps,
            seconds_left=rate * (report.n_steps - report.step) if report.step > first else None,
            live=report.live,
            losses=report.losses,
            points=self._points(report),
        )
        if clock - self._written > _WRITE_EVERY or self.now.state == MEASURING:
            self.folder.write(self.now)
            self._written = clock
        if self.stop.is_set():
            raise Stopped

    def end(self, state: str, fault: str = "", checkpoint: str = "") -> None:
        """Write how it ended; from then on nothing can stop it."""
        self.ended.set()
        self.now = replace(
            self.now, state=state, fault=fault, checkpoint=checkpoint, seconds_left=None
        )
        if self.folder.path.is_dir():
            self.folder.write(self.now)

    def _points(self, report: StepReport) -> tuple[dict[str, float], ...]:
        """Add a point now and then; those of steps that are taken again go."""
        every = max(report.n_steps // N_POINTS, 1)
        points = self.now.points
        while points and points[-1]["step"] >= report.step:
            points = points[:-1]
        if report.step % every and report.step != report.n_steps:
            return points
        point = {"step": report.step, "total": report.losses["total"], "live": report.live}
        return (*points, point)


def main() -> None:
    """Train as the folder says, and write there how it ended."""
    folder = TrainingFolder(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    teller = Teller(folder)
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; we follow it
    Thread(target=_watch, args=(teller, os.getppid()), daemon=True).start()
    try:
        teller.end(DONE, checkpoint=str(_train(folder, teller)))
    except Stopped:
        teller.end(STOPPED)
    except (ValueError, OSError) as error:
        teller.end(FAILED, fault=one_line(error))
    except Exception:
        log.exception("the training failed")
        teller.end(FAILED, fault=f"Sieve failed at this; {folder.log} says how")


def _train(folder: TrainingFolder, teller: Teller) -> Path:
    request = folder.request()
    if request is None:
        raise ValueError(f"{folder.path / 'request.json'} cannot be read; start a new training")
    collection = Collection.open(request.collection)
    if collection.sha256 != request.sha256:
        raise ValueError(f"{collection.path} was prepared anew meanwhile; start a new training")
    if not folder.draft.exists():
        train(
            collection,
            folder.draft,
            request.settings.config(),
            device=request.device,
            on_step=teller.on_step,
            progress=False,
            save_every=_SAVE_EVERY,
        )
    return _keep(folder, request)


def _keep(folder: TrainingFolder, request: Request) -> Path:
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


def _raise_stopped(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise Stopped


def _watch(teller: Teller, parent: int) -> None:
    """See to it that the training stops when it is to: after a step, else at once."""
    while not (teller.folder.should_stop() or os.getppid() != parent):
        time.sleep(_LOOK_EVERY)
    teller.stop.set()
    if teller.now.state != TRAINING and not teller.ended.is_set():
        _thread.interrupt_main(signal.SIGTERM)


if __name__ == "__main__":
    main()
