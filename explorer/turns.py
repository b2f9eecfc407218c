"""Turns at a handler: some run at once, more wait, and all others hear at once that it is busy.

Without them a crowd would wait in the web server's own threads, of which there are 40 for
everything: thumbnails would then wait behind questions, and nobody would be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter, to_thread

BUSY = {"error": "Sieve is busy with other questions; try again in a moment", "busy": True}
"""The answer of whoever got no turn. Nothing of what was asked has been done."""


class Turns:
    """Turns at the handlers of one piece of the page, for the event loop of the web server.

    Parameters
    ----------
    at_once : int
        How many run at one time, each in a thread.
    waiting : int
        How many wait.
    seconds : float
        The longest wait for a turn; what runs is never cut short.
    """

    def __init__(self, at_once: int = 4, waiting: int = 64, seconds: float = 10.0) -> None:
        self.at_once, self.seconds = at_once, seconds
        self._room = at_once + waiting
        self._free = asyncio.Semaphore(at_once)
        # Threads of its own, never short: whoever has a turn has a thread.
        self._threads = CapacityLimiter(at_once)

    async def take(self, handler: Callable[[Any], Any], data: Any) -> Any:
        """Run a handler when it is its turn.

        Parameters
        ----------
        handler : callable
            Takes one JSON value and returns one.
        data : JSON value

        Returns
        -------
        JSON value
            The handler's answer, or `BUSY`.
        """
        if self._room == 0:
            return BUSY
        self._room -= 1
        try:
            if not await self._has_turn():
                return BUSY
            try:
                return await to_thread.run_sync(handler, data, limiter=self._threads)
            finally:
                self._free.release()
        finally:
            self._room += 1

    async def _has_turn(self) -> bool:
        """Wait for a turn; False where it takes too long."""
        try:
            async with asyncio.timeout(self.seconds):
                return await self._free.acquire()
        except TimeoutError:
            return False
