"""Test the page on a phone: touches that scroll or select, sizes of targets, no sideways scroll."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.conftest import fresh_page
from browser.steps import go, has_sideways_scroll, settle
from browser.test_dimension_map import at, drawn, layout, most_isolated

MAPS = {
    "images": ("?tab=dimensions&atlas=items:split%3Atest", ".sv-item-map"),
    "dimensions": ("?tab=dimensions&atlas=map:agreement", ".sv-map:not(.sv-item-map)"),
}
DRAWN = ".sv-map-plot[data-drawn]"
CHIPS = "q=2:a+circle+%2B+a+square&without=the+snow,night&where=split:test+not+caption:rain"
TABS = {
    "search": (f"?{CHIPS}", ".sv-query-term"),
    "dimensions": (f"?tab=dimensions&dimension=0&{CHIPS}", ".sv-page-body .sv-facets li"),
    "inspect": (f"?tab=inspect&inspect=left:a+circle&{CHIPS}", ".sv-one .sv-grid img"),
    "compare": (f"?tab=compare&{CHIPS}", ".sv-compare-grid img"),
    "figure": (f"?tab=figure&{CHIPS}", ".sv-sheet img:not([hidden])"),
    "benchmark": ("?tab=benchmark", ".sv-bench-empty"),
}
SMALLEST = 44
"""Height of a touch target, in CSS pixels."""


@pytest.fixture
def phone(browser: Browser, address: str) -> Iterator[Page]:
    viewport = {"width": 390, "height": 844}
    with fresh_page(
        browser, address, viewport=viewport, has_touch=True, is_mobile=True, timeout=15_000
    ) as page:
        yield page


def swipe(page: Page, start: tuple[float, float], steps: list[tuple[float, float]]) -> None:
    """Touch the screen, move the finger through the steps, and lift it."""
    session = page.context.new_cdp_session(page)

    def send(kind: str, points: list[tuple[float, float]]) -> None:
        touches = [{"x": x, "y": y} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    send("touchStart", [start])
    for step in steps:
        send("touchMove", [step])
    send("touchEnd", [])
    session.detach()


def middle_of(page: Page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + min(box["height"], 844 - box["y"]) / 2


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("drag", ["Lasso", "Box", "Pan"])
def test_finger_scrolls_the_page_over_a_map(phone: Page, name: str, drag: str) -> None:
    link, section = MAPS[name]
    plot = f"{section} {DRAWN}"
    go(phone, link)
    phone.locator(plot).wait_for()
    phone.locator(f"{section} .sv-drag").get_by_text(drag).tap()
    phone.evaluate("scrollTo(0, 0)")
    address = phone.url
    x, y = middle_of(phone, plot)
    swipe(phone, (x, y), [(x + n % 2, y - 15 * n) for n in range(1, 15)])
    phone.wait_for_function("scrollY > 50")
    expect(phone.locator(".sv-selection")).to_be_hidden()
    assert phone.url == address, "nothing is selected"


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("drag", ["Lasso", "Box"])
def test_finger_that_starts_sideways_selects(phone: Page, name: str, drag: str) -> None:
    link, section = MAPS[name]
    plot = f"{section} {DRAWN}"
    go(phone, link)
    phone.locator(plot).wait_for()
    phone.locator(f"{section} .sv-drag").get_by_text(drag).tap()
    x, y = middle_of(phone, plot)
    phone.evaluate("scrollTo(0, 0)")
    steps = [(40 + 25 * n, y - 180 + 30 * n) for n in range(13)]
    around = [(40 + 25 * n, y - 180) for n in range(13)]
    around += [(340, y - 180 + 30 * n) for n in range(13)]
    around += [(340 - 25 * n, y + 180) for n in range(13)]
    around += [(40, y + 180 - 30 * n) for n in range(12)]
    swipe(phone, (20, y - 180), steps if drag == "Box" else around)
    if name == "images":
        expect(phone.locator(".sv-selection [role=status]")).to_contain_text("selected")
    else:
        phone.wait_for_url("**only:*")
    assert phone.evaluate("scrollY") == 0


def test_tap_on_a_map_opens_what_is_there(phone: Page, tiny_engine) -> None:
    go(phone, MAPS["dimensions"][0])
    drawn(phone)
    dimensions = layout(tiny_engine)
    one = most_isolated(dimensions.positions)
    phone.touchscreen.tap(*at(phone, dimensions.positions[one]))
    phone.wait_for_url(f"**dimension={int(dimensions.dimensions[one])}&**")
    go(phone, MAPS["images"][0])
    drawn(phone)
    phone.touchscreen.tap(
        *at(phone, tiny_engine.item_positions[most_isolated(tiny_engine.item_positions)])
    )
    expect(phone.get_by_role("dialog")).to_be_visible()


def test_finger_scrolls_the_page_over_a_plot(phone: Page) -> None:
    go(phone, "?tab=dimensions&dimension=0")
    plot = ".sv-plot"
    phone.locator(f"{plot} .main-svg").first.wait_for()
    phone.locator(plot).first.evaluate("plot => plot.scrollIntoView({ block: 'center' })")
    before = phone.evaluate("scrollY")
    x, y = middle_of(phone, plot)
    swipe(phone, (x, y), [(x + n % 2, y + 15 * n) for n in range(1, 15)])
    phone.wait_for_function("before => scrollY < before - 50", arg=before)


@pytest.mark.parametrize("tab", TABS)
def test_tab_fits_a_phone_and_its_chips_can_be_touched(phone: Page, tab: str) -> None:
    link, shown = TABS[tab]
    go(phone, link)
    phone.locator(shown).first.wait_for(state="attached")
    settle(phone)
    assert not has_sideways_scroll(phone)
    assert phone.evaluate("visualViewport.scale") == 1
    heights = phone.locator(".sv-query-term, .sv-query-term button").evaluate_all(
        "all => all.filter(one => one.checkVisibility())"
        ".map(one => [one.getBoundingClientRect().height, one.textContent])"
    )
    assert [one for one in heights if one[0] < SMALLEST] == []
    expected = {"search": 4 * 4 + 2 * 3, "dimensions": 6, "inspect": 6, "compare": 6}
    assert len(heights) == expected.get(tab, 0)


def test_terms_take_one_row_that_scrolls(phone: Page) -> None:
    go(phone, f"?{CHIPS}")
    for name in ("Terms to find", "Terms to exclude"):
        row = phone.get_by_role("list", name=name)
        first, last = row.locator(".sv-query-term").first, row.locator(".sv-query-term").last
        assert first.bounding_box()["y"] == last.bounding_box()["y"]  # type: ignore[index]
        last.scroll_into_view_if_needed()
        expect(last.get_by_role("button", name="Remove")).to_be_in_viewport()


@pytest.mark.parametrize(
    "query",
    [
        CHIPS,
        "q=2:a+circle+%2B+a+square+%2B+0.5:red&without=the+snow",
        "q=a+circle&without=the+snow",
    ],
)
def test_first_result_is_on_the_first_screen(phone: Page, query: str) -> None:
    go(phone, f"?{query}")
    expect(phone.locator(".sv-group-off")).to_be_visible()
    settle(phone)
    phone.evaluate("scrollTo(0, 0)")
    top = phone.locator(".sv-columns .sv-tile img").first.bounding_box()
    assert top and top["y"] <= 560
    note = phone.locator(".sv-notes li").filter(has_text="Read as")
    if note.count():  # it repeats the chips, so it is only read aloud
        expect(note).not_to_be_in_viewport(ratio=0.9)
        assert "“the snow”" in note.inner_text()
    everything = phone.get_by_role("group", name="Switch all dimensions").locator("visible=true")
    everything.get_by_role("button", name="All off").tap()
    settle(phone)
    expect(phone.locator(".sv-empty")).to_contain_text("All dimensions of the query are off.")
    phone.set_viewport_size({"width": 1280, "height": 844})
    expect(phone.locator(".sv-list-head .sv-bulk")).to_be_visible()


def test_values_of_the_filter_can_be_touched(phone: Page) -> None:
    go(phone, "?q=a+circle")
    phone.get_by_role("button", name="Filter", exact=True).tap()
    panel = phone.get_by_role("dialog", name="Filter images")
    values = panel.locator("button, input")
    values.nth(1).wait_for()
    sizes = values.evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert len(sizes) > 3 and min(sizes) >= SMALLEST
    box = panel.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert not has_sideways_scroll(phone)
