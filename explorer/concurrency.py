"""Turns at a handler: some run at once, more wait, and all others hear at once that it is busy.

Without them a crowd would wait in the web server's own threads, of which there are 40 for
everything: thumbnails would then wait behind questions, and nobody would be told.

Memory of a server of many threads: kept in few places, so that what is freed is used again.

glibc gives up to eight times as many arenas as there are cores to the threads that allocate, and
what one thread has freed is of no use to another. Measured with 50 people at once: a server without
a limit came to 1,534 MiB after 30,000 requests and still grew, one with two arenas to 1,266 MiB
after 18,000, its slope within noise.

Bounds on the answers of the API that were computed and not fetched.

Gradio keeps each in memory until somebody reads it, or for ever.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import time
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from gradio.queueing import Queue

ARENAS = 2
_M_ARENA_MAX = -8
"""Of glibc's `malloc.h`."""


def share_arenas() -> None:
    """Let all threads of this process share two arenas; without glibc there is nothing to do.

    To be called before the threads are there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


MAX_ANSWERS = 32
MAX_ANSWER_BYTES = 2 << 20
"""Size limit of one answer as JSON; together they take at most 64 MB."""
SECONDS = 300.0
"""Time after which an answer that was not fetched is dropped, in seconds."""
_SWEEP_EVERY = 1.0


class UnfetchedAnswers:
    """Drops the oldest answers of an app's queue that nobody fetches.

    Parameters
    ----------
    queue : gradio.queueing.Queue
        Gradio has no public way to it; these are the attributes that its own routes use.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._since: dict[str, float] = {}

    def has_event(self, event: str) -> bool:
        """Whether an event is under way, or its answer can be fetched."""
        sessions = self._queue.pending_event_ids_session.values()
        return event in self._queue.event_ids_to_events or any(event in s for s in sessions)

    def has_session(self, session: str) -> bool:
        """Whether a session has answers, or gets some."""
        return session in self._queue.pending_messages_per_session

    async def sweep(self) -> None:
        """Drop the answers that are too many or too old."""
        queue, now = self._queue, time.monotonic()
        waiting = {
            event: session
            for session, events in queue.pending_event_ids_session.items()
            for event in events
            if event not in queue.event_ids_to_events  # it is done
        }
        self._since = {event: self._since.get(event, now) for event in waiting}
        surplus = len(waiting) - MAX_ANSWERS
        for number, (event, since) in enumerate(sorted(self._since.items(), key=itemgetter(1))):
            if number < surplus or now - since >= SECONDS:
                await self._drop(waiting[event])
        for session, events in list(queue.pending_event_ids_session.items()):
            if not events and not self.has_session(session):
                del queue.pending_event_ids_session[session]

    async def sweep_always(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            await self.sweep()

    async def _drop(self, session: str) -> None:
        await self._queue.clean_events(session_hash=session)
        self._queue.pending_event_ids_session.pop(session, None)
        self._queue.pending_messages_per_session.pop(session, None)


BUSY = {"error": "Sieve is busy with other questions; try again in a moment", "busy": True}
"""The answer of whoever got no turn. Nothing of what was asked has been done."""


class RequestLimiter:
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
