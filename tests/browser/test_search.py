"""Test searching, switching dimensions and reading results in the browser."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import PLACES, SHAPES
from playwright.sync_api import Locator, Page, expect

from browser.steps import dimensions_of, found, go, search, settle, switches, violations
from sieve.model.exclusion import Strictness


def test_toggle_changes_the_results_and_second_toggle_restores_them(page: Page) -> None:
    go(page)
    search(page, "a red circle")
    before = found(page)
    assert len(before) == 24
    switch = switches(page).first
    switch.uncheck()
    settle(page)
    assert found(page) != before
    switch.check()
    settle(page)
    assert found(page) == before


def test_toggle_counts_and_does_not_move_the_list_or_the_tiles(page: Page) -> None:
    go(page, "?q=a+red+circle")
    title = page.locator(".sv-group-on h3")
    n = page.locator(".sv-group-on .sv-dim").count()
    expect(title).to_have_text(f"In “a red circle” · {n}")
    page.evaluate("for (const n of document.querySelectorAll('.sv-dim, .sv-tile')) n.marked = true")
    shown = set(found(page))
    switches(page).first.uncheck()
    settle(page)
    expect(title).to_have_text(f"In “a red circle” · {n - 1} of {n} on")
    rows = "[...document.querySelectorAll('.sv-dim')].every(row => row.marked)"
    assert page.evaluate(rows)
    saved = page.locator(".sv-columns > .sv-grid > .sv-tile").evaluate_all(
        "tiles => tiles.filter(tile => tile.marked).map(tile => tile.dataset.id)"
    )
    assert set(saved) == shown & set(found(page))


def test_results_are_those_of_the_engine_and_explained(page: Page, tiny_engine) -> None:
    go(page, "?q=a+circle&without=the+snow")
    query = tiny_engine.encode("a circle", "the snow")
    outcome = tiny_engine.search(query)
    assert found(page) == [result.id for result in outcome.results]
    badges = page.locator(".sv-columns > .sv-grid .sv-badge").all_inner_texts()
    for badge, result in zip(badges, outcome.results, strict=True):
        up = None if result.rank_before is None else result.rank_before - result.rank
        expected = "new" if up is None else "=" if up == 0 else f"{'▲' if up > 0 else '▼'}{abs(up)}"
        assert badge == expected

    page.locator(".sv-columns > .sv-grid .sv-tile-open").first.click()
    detail = page.get_by_role("dialog")
    section = detail.locator("section").first
    more = section.get_by_role("button", name="Show all")
    if more.count():
        more.click()
    shown = section.locator(".sv-bars > li:not(.sv-bars-member) > .sv-value").all_inner_texts()
    values = [float(text.replace("−", "-")) for text in shown]
    concepts = outcome.results[0].concepts
    assert len(values) == len(concepts)
    assert abs(sum(values) - outcome.results[0].score) < 0.005 * len(values)
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()

    word = page.get_by_role("button", name="Strictness")
    word.press("Enter")
    expect(page.locator(".sv-bubble")).to_contain_text("they lower the score of results")
    expect(word).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".sv-bubble")).to_be_hidden()
    expect(word).to_be_focused()

    page.get_by_label("Show backbone").check()
    settle(page)
    dense = tiny_engine.search_dense(query)
    tiles = page.locator(".sv-dense .sv-tile")
    assert tiles.evaluate_all("t => t.map(x => x.dataset.id)") == [r.id for r in dense]
    both = {result.id for result in dense} & set(found(page))
    assert page.locator(".sv-dense .sv-badge-both").count() == len(both)


def test_never_drops_results_and_all_off_leaves_none(page: Page, tiny_engine) -> None:
    go(page, "?q=a+circle&without=the+snow&strictness=never")
    outcome = tiny_engine.search(
        tiny_engine.encode("a circle", "the snow"), None, Strictness(never=True)
    )
    assert found(page) == [result.id for result in outcome.results]
    gone = page.locator(".sv-dropped")
    assert gone.count() == len(outcome.left)
    summary = page.get_by_role("status").filter(has_text="off")
    entered = sum(result.rank_before is None for result in outcome.results)
    assert f"{entered} new, {len(outcome.left)} dropped" in summary.inner_text()
    search(page, "a circle")
    page.get_by_role("button", name="All off").first.click()
    settle(page)
    expect(page.locator(".sv-results .sv-columns .sv-tile")).to_have_count(0)
    expect(page.locator(".sv-results .sv-empty")).to_contain_text(
        "All dimensions of the query are off"
    )
    expect(page.get_by_text("Switch at least one on")).to_be_visible()
    search(page, "")
    expect(page.get_by_text("Enter something to find.")).to_be_visible()
    expect(page.locator(".sv-fault")).to_be_empty()


def test_all_on_all_off_and_reset_change_the_results(page: Page) -> None:
    go(page, "?q=a+circle&without=the+snow")
    page.evaluate(
        "window.writes = 0; new MutationObserver((all) => { writes += all.length; })"
        ".observe(document.querySelector('.sv-columns > .sv-grid'),"
        " { subtree: true, childList: true, characterData: true })"
    )
    page.evaluate("Sieve.change({ off: [...Sieve.query().off] })")
    settle(page)
    assert page.evaluate("writes") == 0, "a change without effect rewrites no result"
    every = page.locator(".sv-dim input[type=checkbox]")
    start, before = [box.is_checked() for box in every.all()], found(page)
    page.get_by_role("button", name="All on").click()
    settle(page)
    assert all(box.is_checked() for box in every.all())
    assert page.evaluate("writes") > 0 and found(page) != before
    page.get_by_role("button", name="All off").click()
    assert not any(box.is_checked() for box in every.all())
    page.get_by_role("button", name="Reset").click()
    settle(page)
    assert [box.is_checked() for box in every.all()] == start
    assert found(page) == before


def test_wording_is_split_explained_or_rejected(page: Page) -> None:
    go(page)
    search(page, "", "snow")
    expect(page.get_by_role("alert").filter(has_text="Enter something to find")).to_be_visible()
    find, without = (page.get_by_role("textbox", name=name) for name in ("Find", "without"))
    search(page, "a circle but not in the snow")
    expect(without).to_have_value("the snow")
    expect(page.get_by_text("Read as “a circle” without “the snow”.")).to_be_visible()
    search(page, "a circle - snow")
    expect(
        page.get_by_text("“-” was searched as written, not read as an exclusion.")
    ).to_be_visible()
    page.get_by_role("button", name="Search a circle without snow").click()
    expect(without).to_have_value("snow")
    expect(page.locator(".sv-suggestion")).to_be_hidden()
    settle(page)
    assert found(page)
    find.fill("")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("Enter something to find; “without” only excludes.")).to_be_visible()
    expect(page.locator(".sv-results .sv-tile")).to_have_count(0)
    search(page, "a circle")
    assert found(page)
    find.fill("not a circle")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".sv-fault").first).to_contain_text("Nothing to search for")
    expect(page.locator(".sv-results .sv-tile")).to_have_count(0)


def test_search_by_upload_survives_a_reload_and_an_error_marks_old_results(
    page: Page, pictures: Path, tiny_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(page)
    page.locator("input[type=file]").first.set_input_files(pictures / "images" / "003.png")
    expect(page.get_by_text("your image")).to_be_visible()
    settle(page)
    switches(page).first.uncheck()
    settle(page)
    before = found(page)
    page.reload()
    settle(page)
    assert found(page) == before
    expect(page.get_by_text("your image")).to_be_visible()
    assert not switches(page).first.is_checked()

    with monkeypatch.context() as patch:
        patch.setattr(tiny_engine, "search", Mock(side_effect=ValueError("the disk is full")))
        switches(page).first.check()
        settle(page)
        expect(page.locator(".sv-messages .sv-fault").first).to_have_text("The disk is full.")
        expect(page.locator(".sv-summary")).to_have_text("Previous results, from before the error")
    switches(page).nth(1).uncheck()
    settle(page)
    expect(page.locator(".sv-summary")).to_contain_text("24 results")

    page.evaluate(
        "history.replaceState({ ...history.state,"
        " search: { ...history.state.search, upload: '0'.repeat(16) } }, '')"
    )
    page.reload()
    settle(page)
    expect(page.locator(".sv-messages .sv-fault").first).to_contain_text("no longer stored")
    assert found(page) == []


def test_without_proposes_off_dimensions_at_the_top(page: Page, tiny_engine) -> None:
    go(page)
    search(page, "a circle", "the snow")
    proposed = tiny_engine.encode("a circle", "the snow").proposed
    off = switches(page, "off")
    concepts = tiny_engine.concepts.grouped(proposed)
    listed = [tiny_engine.concepts.leading(dimensions_of(row)[0]) for row in off.all()]
    assert listed == list(concepts)
    assert not any(row.is_checked() for row in off.all())
    assert all(row.is_checked() for row in switches(page).all())


def test_fast_clicks_end_in_the_last_state(page: Page, tiny_engine) -> None:
    go(page, "?q=a+red+circle")
    boxes = switches(page)
    clicks = [0, 1, 2, 0, 1, 0, 3, 2, 0, 1]
    page.evaluate(
        "clicks => { const boxes = document.querySelectorAll('.sv-group-on .sv-dim > label input');"
        " for (const i of clicks) boxes[i].click(); }",
        clicks,
    )
    settle(page)
    switched = [i for i in range(4) if clicks.count(i) % 2]
    off = tuple(j for i in switched for j in dimensions_of(boxes.nth(i)))
    assert off
    outcome = tiny_engine.search(tiny_engine.encode("a red circle"), off)
    assert found(page) == [result.id for result in outcome.results]
    assert f"off={','.join(map(str, sorted(off)))}" in page.url


def test_strictness_ignores_subtracts_or_removes(page: Page, tiny_engine) -> None:
    go(page, "?q=a+circle&without=the+snow")
    query = tiny_engine.encode("a circle", "the snow")
    for word, strictness, never in (("ignore", 0.0, False), ("never", 1.0, True)):
        page.get_by_text(word, exact=True).click()
        settle(page)
        outcome = tiny_engine.search(query, None, Strictness(strictness, never))
        assert found(page) == [result.id for result in outcome.results], word
    for limit in (0.2, 0.8):
        page.get_by_label("Hide from a probability of").select_option(f"{limit}")
        settle(page)
        outcome = tiny_engine.search(query, None, Strictness(never=True, limit=limit))
        assert found(page) == [result.id for result in outcome.results]
        assert f"strictness=never:{limit}" in page.url
        expect(page.get_by_text(f"Hides images with P(snow) ≥ {limit:.0%}.")).to_be_visible()
        # A result does not show what it claims not to have.
        assert page.locator(".sv-columns .sv-chip-has, .sv-columns .sv-chip-off").count() == 0
    page.reload()
    settle(page)
    assert found(page) == [result.id for result in outcome.results]
    expect(page.get_by_label("Hide from a probability of")).to_have_value("0.8")
    page.get_by_text("push away", exact=True).click()
    slider = page.get_by_role("slider", name="Strictness")
    slider.fill("0.4")
    settle(page)
    outcome = tiny_engine.search(query, None, Strictness(0.4))
    assert found(page) == [result.id for result in outcome.results]
    assert "strictness=0.4" in page.url


def test_reload_and_back_restore_the_state(page: Page) -> None:
    go(page)
    search(page, "a red circle")
    switches(page).nth(1).uncheck()
    settle(page)
    first = found(page)
    page.reload()
    settle(page)
    assert found(page) == first
    assert not switches(page).nth(1).is_checked()
    search(page, "a square", "night")
    second = found(page)
    page.go_back()
    page.wait_for_function("Sieve.viewState.q === 'a red circle'")
    settle(page)
    assert found(page) == first
    expect(page.get_by_role("textbox", name="Find")).to_have_value("a red circle")
    page.go_forward()
    page.wait_for_function("Sieve.viewState.q === 'a square'")
    settle(page)
    assert found(page) == second


def test_more_like_this_searches_by_the_image(page: Page, tiny_engine) -> None:
    go(page, "?q=a+red+circle")
    item = found(page)[2]
    page.locator(".sv-columns > .sv-grid .sv-tile-open").nth(2).click()
    detail = page.get_by_role("dialog")
    row = tiny_engine.row_of(item)
    for caption in tiny_engine.collection.items["captions"].iloc[row]:
        expect(detail.get_by_text(caption).first).to_be_visible()
    detail.get_by_role("button", name="More like this").click()
    settle(page)
    outcome = tiny_engine.search(tiny_engine.encode(item=item))
    assert found(page) == [result.id for result in outcome.results]
    assert f"item={item}" in page.url
    page.reload()
    settle(page)
    assert found(page) == [result.id for result in outcome.results]


def test_search_tab_works_by_keyboard(page: Page) -> None:
    go(page)
    page.get_by_role("textbox", name="Find").focus()
    page.keyboard.type("a red circle")
    page.keyboard.press("Enter")
    settle(page)
    before = found(page)
    switches(page).first.focus()
    page.keyboard.press("Space")
    settle(page)
    assert found(page) != before
    page.locator(".sv-tile-open").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_concept_switches_its_dimensions_and_opens_to_them(page: Page, tiny_engine) -> None:
    texts = [f"a {shape} in the {place}" for shape in SHAPES for place in PLACES]
    text, concept = next(
        (text, one)
        for text in texts
        for one in tiny_engine.encode(text).concepts
        if len(one.dimensions) > 1
    )
    go(page, f"?q={text.replace(' ', '+')}")
    members = sorted(part.dimension for part in concept.dimensions)
    row = page.locator(f".sv-group-on .sv-dim[data-d='{concept.concept}']")
    more = page.locator(".sv-group-on .sv-more")
    if more.count():
        more.click()
    expect(row.locator("> .sv-dim-name .sv-name")).to_have_text(concept.name)
    whole, opener = row.locator("> label > input"), row.get_by_role("button")
    whole.uncheck()
    settle(page)
    assert f"off={','.join(map(str, members))}" in page.url
    whole.check()
    settle(page)
    expect(opener).to_have_text(str(len(members)))
    opener.click()
    parts = row.locator(".sv-member")
    expect(parts.locator(".sv-name").first).to_be_visible()
    wanted = [part.name_in_concept for part in concept.dimensions]
    assert parts.locator(".sv-name").all_inner_texts() == wanted
    parts.locator("input").first.uncheck()
    settle(page)
    first = concept.dimensions[0].dimension
    assert f"off={first}&" in page.url
    outcome = tiny_engine.search(tiny_engine.encode(text), (first,))
    assert found(page) == [result.id for result in outcome.results]
    assert whole.evaluate("box => box.indeterminate && !box.checked")
    page.reload()
    settle(page)
    if more.count():
        more.click()
    assert whole.evaluate("box => box.indeterminate && !box.checked")
    opener.click()
    states = [box.is_checked() for box in parts.locator("input").all()]
    assert states == [False, *[True] * (len(members) - 1)]
    whole.check()
    settle(page)
    assert "off=" not in page.url and all(box.is_checked() for box in parts.locator("input").all())


def test_terms_are_chips_that_move_between_the_fields(page: Page, tiny_engine) -> None:
    def expect_results(text: str, without: str) -> None:
        settle(page)
        outcome = tiny_engine.search(tiny_engine.encode(text, without))
        assert found(page) == [result.id for result in outcome.results]

    to_find = page.get_by_role("list", name="Terms to find").locator(".sv-query-term")
    to_exclude = page.get_by_role("list", name="Terms to exclude").locator(".sv-query-term")
    go(page)
    search(page, "a circle + 2:a square - snow - 0.5 night")
    expect(to_find).to_have_text(["a circle⇄×", "2 × a square⇄×"])
    expect(to_exclude).to_have_text(["snow⇄×", "0.5 × night⇄×"])
    expect_results("a circle + 2:a square", "snow, 0.5:night")
    # By keyboard: the weight, the other field, and away.
    page.get_by_role("button", name="a circle", exact=True).focus()
    page.keyboard.press("ArrowUp")
    expect(to_find.first).to_have_text("2 × a circle⇄×")
    expect_results("2:a circle + 2:a square", "snow, 0.5:night")
    page.get_by_role("button", name="Exclude a square").focus()
    page.keyboard.press("Enter")
    expect(to_exclude).to_have_text(["2 × a square⇄×", "snow⇄×", "0.5 × night⇄×"])
    expect_results("2:a circle", "2:a square, snow, 0.5:night")
    page.get_by_role("button", name="Remove night").press("Enter")
    expect(to_exclude).to_have_count(2)
    # By mouse, and with an image.
    to_exclude.first.drag_to(page.locator(".sv-field-q"))
    expect(to_find).to_have_count(2)
    expect(page.get_by_role("textbox", name="without")).to_have_value("snow")
    expect_results("2:a circle + 2:a square", "snow")
    item = found(page)[0]
    page.locator(".sv-columns > .sv-grid .sv-tile-open").first.click()
    expect(page.get_by_role("list", name="Score by term")).to_contain_text("without snow")
    page.get_by_role("dialog").get_by_role("button", name="Exclude", exact=True).click()
    expect(to_exclude).to_have_count(2)
    expect_results("2:a circle + 2:a square", f"snow, item:{item}")
    shown = found(page)
    page.reload()
    settle(page)
    assert found(page) == shown
    expect(to_exclude.locator("img")).to_be_visible()


def test_filter_is_chosen_by_facet_and_kept_in_the_address(page: Page, tiny_engine) -> None:
    def expect_results(where: str) -> None:
        settle(page)
        outcome = tiny_engine.search(tiny_engine.encode("a circle"), where=where)
        assert found(page) == [result.id for result in outcome.results]

    go(page, "?q=a+circle")
    opener = page.get_by_role("button", name="Filter", exact=True)
    opener.press("Enter")
    panel = page.get_by_role("dialog", name="Filter images")
    box = panel.get_by_role("searchbox")
    expect(box).to_be_focused()
    test = panel.get_by_role("group", name="Split").get_by_role("button", name="test")
    passing = int((tiny_engine.collection.items["split"] == "test").sum())
    expect(test).to_have_text(f"test{passing}")
    test.click()
    expect(test).to_have_attribute("aria-pressed", "true")
    expect(panel.get_by_text(f"{passing} of ")).to_be_visible()
    expect_results("split:test")
    assert "where=split:test" in page.url
    box.fill("label:nothing like this")
    box.press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("selects no item")
    box.fill("not caption:snow")
    box.press("Enter")
    chips = page.get_by_role("list", name="Active filters").get_by_role("listitem")
    expect(chips).to_have_text(["split test×", "not caption word snow×"])
    expect_results("split:test not caption:snow")
    assert not violations(page, {"runOnly": ["wcag2a", "wcag2aa"]})
    page.keyboard.press("Escape")
    page.reload()
    expect_results("split:test not caption:snow")
    page.get_by_role("button", name="Remove filter Split test").press("Enter")
    expect(chips).to_have_count(1)
    expect_results("not caption:snow")
    page.go_back()
    expect(chips).to_have_count(2)
    expect_results("split:test not caption:snow")


def test_filter_is_shared_by_the_tabs_that_list_images(page: Page, tiny_engine) -> None:
    where = "split:test"
    number = tiny_engine.encode("a circle").dimensions[0].dimension
    go(page, f"?q=a+circle&tab=dimensions&dimension={number}")
    opener = page.get_by_role("button", name="Filter", exact=True)
    opener.press("Enter")
    panel = page.get_by_role("dialog", name="Filter images")
    panel.get_by_role("group", name="Split").get_by_role("button", name="test").press("Enter")
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    wanted = tiny_engine.dimension(number, where=where)
    title = page.locator(".sv-page h3", has_text="Top images")
    expect(title).to_contain_text(f"{wanted.passing} image")
    shown = page.locator(".sv-page .sv-gallery").first.locator("img")
    assert ids(shown) == [one.id for one in wanted.top_images]
    assert "where=split:test" in page.url

    page.get_by_role("tab", name="Inspect").click()
    page.get_by_role("textbox", name="Left: text or item ID").fill("a circle")
    page.get_by_role("button", name="Inspect", exact=True).click()
    settle(page)
    outcome = tiny_engine.search(tiny_engine.encode("a circle"), top=12, where=where)
    results = [result.id for result in outcome.results]
    assert ids(page.locator(".sv-one .sv-grid img")) == results

    page.get_by_role("tab", name="Compare").click()
    page.locator(".sv-compare-grid img").first.wait_for()
    settle(page)
    left = ids(page.locator(".sv-compare-grid").first.locator("img"))
    assert left[: len(results)] == results[: len(left)]
    split = tiny_engine.collection.items.set_index("id")["split"]
    assert {split[one] for one in ids(page.locator(".sv-compare-grid img"))} == {"test"}
    page.reload()
    page.locator(".sv-compare-grid img").first.wait_for()
    expect(page.get_by_role("list", name="Active filters")).to_contain_text("test")
    page.get_by_role("button", name="Remove filter Split test").press("Enter")
    page.wait_for_function("!location.search.includes('where')")
    settle(page)
    assert {split[one] for one in ids(page.locator(".sv-compare-grid img"))} != {"test"}


def ids(images: Locator) -> list[str]:
    """Return the IDs of the items whose thumbnails are shown."""
    return images.evaluate_all("all => all.map(one => one.src.match(/(\\w+)\\.webp$/)[1])")
