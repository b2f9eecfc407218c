"""Test the page while the server is busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from page_api import RPC_URL, request_body, server_functions, web_client
from playwright.sync_api import Page, expect

from browser.steps import dimensions_of, found, go, search, settle, switches
from sieve.explorer.concurrency import BUSY


@pytest.fixture
def release(tiny_engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event that blocks every search of the engine until it is set."""
    event, search = threading.Event(), tiny_engine.search
    event.set()

    def blocked_search(*args: Any, **more: Any) -> Any:
        assert event.wait(60)
        return search(*args, **more)

    monkeypatch.setattr(tiny_engine, "search", blocked_search)
    yield event
    event.set()


def send_until_busy(pool: ThreadPoolExecutor, address: str) -> None:
    """Send requests until one is refused as busy; the others wait."""
    with web_client(address) as web:
        known = server_functions(web.get("/config").json())
    busy = threading.Event()

    def ask(number: int) -> None:
        body = request_body(known, "sieve_ask", {"q": "a circle"}, session=f"crowd {number}")
        with web_client(address, timeout=60) as web:
            if web.post(RPC_URL, json=body).json() == BUSY:
                busy.set()

    for number in range(80):
        pool.submit(ask, number)
    assert busy.wait(60)


def test_busy_server_shows_one_line_and_retry_restores_the_toggle(
    page: Page, address: str, release: threading.Event
) -> None:
    go(page)
    search(page, "a red circle")
    before = found(page)
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_hidden()
    with ThreadPoolExecutor(80) as pool:
        release.clear()
        send_until_busy(pool, address)
        switch = switches(page).first
        off = dimensions_of(switch)
        switch.uncheck()
        expect(page.locator(".sv-messages .sv-fault")).to_have_text(BUSY["error"])
        expect(again).to_be_visible()
        assert found(page) == before, "what stood there stays"
        release.set()
    again.click()
    settle(page)
    expect(again).to_be_hidden()
    expect(page.locator(".sv-messages .sv-fault")).to_have_text("")
    assert f"off={','.join(map(str, sorted(off)))}" in page.url and not switch.is_checked()


def test_page_opened_while_busy_loads_after_retry(
    page: Page, address: str, release: threading.Event
) -> None:
    with ThreadPoolExecutor(80) as pool:
        release.clear()
        send_until_busy(pool, address)
        page.goto("/?q=a+red+circle")
        again = page.get_by_role("button", name="Try again")
        expect(again).to_be_visible()
        release.set()
    again.click()
    settle(page)
    assert found(page)
