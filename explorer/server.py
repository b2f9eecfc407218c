"""Serve a collection until stopped, and switch between its checkpoints.

If no checkpoint fits the collection, the page offers to train one. When the page asks for another
checkpoint, the app is restarted with it at the same address, and the page reloads itself.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sieve.explorer.app import Served, start
from sieve.explorer.concurrency import limit_memory_arenas
from sieve.explorer.security.access import Access
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.checkpoint_choice import explain_choice, find_checkpoint
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.3


@dataclass(eq=False)
class Server:
    """Serve one collection with one checkpoint at a time."""

    collection: Collection
    open_engine: Callable[[Path | None], SearchEngine]
    """Opens the collection with a checkpoint; None chooses the one that fits best."""
    host: str = "127.0.0.1"
    port: int = 7860
    """The first port to try; later the one in use."""
    device: str = "auto"
    """Device for training."""
    training: bool = True
    """Whether checkpoints can be trained on the page; a public page never offers it."""
    text_encoder: str = ""
    """Text encoder to use instead of the collection's backbone; empty for the backbone."""
    access: Access = Access()
    served: Served | None = field(default=None, init=False)
    note: str = field(default="", init=False)
    """Explains the choice of the open checkpoint if another one could be expected."""
    _train_handlers: TrainHandlers | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.training = self.training and not self.access.public

    def start(self, checkpoint: Path | None = None) -> Served:
        """Serve a checkpoint, by default the best; if none fits, serve a page to train one.

        Raises a FileNotFoundError or ValueError if it cannot be opened, or no port is free.
        """
        if checkpoint is None and self.training:
            try:
                find_checkpoint(self.collection)
            except FileNotFoundError as error:
                log.info("%s", error)
                return self._serve(None)
        return self._serve(self.open_engine(checkpoint))

    def switch_checkpoint(self) -> None:
        """Restart at the same address with the checkpoint that the page asks for, if any."""
        handlers = self._train_handlers
        wanted = handlers.wanted() if handlers else None
        if handlers is None or self.served is None or wanted is None:
            return
        try:
            engine = self.open_engine(wanted)
        except (ValueError, OSError) as error:
            handlers.not_opened(wanted, error)
            return
        self.served.app.close(verbose=False)
        self.port = int(self.served.url.rsplit(":", 1)[1])
        self._serve(engine)

    def _serve(self, engine: SearchEngine | None) -> Served:
        path = Path(engine.checkpoint.path) if engine else None
        if self.training:
            self._train_handlers = TrainHandlers(
                self.collection, path, self.device, self.text_encoder
            )
        self.note = str(explain_choice(self.collection, path)) if path else ""
        self.served = start(
            engine,
            host=self.host,
            port=self.port,
            training=self._train_handlers,
            access=self.access,
        )
        return self.served


def launch(server: Server, port: int, checkpoint: Path | None = None) -> None:
    """Print the address, and whether the requested port is in use; serve until interrupted."""
    limit_memory_arenas()
    served = server.start(checkpoint)
    note = "" if served.url.endswith(f":{port}") else f" (port {port} is in use)"
    sys.stdout.write(f"Sieve is at {served.url}{note}\n")
    if server.note:
        sys.stdout.write(f"{server.note}\n")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(_POLL_SECONDS)
            server.switch_checkpoint()
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        (server.served or served).close()
        # Otherwise the garbage collection at exit takes seconds.
        gc.freeze()
