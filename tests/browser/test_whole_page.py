"""Test all pages: accessibility, both widths and no external requests."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from browser.steps import (
    COLOURS,
    go,
    has_sideways_scroll,
    preview,
    search,
    settle,
    use_dark_mode,
    violations,
)

PLACES = {
    "landing": ("", ""),
    "search": ("?q=a+circle&without=the+snow&compare=1", ""),
    "filtered dimension": (
        "?tab=dimensions&dimension=0&where=split:test+not+caption:snow",
        ".sv-page-body .sv-facets li",
    ),
    "map": ("?tab=dimensions&dimension=0&atlas=map:agreement", ".sv-map-plot[data-drawn]"),
    "items": ("?tab=dimensions&atlas=items:split%3Atest", ".sv-item-map [data-drawn]"),
    "inspect": (
        "?q=a+circle&without=the+snow&tab=inspect&inspect=left:a+circle",
        ".sv-why-table",
    ),
    "pair": (
        "?tab=inspect&inspect=left:a+circle,right:a+red+square",
        ".sv-pair .sv-group .sv-dim",
    ),
    "compare": ("?q=a+circle&without=the+snow&tab=compare", ".sv-compare-columns dd"),
    "terms": (
        "?q=2:a+circle+%2B+a+square&without=the+snow,night&where=split:test+not+caption:rain",
        ".sv-facets li",
    ),
    "filtered pair": (
        "?q=a+circle&tab=inspect&inspect=left:a+circle&where=split:test",
        ".sv-one .sv-grid img",
    ),
    "filtered compare": ("?q=a+circle&tab=compare&where=split:test", ".sv-compare-grid img"),
    "figure": ("?q=a+circle&without=the+snow&tab=figure", ""),
    "figure rows": (
        '?tab=figure&figure={"rows":[{"query":"a circle"},{"dimensions":[1,2]},'
        '{"difference":["label:snow","not label:snow"],"concepts":2}],"columns":4}',
        "",
    ),
    "benchmark": ("?tab=benchmark", ".sv-bench-empty"),
}
"""Address of each page, and a selector to wait for."""
WITH_FILTER = ("terms", "filtered dimension", "filtered pair", "filtered compare")
"""Pages that are checked again with the panel of the filter open."""


@pytest.mark.parametrize("place", PLACES)
def test_page_is_accessible_without_horizontal_scrolling(page: Page, place: str) -> None:
    address, shown = PLACES[place]
    go(page, address)
    if shown:
        page.locator(shown).first.wait_for(state="attached")
    if place.startswith("figure"):
        preview(page)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert not has_sideways_scroll(page), width
    page.set_viewport_size({"width": 1280, "height": 844})
    if place == "search":
        assert not violations(page)
        for opener in (
            page.get_by_role("button", name="Export", exact=True),
            page.locator("summary", has_text="Save"),
        ):
            opener.locator("visible=true").click()
            assert not violations(page)
            use_dark_mode(page)
            assert not violations(page, COLOURS)
            page.emulate_media(color_scheme="light")
            page.keyboard.press("Escape")
        page.locator(".sv-tile-open").first.click()
        page.get_by_role("dialog").wait_for()
    if place in WITH_FILTER:
        assert not violations(page)
        page.get_by_role("button", name="Filter", exact=True).press("Enter")
        page.locator(".sv-filter-panel .sv-facet").first.wait_for()
    if place == "figure rows":
        assert page.get_by_role("alert").locator("visible=true").all_inner_texts() == []
        page.get_by_label("Zoom of the preview").select_option("200%")
    if place == "map":
        page.locator("summary", has_text="Filters").click()
    assert not violations(page)
    use_dark_mode(page)
    assert not violations(page, COLOURS)


def test_page_loads_nothing_from_other_hosts(page: Page, address: str) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    go(page, "?q=a+circle&without=the+snow")
    page.get_by_role("tab", name="Dimensions").click()
    page.locator(".sv-table tbody a").first.click()
    page.locator(".sv-plot .main-svg").first.wait_for()
    settle(page)
    outside = [url for url in requested if not url.startswith((address, "data:", "blob:"))]
    assert requested and not outside


def test_images_of_the_next_results_are_loaded_in_advance(page: Page) -> None:
    go(page)
    loaded: list[str] = []
    page.on("response", lambda one: loaded.append(one.url))
    with page.expect_response(lambda one: "sieve_ask" in (one.request.post_data or "")) as found:
        search(page, "a circle")
    image = f"{found.value.json()['next'][-1]}.webp"
    for _ in range(300):
        if any(url.endswith(image) for url in loaded):
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail(f"{image} was not loaded")


def test_results_do_not_shift(page: Page) -> None:
    go(page, "?q=a+circle")
    grid = page.locator(".sv-columns > .sv-grid")
    before = grid.bounding_box()
    page.locator(".sv-group-on input").first.uncheck()
    settle(page)
    assert grid.bounding_box()["y"] == before["y"]  # type: ignore[index]
