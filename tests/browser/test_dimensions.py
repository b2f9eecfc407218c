"""Test the table of dimensions and the page of a dimension."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from browser.steps import found, go, settle
from sieve.explorer.tabs import dimensions
from sieve.model.dimensions.table import COLUMNS, TableColumn


def live(engine) -> int:
    return int(engine.dimension_table()["firing_images"].to_numpy().argmax())


def by_images(engine):
    """Return the default order of the table: certain names first, then the most frequent."""
    table = engine.dimension_table()
    return table.sort_values(["confident", "firing_images"], ascending=False, kind="stable")


def rows(page: Page) -> list[int]:
    return [
        int(d)
        for d in page.locator(".sv-table tbody tr").evaluate_all("r => r.map(x => x.dataset.d)")
    ]


def test_table_fits_sorts_filters_and_orders_the_pages(page: Page, tiny_engine) -> None:
    go(page, "?tab=dimensions")
    page.locator(".sv-table tbody tr").first.wait_for()
    scroll = page.locator(".sv-scroll")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert scroll.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for head in page.locator(".sv-table thead button:visible").all():
            assert head.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), head.inner_text()

    table = tiny_engine.dimension_table()
    order = rows(page)
    assert order == by_images(tiny_engine)["dimension"].tolist()
    page.locator(f".sv-table tr[data-d='{order[0]}'] a").click()
    page.get_by_role("button", name="Next dimension").click()
    page.wait_for_url(f"**dimension={order[1]}&**")
    page.get_by_role("button", name="Previous dimension").click()
    page.wait_for_url(f"**dimension={order[0]}&**")
    expect(page.get_by_role("heading", level=2, name=tiny_engine.name_of(order[0]))).to_be_visible()

    page.locator(".sv-table").get_by_role("button", name="Monosemanticity").click()
    by_mono = table.sort_values("monosemanticity", ascending=False, kind="stable")
    measured = by_mono["dimension"][by_mono["monosemanticity"].notna()].tolist()
    assert 0 < len(measured) < len(table), "missing values are last"
    assert set(rows(page)[: len(measured)]) == set(measured)
    page.get_by_role("button", name="#", exact=True).click()
    assert rows(page) == table["dimension"].tolist()
    page.get_by_role("button", name="#", exact=True).click()
    assert rows(page) == table["dimension"].tolist()[::-1]
    page.get_by_role("searchbox", name="Filter by name").fill("#7")
    assert 7 in rows(page) and len(rows(page)) < len(table)
    page.get_by_role("searchbox", name="Filter by name").fill("no such thing")
    expect(page.get_by_text("No dimension matches by name")).to_be_visible()


def test_every_declared_column_is_shown(
    page: Page, tiny_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (TableColumn("max"), TableColumn("name_source", "text"))
    monkeypatch.setattr(dimensions, "COLUMNS", (*COLUMNS, *more))
    go(page, "?tab=dimensions")
    page.locator(".sv-table tbody tr").first.wait_for()
    heads = page.locator(".sv-table thead button")
    assert heads.evaluate_all("all => all.map((e) => e.dataset.sort)") == [
        "id", "name", "images", "texts", "agreement", "mono", "auc", "max", "name_source",
    ]  # fmt: skip
    assert heads.all_inner_texts()[-3:] == ["AUC", "Max", "Name source"]
    assert heads.nth(1).evaluate("e => e.offsetWidth") > 100, "more columns narrow the names"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    table = tiny_engine.dimension_table()
    heads.nth(7).click()
    head = page.get_by_role("columnheader", name="Max")
    expect(head).to_have_attribute("aria-sort", "descending")
    ordered = table.assign(max=table["max"].astype(float).round(5))
    ordered = ordered.sort_values("max", ascending=False, kind="stable")
    assert rows(page) == ordered["dimension"].tolist()
    cells = page.locator(".sv-table tbody td:nth-child(8)").all_inner_texts()
    assert [float(cell) for cell in cells] == pytest.approx(ordered["max"].tolist(), abs=0.0051)
    heads.nth(8).click()
    sources = page.locator(".sv-table tbody td:nth-child(9)").all_inner_texts()
    assert sources == sorted(table["name_source"])


def test_page_shows_statistics_samples_name_and_clarity(page: Page, tiny_engine) -> None:
    table = tiny_engine.dimension_table()
    measured = table[(table["runner_up"] != "") & table["monosemanticity"].notna()]
    dimension = int(measured.loc[measured["firing_images"].idxmax(), "dimension"])
    go(page, f"?tab=dimensions&dimension={dimension}")
    known = tiny_engine.dimension(dimension)
    expect(page.get_by_role("heading", level=2, name=known.name)).to_be_visible()
    captions = page.locator(".sv-top-captions li > span:first-child").all_inner_texts()
    assert captions == [caption.text for caption in known.top_captions]
    tops = page.locator(".sv-two .sv-example img").evaluate_all("i => i.map(x => x.src)")
    assert [src.rsplit("/", 1)[1] for src in tops] == [f"{e.id}.webp" for e in known.top_images]
    page.locator(".sv-plot .main-svg").first.wait_for()
    expect(page.get_by_text("Named from caption words")).to_be_visible()
    suggested = page.locator(".sv-suggestions li", has_text=table["runner_up"][dimension])
    expect(suggested.first).to_contain_text("captions")
    expect(page.locator(".sv-facts").get_by_text("Monosemanticity")).to_be_visible()
    expect(page.get_by_text(f"AUC for “{table['label'][dimension]}”")).to_be_visible()

    images = page.locator(".sv-sample img")
    first = images.evaluate_all("i => i.map(x => x.src)")
    page.get_by_role("button", name="Another sample").click()
    page.wait_for_function(
        "first => document.querySelector('.sv-sample img')?.src !== first[0]"
        " || [...document.querySelectorAll('.sv-sample img')].some((x, i) => x.src !== first[i])",
        arg=first,
    )
    shown = [src.rsplit("/", 1)[1] for src in images.evaluate_all("i => i.map(x => x.src)")]
    assert shown == [f"{e.id}.webp" for e in tiny_engine.dimension(dimension, seed=1).random_images]

    page.locator(".sv-page-actions button").first.click()
    settle(page)
    expect(page.get_by_role("tab", name="Search")).to_have_attribute("aria-selected", "true")
    assert found(page) and page.get_by_role("textbox", name="Find").input_value()


def test_names_that_failed_their_test_are_grey_guesses_listed_last(page: Page, tiny_engine) -> None:
    table = tiny_engine.dimension_table()
    guesses = table[~table["confident"] & (table["name_source"] != "")]
    assert 0 < len(guesses) < len(table)
    go(page, "?tab=dimensions")
    page.locator(".sv-table tbody tr").first.wait_for()
    n = int(table["confident"].sum())
    expect(page.locator(".sv-named")).to_contain_text(f"{n} of {len(table)} named with confidence")
    page.get_by_role("button", name="named with confidence").press("Enter")
    expect(page.locator(".sv-bubble")).to_contain_text("at least 80 of 100 pairs")
    links = page.locator(".sv-table tbody th a")
    colours = links.evaluate_all(
        "all => all.map((a) => getComputedStyle(a.querySelector('span') ?? a).color)"
    )
    certain, grey = set(colours[:n]), set(colours[n:])
    assert len(certain) == len(grey) == 1 and certain.isdisjoint(grey)
    first = guesses.iloc[0]
    assert first["name"].startswith(f"#{first['dimension']}, perhaps ")
    go(page, f"?tab=dimensions&dimension={first['dimension']}")
    expect(page.get_by_role("heading", level=2, name=first["name"])).to_be_visible()
    page.locator(".sv-table tbody tr").first.wait_for()
    page.get_by_role("button", name="Images", exact=True).click()
    expect(page.get_by_role("columnheader", name="Images")).to_have_attribute(
        "aria-sort", "descending"
    )
    frequent = table.sort_values("firing_images", ascending=False, kind="stable")
    assert rows(page) == frequent["dimension"].tolist()


def test_panel_measures_the_checkpoint_in_the_background(page: Page, tiny_engine) -> None:
    go(page, "?tab=dimensions")
    page.get_by_role("button", name="This checkpoint").click()
    panel = page.get_by_role("dialog", name="This checkpoint")
    table = tiny_engine.dimension_table()
    live = int((table[["firing_images", "firing_texts"]].max(axis=1) > 0).sum())
    expect(panel).to_contain_text(f"{live} of {len(table)}")
    expect(panel.get_by_role("status")).to_contain_text(
        "measures reach their target", timeout=60_000
    )
    expect(panel).to_contain_text("Disentanglement")
    assert panel.get_by_role("img", name="below the target").count() > 0
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    page.get_by_role("button", name=f"checkpoint {tiny_engine.checkpoint.path.name}").click()
    expect(panel).to_contain_text("Disentanglement")


def test_clearest_dimension_opens_by_default_unless_a_link_names_one(
    page: Page, tiny_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, _, third = by_images(tiny_engine)["dimension"].tolist()[:3]
    monkeypatch.setattr(dimensions, "clearest_dimension", lambda _: third)
    head = page.locator(".sv-page-head")
    for link, shown in (
        ("", third),
        ("&atlas=sort:-agreement+images:0..1", None),
        ("&atlas=images:0..1", most),
        (f"&dimension={most}", most),
    ):
        go(page, f"?tab=dimensions{link}")
        page.locator(".sv-table tbody tr").first.wait_for()
        expect(head).to_contain_text(f"#{rows(page)[0] if shown is None else shown}")


def test_keyboard_focus_is_preserved_between_list_and_page(page: Page, tiny_engine) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    go(page, "?tab=dimensions")
    row = page.locator(f".sv-table tr[data-d='{live(tiny_engine)}'] a")
    row.press("Enter")
    expect(page.locator(".sv-page h2")).to_be_focused()
    page.get_by_role("button", name="← All").press("Enter")
    expect(row).to_be_focused()
    page.reload()
    page.locator(".sv-table tbody tr").first.wait_for()
    assert page.evaluate("document.activeElement === document.body")


def test_exclude_button_switches_the_dimension_off_in_the_search(page: Page, tiny_engine) -> None:
    query = tiny_engine.encode("a red circle")
    mine = {active.dimension for active in query.dimensions}
    table = tiny_engine.dimension_table().sort_values("firing_images", ascending=False)
    other = next(int(j) for j in table["dimension"] if j not in mine)
    go(page, "?q=a+red+circle")
    page.get_by_role("tab", name="Dimensions").click()
    page.locator(f".sv-table tr[data-d='{other}'] a").click()
    expect(page.locator(".sv-page-head")).to_contain_text(f"#{other}")
    page.get_by_role("button", name="Exclude from the search").click()
    settle(page)
    page.wait_for_url(f"**off={other}&**")
    outcome = tiny_engine.search(query, (other,))
    assert found(page) == [result.id for result in outcome.results]
    row = page.locator(f".sv-dim[data-d='{other}']")
    expect(row.get_by_text("added")).to_be_visible()
    row.get_by_role("checkbox").check()
    settle(page)
    assert found(page) == [r.id for r in tiny_engine.search(query, ()).results]


def test_page_reports_a_dimension_that_never_fires(page: Page, tiny_engine) -> None:
    table = tiny_engine.dimension_table()
    silent = table[(table["firing_images"] == 0) & (table["firing_texts"] == 0)]["dimension"]
    assert len(silent), "the tiny checkpoint has no dead dimension to show"
    go(page, f"?tab=dimensions&dimension={silent.iloc[0]}")
    expect(page.get_by_text("This dimension is not active in any image")).to_be_visible()
