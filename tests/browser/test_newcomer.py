"""Test first use: typing, the keyboard, browser history and two open pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from processes import FIRST_PORT

from browser.steps import found, go, saved, search, settle
from sieve.explorer.app import start
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.engine import SearchEngine


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_first_exclusion_works_by_keyboard(page: Page) -> None:
    go(page)
    expect(page.get_by_role("textbox", name="Find")).to_be_focused()
    page.keyboard.type("a circle")
    press(page, "Tab", "Tab")  # the image button is next to the query box
    page.keyboard.type("the snow")
    press(page, "Enter")
    expect(page.locator(".sv-group-off .sv-dim").first).to_be_visible()
    settle(page)
    press(page, *["Tab"] * 4)  # past the buttons that move the exclusion, search and filter
    expect(page.get_by_role("button", name="Skip to the results")).to_be_focused()
    press(page, "Enter")
    expect(page.locator(".sv-columns .sv-tile-open").first).to_be_focused()
    assert found(page)


def test_tabs_have_one_tab_stop_and_back_returns_to_the_previous_tab(page: Page) -> None:
    go(page)
    search(page, "a circle", "the snow")
    page.get_by_role("tab", name="Search").focus()
    press(page, "ArrowRight", "Enter")
    dimensions = page.get_by_role("tab", name="Dimensions")
    expect(dimensions).to_have_attribute("aria-selected", "true")
    page.locator(".sv-table tbody a").first.wait_for()
    press(page, "Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("tab", name="Compare").click()
    page.locator(".sv-compare-columns dd").first.wait_for()
    page.go_back()
    expect(dimensions).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    settle(page)
    assert found(page)
    page.go_forward()
    expect(dimensions).to_have_attribute("aria-selected", "true")


def test_dimension_can_be_named_and_found_by_its_name(page: Page, home: Path) -> None:  # noqa: ARG001
    go(page, "?tab=dimensions")
    page.locator(".sv-table tbody a").nth(1).wait_for()
    wanted = page.locator(".sv-table tbody a").nth(1).inner_text()
    page.get_by_role("searchbox").fill(wanted)
    press(page, "Enter")
    expect(page.locator(".sv-page h2")).to_be_focused()
    press(page, "n")
    expect(page.get_by_role("textbox", name="Your name for this dimension")).to_be_focused()


def test_compare_tab_uses_the_image_of_the_search(page: Page) -> None:
    go(page)
    search(page, "a circle")
    page.locator(".sv-columns .sv-tile-open").first.click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#sieve-search-bar .sv-query-image")).to_be_visible()
    settle(page)
    item, first = page.evaluate("Sieve.viewState.item"), found(page)
    page.get_by_role("tab", name="Compare").click()
    grid = page.locator(".sv-compare-grid").first.locator("[data-id]")
    grid.first.wait_for()
    ids = grid.evaluate_all("tiles => tiles.map(tile => tile.dataset.id)")
    assert ids == first[: len(ids)] and item not in ids
    page.get_by_role("textbox", name="Compare: without").fill("the snow")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("combobox", name="has", exact=True).select_option("circle")
    expect(page.locator(".sv-compare-summary")).to_contain_text("Relevant: has circle, not snow")
    settle(page)
    page.reload()
    expect(page.locator("#sieve-compare .sv-query-image")).to_contain_text("like: ")
    expect(page.locator(".sv-compare-summary")).to_contain_text("Relevant: has circle, not snow")


@pytest.fixture
def both(browser, tiny_engine: SearchEngine, home: Path) -> Iterator[BrowserContext]:  # noqa: ARG001
    """A server for two pages, with separate annotations and training jobs."""
    (home / "collections" / "broken").mkdir(parents=True)
    (home / "collections" / "broken" / "collection.json").write_text("{")
    handlers = TrainHandlers(tiny_engine.collection, Path(tiny_engine.checkpoint.path), "cpu")
    served = start(tiny_engine, port=FIRST_PORT, training=handlers)
    context = browser.new_context(base_url=served.url)
    context.add_init_script("try { localStorage.setItem('sieve-guide', 'seen') } catch {}")
    yield context
    context.close()
    served.app.close()


def test_open_annotation_follows_another_page_unless_it_is_being_edited(
    both: BrowserContext,
) -> None:
    both.clock.install()
    here, there = both.new_page(), both.new_page()
    for page in (here, there):
        go(page, "?tab=dimensions&dimension=0")
    mine, theirs = (page.get_by_role("textbox", name="Notes") for page in (here, there))
    theirs.fill("first")
    theirs.blur()
    expect(mine).to_have_value("first")
    # Autosave of what is typed waits until the other page has saved.
    both.clock.pause_at(here.evaluate("Date.now()") + 60_000)
    mine.press_sequentially("!")
    with here.expect_response(lambda answer: "sieve_notes_of" in (answer.request.post_data or "")):
        theirs.fill("second")
        theirs.blur()
    saved(there)
    typed = mine.input_value()
    assert typed in ("first!", "!first")
    both.clock.resume()
    expect(here.locator(".sv-conflict")).to_contain_text("second")
    expect(mine).to_have_value(typed)


def test_collection_can_be_chosen_for_training_or_is_rejected_with_one_line(
    both: BrowserContext,
) -> None:
    page = both.new_page()
    go(page, "?tab=train")
    of = page.get_by_role("combobox", name="Collection")
    expect(of.locator("option")).to_have_text(["tiny", "scenes (sieve-lite)", "broken"])
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    of.select_option("broken")
    expect(page.locator(".sv-train-note")).to_contain_text("is damaged")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    of.select_option("scenes")
    expect(page.locator(".sv-train-intro")).to_contain_text("The checkpoint will use sieve-lite")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
