"""Test the Dimensions tab: map, filters, keyboard and the effect of switching off."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from browser.conftest import PAYLOAD
from browser.steps import found, go, search, settle
from browser.test_dimensions import live, rows
from sieve.model.dimensions.map import dimension_map
from sieve.model.dimensions.page import ablate_dimension
from sieve.model.engine import SearchEngine

MAP = "?tab=dimensions&atlas=map:agreement"
WHOLE = 1.06
"""Half of the extent of the map in both directions."""


def drawn(page: Page) -> Locator:
    plot = page.locator(".sv-map-plot[data-drawn]")
    plot.wait_for(timeout=60_000)
    return plot


def layout(engine: SearchEngine):
    return dimension_map(engine.collection, engine.checkpoint, engine.derived)


def at(page: Page, position: Any) -> tuple[float, float]:
    """Return the page position of a point of the map."""
    box = page.locator(".sv-map-plot[data-drawn]").last.bounding_box()
    assert box
    share = (np.asarray(position) + WHOLE) / (2 * WHOLE)
    x, y = share.tolist()
    return box["x"] + box["width"] * x, box["y"] + box["height"] * (1 - y)


def widest_gap(values: np.ndarray) -> float:
    """Find the middle of the widest gap in the middle half: no value is near it."""
    middle = np.sort(values)[len(values) // 4 : -len(values) // 4]
    below = int(np.diff(middle).argmax())
    return float(middle[below : below + 2].mean())


def most_isolated(positions: np.ndarray) -> int:
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    return int((apart + 9 * np.eye(len(apart))).min(1).argmax())


def test_selection_on_the_map_is_listed_and_restored_and_a_click_opens(
    page: Page, tiny_engine
) -> None:
    go(page, MAP)
    drawn(page)
    known = layout(tiny_engine)
    page.get_by_text("Box", exact=True).click()
    page.mouse.move(*at(page, (-1.03, -1.03)))
    page.mouse.down()
    page.mouse.move(*at(page, (-0.5, 0)), steps=4)
    page.mouse.move(*at(page, (0, 1.03)), steps=4)
    page.mouse.up()
    inside = known.dimensions[known.positions[:, 0] < 0].tolist()
    assert 0 < len(inside) < len(known.dimensions)
    expect(page.locator(".sv-found")).to_contain_text(f"{len(inside)} selected on the map")
    assert sorted(rows(page)) == inside
    page.wait_for_url("**atlas=map:agreement+only:**")
    page.reload()
    settle(page)
    drawn(page)
    assert sorted(rows(page)) == inside
    expect(page.get_by_role("combobox", name="Coloured by")).to_have_value("agreement")
    clear = page.get_by_role("button", name="Clear", exact=True)
    clear.click()
    assert len(rows(page)) == len(tiny_engine.dimension_table())

    page.get_by_text("Lasso", exact=True).click()
    low = widest_gap(known.positions[:, 1])
    page.mouse.move(*at(page, (-1.04, low)))
    page.mouse.down()
    for corner in ((1.04, low), (1.04, 1.04), (-1.04, 1.04), (-1.04, low)):
        page.mouse.move(*at(page, corner), steps=3)
    page.mouse.up()
    inside = known.dimensions[known.positions[:, 1] > low].tolist()
    expect(page.locator(".sv-found")).to_contain_text(f"{len(inside)} selected on the map")
    assert sorted(rows(page)) == inside
    clear.click()

    one = most_isolated(known.positions)
    dimension = int(known.dimensions[one])
    page.mouse.move(*at(page, known.positions[one]))
    expect(page.locator(".sv-map-tip")).to_have_text(re.compile(rf"#{dimension} .*· agreement"))
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**dimension={dimension}&**")
    name = tiny_engine.name_of(dimension)
    expect(page.get_by_role("heading", level=2, name=name)).to_be_visible()


@pytest.mark.parametrize(
    "atlas", ["map:nonsense+images:a..b+sort:toString+x:1", "only:99999999-999999999", "only:"]
)
def test_invalid_filters_in_the_url_are_ignored(page: Page, tiny_engine, atlas: str) -> None:
    go(page, f"?tab=dimensions&atlas={atlas}")
    page.locator(".sv-found", has_text="64 dimensions").wait_for()
    assert len(tiny_engine.dimension_table()) == 64


def test_filters_narrow_the_list_and_are_stored_in_the_url(page: Page, tiny_engine) -> None:
    go(page, "?tab=dimensions")
    page.locator(".sv-table tbody tr").first.wait_for()
    page.locator("summary", has_text="Filters").click()
    page.get_by_label("Images from, in %").fill("5")
    page.get_by_label("Agreement from").fill("0.3")
    table = tiny_engine.dimension_table()
    wanted = table[(table["firing_images"] >= 0.05) & (table["agreement"] >= 0.3)]["dimension"]
    assert 0 < len(wanted) < len(table)
    assert sorted(rows(page)) == wanted.tolist()
    expect(page.locator(".sv-found")).to_contain_text(f"{len(wanted)} of {len(table)}")
    page.wait_for_url("**atlas=images:0.05..+agreement:0.3..&**")
    page.reload()
    settle(page)
    page.locator("summary", has_text="Filters · 2 on").click()
    assert sorted(rows(page)) == wanted.tolist()
    page.get_by_label("Agreement from").fill("2")
    expect(page.get_by_text("No dimension matches all filters.")).to_be_visible()
    page.get_by_role("button", name="Clear all filters").click()
    assert len(rows(page)) == len(table)


def test_map_can_be_navigated_by_keyboard(page: Page) -> None:
    go(page, "?tab=dimensions")
    page.locator(".sv-table tbody tr").first.wait_for()
    order = rows(page)
    shown = page.locator(".sv-table tr[aria-selected=true]").get_attribute("data-d")
    first = order.index(type(order[0])(shown))
    for key, position in (("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        page.wait_for_url(f"**dimension={order[(first + position) % len(order)]}&**")
    page.keyboard.press("r")
    page.wait_for_function(f"Sieve.viewState.dimension !== {order[first]}")
    page.keyboard.press("/")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    page.keyboard.type("#7")
    page.keyboard.press("Enter")
    page.wait_for_url("**dimension=7&**")
    expect(page.locator(".sv-page h2")).to_be_focused()  # focus continues there
    page.keyboard.press("/")
    expect(box).to_be_focused()
    box.fill("#7777")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There is no dimension 7777. Enter a number")).to_be_visible()
    page.keyboard.press("Escape")  # empties the field
    page.keyboard.press("Escape")  # leaves it
    expect(box).not_to_be_focused()
    page.keyboard.press("Escape")
    page.wait_for_function("Sieve.viewState.dimension === null")
    expect(page.get_by_text("Choose a dimension")).to_be_visible()
    page.locator("summary", has_text="Shortcuts").click()
    page.get_by_label("Enable shortcuts").uncheck()
    page.keyboard.press("Escape")  # closes the panel
    page.keyboard.press("j")
    assert page.evaluate("Sieve.viewState.dimension") is None


def test_page_shows_the_effect_of_switching_a_dimension_off(page: Page, tiny_engine) -> None:
    opened = (tiny_engine.collection, tiny_engine.checkpoint, tiny_engine.derived)
    dimension = live(tiny_engine)
    known = ablate_dimension(*opened, dimension)
    assert known.changes and known.n_changed
    go(page, f"?tab=dimensions&dimension={dimension}")
    page.locator(".sv-probe").scroll_into_view_if_needed()
    page.locator(".sv-change").first.wait_for()
    requested = page.locator(".sv-query-text").all_inner_texts()
    assert requested == [f"“{change.text}”" for change in known.changes]
    first = known.changes[0]
    rows_of = page.locator(".sv-change").first.locator(".sv-top-ten")
    for row, wanted in ((0, first.before), (1, first.after)):
        shown = rows_of.nth(row).locator("img").evaluate_all("i => i.map(x => x.src)")
        assert [src.rsplit("/", 1)[1] for src in shown] == [f"{one.id}.webp" for one in wanted]
    assert rows_of.first.locator(".sv-left-top").count() == first.left
    page.get_by_role("button", name="Try this search").first.click()
    page.wait_for_url(f"**off={dimension}&**")
    settle(page)
    assert found(page)


def test_pages_of_dimensions_list_searches_of_the_session(page: Page, tiny_engine) -> None:
    go(page)
    search(page, "a red circle", "the snow")
    used = {
        active.dimension for active in tiny_engine.encode("a red circle", "the snow").dimensions
    }
    unused = next(j for j in range(64) if j not in used)
    page.evaluate("d => Sieve.showDimension(d)", min(used))
    link = page.locator(".sv-used").get_by_role("link", name="a red circle without the snow")
    link.wait_for()
    page.evaluate("d => Sieve.showDimension(d)", unused)
    page.locator(".sv-page-head", has_text=f"#{unused}").wait_for()
    expect(link).to_have_count(0)
    page.evaluate("d => Sieve.showDimension(d)", min(used))
    link.click()
    settle(page)
    expect(page.get_by_role("textbox", name="without")).to_have_value("the snow")


def test_markup_in_names_on_the_map_is_escaped(page: Page, hostile_address: str) -> None:
    page.goto(f"{hostile_address}/{MAP}")
    settle(page)
    labels = drawn(page).locator(".textpoint text")
    labels.first.wait_for()
    assert labels.first.text_content() == f"{PAYLOAD[:17]}…"
    assert page.evaluate("window.pwned") is None


def test_selection_of_images_filters_the_search_and_is_compared(page: Page, tiny_engine) -> None:
    go(page, "?tab=dimensions&atlas=items:split%3Atest")
    part = page.locator(".sv-item-map")
    part.locator(".sv-map-plot[data-drawn]").wait_for(timeout=60_000)
    n_test = int((tiny_engine.collection.items["split"] == "test").sum())
    expect(part.locator(".sv-scale")).to_contain_text(f"{n_test} images")
    known = tiny_engine.item_positions
    one = most_isolated(known)
    page.mouse.move(*at(page, known[one]))
    expect(part.locator(".sv-map-tip img")).to_have_attribute(
        "src", re.compile(tiny_engine.collection.items["id"].iloc[one])
    )
    part.get_by_text("Box", exact=True).click()
    page.mouse.move(*at(page, (-1.03, -1.03)))
    page.mouse.down()
    page.mouse.move(*at(page, (-0.5, 0)), steps=4)
    page.mouse.move(*at(page, (0, 1.03)), steps=4)
    page.mouse.up()
    chosen = page.get_by_role("group", name="Selected images")
    chosen.get_by_text(re.compile(r"\d+ images selected")).wait_for()
    n = int(chosen.get_by_role("status").inner_text().split()[0])
    assert abs(n - int((known[:, 0] < 0).sum())) <= 2  # the pointer is placed by whole pixels
    chosen.get_by_role("button", name="Compare with all others").press("Enter")
    expect(page.locator(".sv-sets-summary")).to_contain_text(f"between {n} images")
    page.go_back()
    chosen.get_by_role("button", name="Filter the search").press("Enter")
    page.wait_for_url("**where=map:*")
    search(page, "a circle")
    (where,) = page.evaluate("[Sieve.viewState.where]")
    results = tiny_engine.search(tiny_engine.encode("a circle"), where=where).results
    assert found(page) == [result.id for result in results]
