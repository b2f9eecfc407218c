"""Serving a collection until it is stopped, whichever of its checkpoints is open.

Where no checkpoint fits, the page offers to train one; a finished one is opened at the same
address, and the page follows by itself.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sieve.explorer.app import Served, start, start_offer
from sieve.explorer.concurrency import share_arenas
from sieve.explorer.security.access import Access
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.checkpoint import explain_choice, find_checkpoint

if TYPE_CHECKING:
    from sieve.model.collection import Collection
    from sieve.model.engine import Engine

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.3


class Server:
    """Serves one collection with one of its checkpoints after the other.

    Parameters
    ----------
    collection : Collection
    open_engine : callable
        Opens the collection with a checkpoint, by default the one that fits best.
    host, port
        As for `sieve.explorer.app.start`.
    device : str
        Where to train.
    training : bool
        Whether checkpoints can be trained on the page; without it no handler of that is there.
    text_encoder : str
        What reads texts in place of the collection's backbone, where a person named it.
    access : Access
        Who may reach it; where the public may, nothing can be trained.
    """

    def __init__(
        self,
        collection: Collection,
        open_engine: Callable[[Path | None], Engine],
        *,
        host: str = "127.0.0.1",
        port: int = 7860,
        device: str = "auto",
        training: bool = True,
        text_encoder: str = "",
        access: Access = Access(),  # noqa: B008  (frozen)
    ) -> None:
        self._collection = collection
        self._open_engine = open_engine
        self._host, self._port = host, port
        self._device = device
        self._text_encoder = text_encoder
        self._access = access
        self._may_train = training and not access.public
        self._desk: TrainHandlers | None = None
        self.served: Served | None = None
        self.note = ""
        """Why the checkpoint that is open was chosen, if another could be expected."""

    def start(self, checkpoint: Path | None = None) -> Served:
        """Serve a checkpoint, by default the best; where none fits, the offer to train one.

        Raises
        ------
        FileNotFoundError, ValueError
            In one line, where the checkpoint cannot be opened or no port is free.
        """
        if checkpoint is None and self._may_train and not _fits(self._collection):
            self._desk = TrainHandlers(self._collection, None, self._device, self._text_encoder)
            at = {"host": self._host, "port": self._port}
            self.served = start_offer(self._desk, **at, access=self._access)
        else:
            self._serve(self._open_engine(checkpoint))
        assert self.served is not None
        return self.served

    def follow(self) -> None:
        """Open the checkpoint that the page asks for, if it does, at the same address."""
        wanted = self._desk.wanted() if self._desk else None
        if self._desk is None or self.served is None or wanted is None:
            return
        try:
            engine = self._open_engine(wanted)
        except (ValueError, OSError) as error:
            self._desk.not_opened(wanted, error)
            return
        self.served.app.close(verbose=False)
        self._port = int(self.served.url.rsplit(":", 1)[1])
        self._serve(engine)

    def _serve(self, engine: Engine) -> None:
        if self._may_train:
            path = Path(engine.checkpoint.path)
            self._desk = TrainHandlers(self._collection, path, self._device, self._text_encoder)
        self.note = str(explain_choice(self._collection, Path(engine.checkpoint.path)))
        at = {"host": self._host, "port": self._port}
        self.served = start(engine, **at, training=self._desk, access=self._access)


def launch(server: Server, port: int, checkpoint: Path | None = None) -> None:
    """Serve until stopped, and say where.

    Parameters
    ----------
    server : Server
    port : int
        The one that was asked for.
    checkpoint : Path, optional
        By default the best.
    """
    share_arenas()
    served = server.start(checkpoint)
    taken = "" if served.url.endswith(f":{port}") else f" ({port} was taken)"
    sys.stdout.write(f"Sieve is at {served.url}{taken}\n")
    if server.note:
        sys.stdout.write(f"{server.note}\n")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(_LOOK_EVERY)
            server.follow()
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        if server.served:
            stop(server.served)
        # Without it Python takes seconds to look through all objects before it ends.
        gc.freeze()


def stop(served: Served) -> None:
    """Close an explorer at once: open pages keep event streams that would be waited for."""
    running = served.app.server
    if running is not None:
        running.config.timeout_graceful_shutdown = 1
    served.app.close(verbose=False)


def _fits(collection: Collection) -> bool:
    """Whether there is a checkpoint for a collection."""
    try:
        find_checkpoint(collection)
    except FileNotFoundError as error:
        log.info("%s", error)
        return False
    return True
