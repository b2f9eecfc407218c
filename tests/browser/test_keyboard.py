"""Test that every control can be reached and used by keyboard, with a visible focus."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser.steps import go, preview, settle

TERMS = "q=2:a+circle+%2B+a+square&without=the+snow,night&where=split:test+not+caption:rain"
FILTER = ["Filter", "Exclude Split test", "Remove filter Split test"]
REACHED = {
    "search": (
        f"?{TERMS}",
        [*FILTER, "2 × a circle", "Exclude a square", "Remove a square", "Find night", "Export",
         "Save", "Share", "Figure"],
    ),
    "dimensions": (f"?tab=dimensions&dimension=0&{TERMS}", [*FILTER, "Share"]),
    "inspect": (f"?tab=inspect&inspect=left:a+circle&{TERMS}", [*FILTER, "Share"]),
    "compare": (f"?tab=compare&{TERMS}", [*FILTER, "Share"]),
    "figure": (
        "?tab=figure&q=a+circle",
        ["Zoom of the preview", "Preview", "+ Dimensions", "Contact sheet", "PDF", "Share"],
    ),
}  # fmt: skip
FOCUS = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const shows = (node) => {
    if (!node) return false;
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(node);
    return (outlineStyle !== 'none' && parseFloat(outlineWidth) > 0) || boxShadow !== 'none';
  };
  const field = at.closest('.sv-field, label, [role=group]');
  const name = at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent;
  const isVisible = shows(at) || shows(at.nextElementSibling) || shows(field);
  return { name: name.trim().replace(/\\s+/g, ' '), html: at.outerHTML.slice(0, 120), isVisible };
}"""


def walk(page: Page) -> list[dict[str, Any]]:
    """Press Tab from the top of the page until the focus returns, and list what has it."""
    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    stops: list[dict[str, Any]] = []
    for _ in range(300):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None:
            if stops:
                break
            continue
        stops.append(stop)
    return stops


@pytest.mark.parametrize("tab", REACHED)
def test_every_control_is_reached_with_a_visible_focus(page: Page, tab: str) -> None:
    link, expected = REACHED[tab]
    go(page, link)
    if tab == "figure":
        preview(page)
    if "where" in link:
        page.locator(".sv-facets li").first.wait_for()
    settle(page)
    stops = walk(page)
    assert [name for name in expected if name not in {stop["name"] for stop in stops}] == []
    assert [stop["html"] for stop in stops if not stop["isVisible"]] == []


def test_terms_keep_the_focus_while_they_are_changed_by_keyboard(page: Page) -> None:
    go(page, f"?{TERMS}")
    focused = page.locator(":focus")
    find = page.get_by_role("list", name="Terms to find").get_by_role("listitem")
    without = page.get_by_role("list", name="Terms to exclude").get_by_role("listitem")
    label = page.get_by_role("button", name="a square", exact=True)
    label.focus()
    for weight in ("2", "4"):
        page.keyboard.press("ArrowUp")
        expect(find.nth(1)).to_contain_text(f"{weight} × a square")
        settle(page)
        expect(focused).to_have_text(f"{weight} × a square")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(without).to_have_count(3)
    settle(page)
    expect(focused).to_have_accessible_name("Find a square")
    page.keyboard.press("Enter")
    expect(without).to_have_count(2)
    settle(page)
    expect(focused).to_have_accessible_name("Exclude a square")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Find")).to_be_focused()
    page.get_by_role("button", name="night", exact=True).press("Delete")
    expect(page.get_by_role("textbox", name="without")).to_be_focused()


def test_filter_is_changed_by_keyboard_alone(page: Page) -> None:
    go(page, "?q=a+circle")
    page.get_by_role("button", name="Filter", exact=True).focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog", name="Filter images")
    expect(panel.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("aria-pressed", "false")
    name = focused.get_attribute("data-facet")
    page.keyboard.press("Enter")
    expect(focused).to_have_attribute("aria-pressed", "true")
    assert focused.get_attribute("data-facet") == name
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Filter", exact=True)).to_be_focused()
    chip = page.get_by_role("list", name="Active filters").get_by_role("button").first
    page.keyboard.press("Tab")
    expect(chip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("list", name="Active filters")).to_contain_text("not ")
    expect(chip).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("list", name="Active filters").get_by_role("listitem")).to_have_count(0)
    expect(page.get_by_role("button", name="Filter", exact=True)).to_be_focused()
