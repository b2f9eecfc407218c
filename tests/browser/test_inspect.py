"""Test the Inspect tab: one input, two inputs, and why one result ranks above another."""

from __future__ import annotations

import re

import numpy as np
from playwright.sync_api import Locator, Page, expect

from browser.steps import dimensions_of, go, search, settle


def inspect(page: Page, left: str = "", right: str = "") -> None:
    page.get_by_role("textbox", name="Left: text").fill(left)
    page.get_by_role("textbox", name="Right: text").fill(right)
    page.get_by_role("button", name="Inspect", exact=True).click()
    settle(page)


def retrieved(page: Page) -> list[str]:
    tiles = page.locator(".sv-one .sv-grid .sv-tile")
    return tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.id)")


def switches_of(page: Page) -> Locator:
    """Locate the checkboxes of the concepts of the input."""
    return page.locator(".sv-one .sv-dim > label > input[type=checkbox]")


def test_text_is_decomposed_and_its_dimensions_switched(page: Page, tiny_engine) -> None:
    go(page, "?tab=inspect")
    inspect(page, "a circle")
    expect(switches_of(page).first).to_be_checked()
    query = tiny_engine.encode("a circle")
    strongest = max(query.concepts, key=lambda concept: concept.strength)
    off = tuple(sorted(part.dimension for part in strongest.dimensions))
    assert retrieved(page) == [result.id for result in tiny_engine.search(query, top=12).results]
    switches_of(page).first.uncheck()
    settle(page)
    expected = tiny_engine.search(query, off, top=12).results
    assert retrieved(page) == [result.id for result in expected]
    assert f"inspect=left:a+circle,off:{'+'.join(map(str, off))}" in page.url
    page.reload()
    settle(page)
    expect(switches_of(page).first).not_to_be_checked()
    assert retrieved(page) == [result.id for result in expected]


def test_dimensions_of_another_checkpoint_are_not_off(page: Page, tiny_engine) -> None:
    strongest = tiny_engine.encode("a circle").dimensions[0].dimension
    go(page, f"?tab=inspect&inspect=left:a+circle,off:{strongest}&checkpoint=another")
    for box in switches_of(page).all():
        expect(box).to_be_checked()


def test_fast_clicks_end_in_the_last_state(page: Page, tiny_engine) -> None:
    go(page, "?tab=inspect&inspect=left:a+circle")
    query = tiny_engine.encode("a circle")
    for at in range(4):
        switches_of(page).nth(at).uncheck()
    switches_of(page).nth(1).check()
    settle(page)
    off = tuple(j for at in (0, 2, 3) for j in dimensions_of(switches_of(page).nth(at)))
    expected = tiny_engine.search(query, off, top=12).results
    assert retrieved(page) == [result.id for result in expected]


def test_image_and_text_are_shown_side_by_side(page: Page, tiny_engine) -> None:
    item = tiny_engine.collection.items["id"].iloc[0]
    go(page, "?tab=inspect")
    inspect(page, item, "a circle")
    shared = page.locator(".sv-pair .sv-group .sv-dim")
    image, text = tiny_engine.image_codes.dense(0), tiny_engine.encode("a circle").code
    concepts = tiny_engine.concepts.grouped(np.flatnonzero((image > 0) & (text > 0)).tolist())
    expect(shared).to_have_count(len(concepts))
    expect(page.get_by_text("cosine of embeddings")).to_be_visible()
    expect(page.get_by_text("Only left")).to_be_visible()
    assert f"left-item:{item},right:a+circle" in page.url or (
        f"right:a+circle,left-item:{item}" in page.url
    )
    page.reload()
    settle(page)
    expect(shared.first).to_be_visible()
    page.get_by_role("button", name="Clear the left slot").click()
    settle(page)
    expect(page.locator(".sv-one")).to_be_visible()


def test_unknown_item_in_the_url_shows_one_line(page: Page, tiny_engine) -> None:
    item = tiny_engine.collection.items["id"].iloc[0]
    go(page, f"?tab=inspect&inspect=left-item:{item},right:a+circle")
    expect(page.locator(".sv-pair .sv-dim").first).to_be_visible()
    for slot in ("left-item:{}", "right:a+square,left-item:{}", "left:{}"):
        go(page, f"?tab=inspect&inspect={slot.format('0' * 16)}")
        line = page.locator(".sv-fault:visible")
        expect(line).to_contain_text("0" * 16)
        assert "\n" not in line.inner_text() and len(line.inner_text()) < 300
        for shown in page.locator(".sv-one, .sv-pair").all():
            expect(shown).to_be_hidden()


def test_uploaded_image_cannot_be_linked(page: Page, pictures) -> None:
    go(page, "?tab=inspect")
    page.get_by_label("Left: image file").set_input_files(pictures / "images" / "003.png")
    page.locator(".sv-one .sv-dim").first.wait_for()
    expect(page.get_by_text("Links to this view do not include your image")).to_be_visible()
    assert "inspect=" not in page.url


def test_result_is_explained_against_the_next_one(page: Page, tiny_engine) -> None:
    go(page)
    search(page, "a circle", "the snow")
    results = tiny_engine.search(tiny_engine.encode("a circle", "the snow")).results
    page.locator(f".sv-columns .sv-tile[data-id='{results[1].id}'] .sv-tile-open").click()
    page.get_by_role("button", name="Why this rank?").click()
    standing = page.locator(".sv-why-rank")
    expect(standing.first).to_contain_text("number 2 with")
    expect(standing.last).to_contain_text("number 3 with")
    expect(page.locator(".sv-why-sentence")).to_contain_text("ahead: #")
    expect(page.get_by_role("textbox", name="Explain: find")).to_have_value("a circle")
    page.get_by_text("Choose another image for the right").click()
    page.locator(".sv-why-item").last.get_by_role("button", name="Number 1:").click()
    expect(standing.last).to_contain_text("number 1 with")
    settle(page)
    assert f"a:{results[1].id},b:{results[0].id}" in page.url
    page.reload()
    settle(page)
    expect(standing.last).to_contain_text("number 1 with")
    expect(standing.first).to_contain_text("number 2 with")


def test_item_can_be_inspected_from_its_details(page: Page) -> None:
    go(page)
    page.locator(".sv-tile-open").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Inspect").click()
    page.locator(".sv-one .sv-dim").first.wait_for()
    expect(page.get_by_role("tab", name="Inspect")).to_have_attribute("aria-selected", "true")


def test_the_picture_shows_where_it_has_a_concept(page: Page) -> None:
    go(page, "?q=a+red+circle")
    page.locator(".sv-tile-open").first.click()
    where = page.get_by_role("dialog").get_by_role("button", name="Show where").first
    where.click()
    legend = page.locator(".sv-where-legend")
    expect(legend).to_have_text(re.compile("^(Bright: without this part|No single part)"))
    expect(page.locator(".sv-detail-picture canvas")).to_be_visible(
        visible=(legend.text_content() or "").startswith("Bright")
    )
    where.click()
    expect(where).to_have_attribute("aria-pressed", "false")
    expect(legend).to_be_empty()
