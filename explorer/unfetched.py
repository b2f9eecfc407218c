"""Bounds on the answers of the API that were computed and not fetched.

Gradio keeps each in memory until somebody reads it, or for ever.
"""

from __future__ import annotations

import asyncio
import time
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradio.queueing import Queue

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
