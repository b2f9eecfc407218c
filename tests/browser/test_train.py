"""Test a collection without a checkpoint: open it, train in the browser, and search."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from playwright.sync_api import Page, expect
from processes import FIRST_PORT

from browser.steps import COLOURS, has_sideways_scroll, search, settle, use_dark_mode, violations
from sieve.explorer.app import Server
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine

PATIENCE = 240_000
"""Timeout in milliseconds for a process to load PyTorch on a busy machine."""


@pytest.fixture
def server(tiny_collection: Collection, home: Path) -> Iterator[Server]:  # noqa: ARG001
    """Offers training and then opens the explorer, as `sieve explore` does."""
    server = Server(
        tiny_collection,
        lambda checkpoint: SearchEngine.open(tiny_collection.path, checkpoint, "cpu"),
        port=FIRST_PORT,
        device="cpu",
    )
    server.start()
    done = Event()

    def follow() -> None:
        while not done.wait(0.2):
            server.switch_checkpoint()

    thread = Thread(target=follow)
    thread.start()
    yield server
    done.set()
    thread.join()
    assert server.served
    server.served.app.close()


def fill(page: Page, epochs: int) -> None:
    page.get_by_label("Dimensions", exact=True).fill("64")
    page.get_by_label("Max. active", exact=True).fill("8")
    page.get_by_label("Epochs").fill(str(epochs))


@pytest.mark.usefixtures("forked_jobs")
def test_any_collection_can_be_opened_trained_and_searched(page: Page, server: Server) -> None:
    assert server.served
    page.set_default_timeout(60_000)
    page.goto(server.served.url)
    expect(page.get_by_role("heading", name="No training yet")).to_be_visible()
    expect(page.locator(".sv-about")).to_contain_text("no checkpoint yet")
    assert not violations(page)

    fill(page, 1000)
    page.get_by_text("Losses", exact=True).click()
    expect(page.get_by_label("exclude")).to_have_value("1")
    page.get_by_label("assign").fill("2.5")
    page.get_by_role("button", name="Start").press("Enter")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    for curve in ("total", "live"):
        drawn = page.locator(f"[data-curve={curve}] polyline")
        expect(drawn).to_have_count(1, timeout=PATIENCE)
    page.reload()  # restored
    expect(drawn).to_have_count(1)
    expect(page.get_by_label("assign")).to_have_value("2.5")
    expect(page.get_by_label("contrast")).to_have_value("1")
    assert not violations(page)
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.set_viewport_size({"width": 390, "height": 844})
    assert not has_sideways_scroll(page)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("heading", name="No training yet")).to_be_visible()

    fill(page, 30)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("textbox", name="Find").wait_for(timeout=PATIENCE)
    settle(page)
    search(page, "a circle", "the snow")
    page.locator(".sv-tile").first.wait_for()
    page.get_by_role("tab", name="Train").click()
    expect(page.get_by_role("heading", name="Trained")).to_be_visible()
    expect(page.locator(".sv-train-detail")).to_contain_text("open in all tabs")


@pytest.mark.usefixtures("forked_jobs")
def test_page_that_missed_the_server_change_follows_it(page: Page, server: Server) -> None:
    offer = server.served
    assert offer
    page.goto(offer.url)
    fill(page, 1)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Start")).to_be_disabled(timeout=60_000)
    page.route("**/component_server/**", lambda route: route.abort())
    deadline = time.monotonic() + PATIENCE / 1000
    while server.served is offer and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    page.unroute("**/component_server/**")
    page.get_by_role("textbox", name="Find").wait_for(timeout=60_000)


def test_train_tab_is_accessible_and_fits_the_page(page: Page, training_address: str) -> None:
    page.goto(f"{training_address}/?tab=train")
    expect(page.get_by_role("heading", name="No training yet")).to_be_visible()
    assert page.url.endswith("?tab=train") and not violations(page)
    page.get_by_text("Losses", exact=True).click()
    page.get_by_text("More settings", exact=True).click()
    expect(page.get_by_title("Pairs per step.")).to_have_text("Batch size")
    preset = page.get_by_label("Preset")
    preset.select_option("paper")
    expect(page.get_by_label("Exclude", exact=True)).to_be_hidden()
    expect(page.get_by_label("Weight decay")).to_have_value("0")
    preset.select_option("compact")
    expect(page.get_by_label("Exclude", exact=True)).to_have_value("1")
    floor = page.get_by_label("Floor")
    expect(floor).to_have_accessible_description(re.compile("^Drop activations below"))
    floor.fill("1")
    page.get_by_role("button", name="Start").click()
    fault = page.get_by_role("alert").get_by_text("Floor must be at least 0 and less than 1")
    expect(fault).to_be_visible()
    page.wait_for_event("response", lambda one: "component_server" in one.url)  # the next poll
    expect(fault).to_be_visible()
    page.get_by_label("Noise").fill("-1")
    page.get_by_text("More settings", exact=True).click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_label("Noise")).to_be_focused()
    preset.select_option("paper")
    preset.select_option("compact")
    use_dark_mode(page)
    assert not violations(page, COLOURS)
    page.set_viewport_size({"width": 390, "height": 844})
    assert not has_sideways_scroll(page)
    page.get_by_label("Max. active", exact=True).fill("2000")
    page.get_by_role("button", name="Start").click()
    assert page.evaluate("document.activeElement.name") == "k"  # the browser shows what is wrong


def test_link_to_a_missing_train_tab_opens_the_search(page: Page) -> None:
    page.goto("/?tab=train")
    expect(page.get_by_role("textbox", name="Find")).to_be_visible()
    expect(page.get_by_role("tab", name="Train")).to_have_count(0)
    page.wait_for_function("Sieve.idle && Sieve.viewState.tab === 'search'")
