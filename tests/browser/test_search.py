"""Test searching, switching dimensions and reading results in the browser."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from browser.steps import found, go, number_of, search, settle, switches


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


def test_toggle_does_not_move_the_list_or_the_tiles(page: Page) -> None:
    go(page, "?q=a+red+circle")
    page.evaluate("for (const n of document.querySelectorAll('.sv-dim, .sv-tile')) n.marked = true")
    shown = set(found(page))
    switches(page).first.uncheck()
    settle(page)
    rows = "[...document.querySelectorAll('.sv-dim')].every(row => row.marked)"
    assert page.evaluate(rows)
    saved = page.locator(".sv-columns > .sv-grid > .sv-tile").evaluate_all(
        "tiles => tiles.filter(tile => tile.marked).map(tile => tile.dataset.id)"
    )
    assert set(saved) == shown & set(found(page))


def test_without_proposes_off_dimensions_at_the_top(page: Page, tiny_engine) -> None:
    go(page)
    search(page, "a circle", "the snow")
    proposed = tiny_engine.encode("a circle", "the snow").proposed
    off = switches(page, "off")
    assert [number_of(row) for row in off.all()] == list(proposed)
    assert not any(row.is_checked() for row in off.all())
    assert all(row.is_checked() for row in switches(page).all())


def test_page_shows_the_results_of_the_engine(page: Page, tiny_engine) -> None:
    go(page, "?q=a+circle&without=the+snow&strictness=never")
    query = tiny_engine.encode("a circle", "the snow")
    outcome = tiny_engine.search(query, None, never=True)
    assert found(page) == [result.id for result in outcome.results]
    gone = page.locator(".sv-dropped")
    assert gone.count() == len(outcome.left)
    summary = page.get_by_role("status").filter(has_text="off")
    entered = sum(result.rank_before is None for result in outcome.results)
    assert f"{entered} new, {len(outcome.left)} dropped" in summary.inner_text()


def test_badges_mark_new_and_moved_results(page: Page, tiny_engine) -> None:
    go(page, "?q=a+circle&without=the+snow")
    outcome = tiny_engine.search(tiny_engine.encode("a circle", "the snow"))
    badges = page.locator(".sv-columns > .sv-grid .sv-badge").all_inner_texts()
    for badge, result in zip(badges, outcome.results, strict=True):
        up = None if result.rank_before is None else result.rank_before - result.rank
        expected = "new" if up is None else "=" if up == 0 else f"{'▲' if up > 0 else '▼'}{abs(up)}"
        assert badge == expected


def test_fast_clicks_end_in_the_last_state(page: Page, tiny_engine) -> None:
    go(page, "?q=a+red+circle")
    boxes = switches(page)
    clicks = [0, 1, 2, 0, 1, 0, 3, 2, 0, 1]
    page.evaluate(
        "clicks => { const boxes = document.querySelectorAll('.sv-group-on input');"
        " for (const i of clicks) boxes[i].click(); }",
        clicks,
    )
    settle(page)
    off = tuple(number_of(boxes.nth(i)) for i in range(4) if clicks.count(i) % 2)
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
        outcome = tiny_engine.search(query, None, strictness, never=never)
        assert found(page) == [result.id for result in outcome.results], word
    for limit in (0.2, 0.8):
        page.get_by_label("Hide from a probability of").select_option(f"{limit}")
        settle(page)
        outcome = tiny_engine.search(query, None, never=True, limit=limit)
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
    outcome = tiny_engine.search(query, None, 0.4)
    assert found(page) == [result.id for result in outcome.results]
    assert "strictness=0.4" in page.url


def test_all_on_all_off_and_reset_buttons_work(page: Page) -> None:
    go(page, "?q=a+circle&without=the+snow")
    every = page.locator(".sv-dim input[type=checkbox]")
    start = [box.is_checked() for box in every.all()]
    page.get_by_role("button", name="All on").click()
    assert all(box.is_checked() for box in every.all())
    page.get_by_role("button", name="All off").click()
    assert not any(box.is_checked() for box in every.all())
    page.get_by_role("button", name="Reset").click()
    settle(page)
    assert [box.is_checked() for box in every.all()] == start


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


def test_query_with_an_exclusion_is_split_and_shown(page: Page) -> None:
    go(page)
    search(page, "a circle but not in the snow")
    expect(page.get_by_role("textbox", name="without")).to_have_value("the snow")
    expect(page.get_by_text("Read as “a circle” without “the snow”.")).to_be_visible()


def test_ambiguous_wording_offers_the_exclusion(page: Page) -> None:
    go(page)
    search(page, "a circle - snow")
    expect(
        page.get_by_text("“-” was searched as written, not read as an exclusion.")
    ).to_be_visible()
    page.get_by_role("button", name="Search a circle without snow").click()
    expect(page.get_by_role("textbox", name="without")).to_have_value("snow")
    expect(page.locator(".sv-suggestion")).to_be_hidden()


def test_rejected_query_clears_the_results(page: Page) -> None:
    go(page, "?q=a+circle&without=the+snow")
    page.get_by_role("textbox", name="Find").fill("")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("Enter something to find; “without” only excludes.")).to_be_visible()
    expect(page.locator(".sv-results .sv-tile")).to_have_count(0)
    search(page, "a circle")
    assert found(page)
    page.get_by_role("textbox", name="Find").fill("not a circle")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".sv-fault").first).to_contain_text("Nothing to search for")
    expect(page.locator(".sv-results .sv-tile")).to_have_count(0)


def test_group_counts_follow_the_switches(page: Page) -> None:
    go(page, "?q=a+circle")
    title = page.locator(".sv-group-on h3")
    n = page.locator(".sv-group-on .sv-dim").count()
    expect(title).to_have_text(f"In “a circle” · {n}")
    page.locator(".sv-group-on input").first.click()
    expect(title).to_have_text(f"In “a circle” · {n - 1} of {n} on")


def test_no_results_are_listed_with_every_dimension_off(page: Page) -> None:
    go(page, "?q=a+circle&strictness=never")
    page.get_by_role("button", name="All off").first.click()
    expect(page.locator(".sv-results .sv-columns .sv-tile")).to_have_count(0)
    expect(page.locator(".sv-results .sv-empty")).to_contain_text(
        "All dimensions of the query are off"
    )


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


def test_backbone_results_are_shown_side_by_side_on_request(page: Page, tiny_engine) -> None:
    go(page, "?q=a+circle&without=the+snow")
    page.get_by_label("Compare with backbone").check()
    settle(page)
    dense = tiny_engine.search_dense(tiny_engine.encode("a circle", "the snow"))
    shown = page.locator(".sv-dense .sv-tile")
    assert shown.evaluate_all("t => t.map(x => x.dataset.id)") == [r.id for r in dense]
    both = {result.id for result in dense} & set(found(page))
    assert page.locator(".sv-dense .sv-badge-both").count() == len(both)


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


def test_empty_search_explains_what_is_missing(page: Page) -> None:
    go(page)
    search(page, "", "snow")
    expect(page.get_by_role("alert").filter(has_text="Enter something to find")).to_be_visible()


def test_empty_results_explain_what_to_do(page: Page) -> None:
    go(page, "?q=a+red+circle&strictness=never")
    page.get_by_role("button", name="All off").click()
    settle(page)
    assert found(page) == []
    expect(page.get_by_text("Switch at least one on")).to_be_visible()
