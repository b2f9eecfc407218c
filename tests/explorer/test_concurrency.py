"""Test the concurrency limit: running, waiting and refused requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from page_api import call_server, web_client
from processes import FIRST_PORT

from sieve.explorer.app import start
from sieve.explorer.concurrency import BUSY, RequestLimiter


class BlockingHandler:
    """A handler that blocks until it is released and counts concurrent calls."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.most, self._now, self._lock = 0, 0, threading.Lock()

    def __call__(self, data: int) -> int:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.release.wait(20)
        with self._lock:
            self._now -= 1
        return data


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run in a thread, because a browser test may have left an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


async def start_requests(
    limiter: RequestLimiter, held: BlockingHandler, count: int
) -> list[asyncio.Task[object]]:
    tasks = [asyncio.ensure_future(limiter.run(held, n)) for n in range(count)]
    while held.most < limiter.max_concurrent:
        await asyncio.sleep(0.01)
    return tasks


def test_excess_requests_are_refused_at_once() -> None:
    async def send_requests() -> None:
        limiter, held = RequestLimiter(max_concurrent=2, max_waiting=3), BlockingHandler()
        tasks = await start_requests(limiter, held, 9)
        refused = [task for task in tasks if task.done()]
        assert [task.result() for task in refused] == [BUSY] * 4
        held.release.set()
        answers = await asyncio.gather(*tasks)
        assert answers == [0, 1, 2, 3, 4, BUSY, BUSY, BUSY, BUSY] and held.most == 2
        assert await limiter.run(held, 7) == 7  # no waiting request is left

    run(send_requests())


def test_waiting_requests_time_out() -> None:
    async def wait() -> None:
        limiter, held = RequestLimiter(max_concurrent=1, timeout=0.1), BlockingHandler()
        first, second = await start_requests(limiter, held, 2)
        begun = time.perf_counter()
        assert await second == BUSY and time.perf_counter() - begun < 5
        held.release.set()
        assert await first == 0 and await limiter.run(held, 2) == 2

    run(wait())


def test_failing_handler_releases_its_slot() -> None:
    async def fail() -> None:
        limiter = RequestLimiter(max_concurrent=1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await limiter.run(lambda n: n / 0, 1)

    run(fail())


@pytest.fixture
def web(tiny_engine) -> Iterator[httpx.Client]:
    served = start(tiny_engine, port=FIRST_PORT + 90)
    with web_client(served.url, 30) as client:
        yield client
    served.app.close()


def test_overloaded_handler_does_not_block_others(
    web: httpx.Client, tiny_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(name: str, data: object) -> dict:
        return call_server(web, name, data).raise_for_status().json()

    question = {"q": "a red circle"}
    whole = call("sieve_ask", question)
    search, release = tiny_engine.search, threading.Event()

    def held(*args: Any, **more: Any) -> Any:
        assert release.wait(20)
        return search(*args, **more)

    monkeypatch.setattr(tiny_engine, "search", held)
    with ThreadPoolExecutor(90) as pool:
        futures: list[Future] = [pool.submit(call, "sieve_ask", question) for _ in range(80)]
        while not any(one.done() for one in futures):
            time.sleep(0.01)
        assert call("sieve_table", None)["id"], "another component still answers"
        release.set()
        answers = [one.result() for one in futures]
    found = [one["results"] for one in answers if one != BUSY]
    assert 80 - 68 <= answers.count(BUSY) < 80 and all(one == whole["results"] for one in found)
    assert call("sieve_ask", question)["results"] == whole["results"]
