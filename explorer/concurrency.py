"""Limits that keep a server with many users responsive and small.

`tests/benchmarks/load.py` measures their effect.
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

COMPONENT_CONCURRENCY = 4
"""Maximum number of concurrent handlers of each page component."""
MODEL_CONCURRENCY = 1
"""Maximum number of concurrent API calls that encode or score; each uses all cores."""
FIGURE_CONCURRENCY = 1
"""Maximum number of concurrent API calls that draw a figure."""
API_CONCURRENCY = 2
"""Maximum number of concurrent calls of any other API endpoint."""
API_THREADS = 8
"""Number of threads for API calls; thumbnails and page components have other ones."""
MAX_WAITING = 64
"""Maximum number of requests that wait for a component or the API; others are refused."""
BUSY = {"error": "Sieve is busy with other requests; try again in a moment.", "busy": True}
"""Response to a request that was not run, because too many others were waiting."""
MAX_UNFETCHED = 32
"""Maximum number of API responses that are stored until they are fetched."""
MAX_RESPONSE_BYTES = 2 << 20
"""Maximum size of one API response as JSON; all that are stored take at most 64 MB."""
UNFETCHED_SECONDS = 300.0
"""Time in seconds after which a response that was not fetched is dropped."""
MAX_ARENAS = 2
"""Maximum number of memory arenas of the C library."""
_SWEEP_SECONDS = 1.0
_M_ARENA_MAX = -8
"""Parameter of glibc's `mallopt`, from its `malloc.h`."""


class RequestLimiter:
    """Concurrency limit for the handlers of one page component; used in the server's event loop.

    Without it, waiting requests would take the web server's own threads. There are 40 of them for
    everything, so thumbnails would wait behind searches.

    At most `max_concurrent` handlers run at a time, each in a thread, and `max_waiting` requests
    wait, for at most `timeout` seconds; further ones are refused at once. A running handler is
    never interrupted.
    """

    def __init__(
        self,
        max_concurrent: int = COMPONENT_CONCURRENCY,
        max_waiting: int = MAX_WAITING,
        timeout: float = 10,
    ) -> None:
        self.max_concurrent, self.timeout = max_concurrent, timeout
        self._capacity = max_concurrent + max_waiting
        self._semaphore = asyncio.Semaphore(max_concurrent)
        # A thread pool of its own: a request that passed the semaphore always has a thread.
        self._threads = CapacityLimiter(max_concurrent)

    async def run(self, handler: Callable[[Any], Any], data: Any) -> Any:
        """Run a handler of a JSON value as soon as the limit allows it, or return `BUSY`."""
        if self._capacity == 0:
            return BUSY
        self._capacity -= 1
        waiting = asyncio.timeout(self.timeout)
        try:
            async with waiting, self._semaphore:
                waiting.reschedule(None)
                return await to_thread.run_sync(handler, data, limiter=self._threads)
        except TimeoutError:
            if waiting.expired():
                return BUSY
            raise
        finally:
            self._capacity += 1


class UnfetchedResponses:
    """Drop API responses that are not fetched; Gradio would store them in memory forever.

    Gradio has no public access to its queue; the attributes used here are those that its own routes
    use.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._done_at: dict[str, float] = {}

    def has_event(self, event: str) -> bool:
        """Return whether an event is pending or running, or its response can be fetched."""
        sessions = self._queue.pending_event_ids_session.values()
        return event in self._queue.event_ids_to_events or any(event in s for s in sessions)

    def has_session(self, session: str) -> bool:
        """Return whether a session has responses or pending events."""
        return session in self._queue.pending_messages_per_session

    async def sweep(self) -> None:
        """Drop the oldest responses above `MAX_UNFETCHED` and those past `UNFETCHED_SECONDS`."""
        queue, now = self._queue, time.monotonic()
        session_of = {
            event: session
            for session, events in queue.pending_event_ids_session.items()
            for event in events
            if event not in queue.event_ids_to_events  # the event is done
        }
        self._done_at = {event: self._done_at.get(event, now) for event in session_of}
        surplus = len(session_of) - MAX_UNFETCHED
        oldest_first = sorted(self._done_at.items(), key=itemgetter(1))
        for number, (event, done_at) in enumerate(oldest_first):
            if number < surplus or now - done_at >= UNFETCHED_SECONDS:
                session = session_of[event]
                await queue.clean_events(session_hash=session)
                queue.pending_event_ids_session.pop(session, None)
                queue.pending_messages_per_session.pop(session, None)
        for session, events in list(queue.pending_event_ids_session.items()):
            if not events and not self.has_session(session):
                del queue.pending_event_ids_session[session]

    async def sweep_forever(self) -> None:
        """Sweep every second until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self.sweep()


def limit_memory_arenas() -> None:
    """Let all threads of this process share two memory arenas; no effect without glibc.

    Call it before any thread starts. By default, glibc creates up to eight arenas per core, and
    memory that one thread has freed cannot be used from another arena. Measured with 50 users at a
    time: without the limit, a server used 1,534 MiB after 30,000 requests and still grew; with two
    arenas, it used 1,266 MiB after 18,000 requests, and its growth was within noise.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MAX_ARENAS)
