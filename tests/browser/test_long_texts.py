"""Test that long captions, labels and names are truncated and do not change the layout."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from page_api import serve
from playwright.sync_api import Page, expect
from processes import FIRST_PORT

from browser.conftest import with_text
from browser.steps import has_sideways_scroll, settle
from sieve.model.engine import SearchEngine

LONG = "w" * 5_000
PLACES = {
    f"?q=a+circle&without={quote('snow ' * 60)}": ".sv-tile",
    "?tab=dimensions&dimension=3": ".sv-page-head",
    "?tab=inspect&inspect=left:a+circle,right:a+square": ".sv-pair .sv-dim",
    "?tab=compare&versus=q:a+circle,without:snow": ".sv-compare-grid img",
}


@pytest.fixture(scope="module")
def long_address(tiny_engine: SearchEngine) -> Iterator[str]:
    yield from serve(with_text(tiny_engine, LONG), port=FIRST_PORT + 70)


def test_long_words_do_not_change_the_layout(page: Page, long_address: str) -> None:
    for place, shown in PLACES.items():
        page.goto(f"{long_address}/{place}")
        settle(page)
        page.locator(shown).first.wait_for()
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert not has_sideways_scroll(page), (place, width)
            heights = page.locator(".sv-tile, .sv-dim, .sv-compare-grid li").evaluate_all(
                "all => all.map(one => one.offsetHeight)"
            )
            assert max(heights, default=0) < 400, (place, width)


def test_item_details_show_the_complete_caption(page: Page, long_address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{long_address}/?q=a+circle")
    settle(page)
    page.locator(".sv-tile-open").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(LONG)
    assert dialog.evaluate("e => e.scrollWidth <= e.clientWidth")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
