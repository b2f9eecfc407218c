"""Test the guide: shown once, closed by a key, never over the control that it points to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.conftest import fresh_page
from browser.steps import go, has_sideways_scroll, settle, violations
from sieve.explorer.app import start
from sieve.explorer.tabs import search
from sieve.explorer.tabs.search import ExampleQuery

APART = """() => {
  const [card, about] = [".sv-guide", ".sv-guided"].map((one) => document.querySelector(one));
  const [a, b] = [card, about].map((node) => node.getBoundingClientRect());
  const beside = a.right <= b.left || b.right <= a.left;
  return (beside || a.bottom <= b.top || b.bottom <= a.top) && b.bottom > 0 && b.top < innerHeight
    && a.top >= 0 && a.left >= 0 && a.bottom <= innerHeight && a.right <= innerWidth;
}"""

CONTROLS = {
    1: ".sv-pill",
    2: ".sv-group .sv-dim input[type=checkbox]",
    3: ".sv-field-w input",
    4: ".sv-group-off .sv-dim input[type=checkbox]",
}
UNCOVERED = """(node) => {
  const { left, top, width, height } = node.getBoundingClientRect();
  const found = document.elementFromPoint(left + width / 2, top + height / 2);
  return Boolean(found) && !found.closest(".sv-guide");
}"""


@pytest.fixture(scope="module")
def guide_address(tiny_engine) -> Iterator[str]:
    """Address of a server whose collection has an example query."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "examples", lambda _: (ExampleQuery("a circle", "the snow"),))
        served = start(tiny_engine, port=7990)
    yield served.url
    served.app.close()


@pytest.fixture(params=[1280, 390])
def new_page(
    request: pytest.FixtureRequest, browser: Browser, guide_address: str
) -> Iterator[Page]:
    """A page in a browser with empty storage."""
    viewport = {"width": request.param, "height": 844}
    with fresh_page(browser, guide_address, guide=True, timeout=10_000, viewport=viewport) as page:
        yield page


def check_step(page: Page, number: int) -> None:
    """Check that the card is visible, next to its anchor, and covers no control that it names."""
    expect(page.locator(".sv-guide-step")).to_have_text(f"{number} of 4")
    page.wait_for_function(APART)
    control = page.locator(CONTROLS[number]).first
    assert control.evaluate(UNCOVERED), f"step {number} covers {CONTROLS[number]}"
    assert not has_sideways_scroll(page)


def test_guide_leads_to_a_first_exclusion(new_page: Page) -> None:
    page = new_page
    go(page)
    card = page.get_by_role("dialog", name="How it works")
    expect(card).to_be_visible()
    expect(page.get_by_role("textbox", name="Find")).to_be_focused()  # it does not take the focus
    check_step(page, 1)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert not violations(page)
    # From the keyboard: the card follows the “?” of the header.
    page.get_by_role("button", name="Show how it works").press("Enter")
    for number in (2, 3, 4):
        expect(card.locator(".sv-guide-next")).to_be_focused()
        page.keyboard.press("Enter")
        settle(page)
        check_step(page, number)
    assert "without=" in page.url
    page.keyboard.press("Enter")
    page.locator(".sv-page-head").wait_for()
    expect(card).to_be_hidden()
    go(page)
    expect(page.locator(".sv-how")).to_be_visible()
    expect(card).to_be_hidden()


def test_guide_is_not_shown_with_a_link_and_can_be_dismissed(new_page: Page) -> None:
    page = new_page
    card = page.get_by_role("dialog", name="How it works")
    go(page, "?q=a+circle")
    expect(card).to_be_hidden()
    go(page)
    expect(card).to_be_visible()
    page.get_by_role("textbox", name="Find").fill("a circle")
    page.keyboard.press("Enter")
    settle(page)
    check_step(page, 2)
    expect(page.get_by_role("textbox", name="Find")).to_be_focused()
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    assert page.locator(".sv-guided").count() == 0
