"""Test names, notes and saved searches on one page and on two pages at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_api import serve
from playwright.sync_api import Locator, Page, expect
from processes import FIRST_PORT

from browser.conftest import PAYLOAD
from browser.steps import found, has_sideways_scroll, saved, search, settle, violations


@pytest.fixture(scope="module")
def engine(tiny_engine, address: str):  # noqa: ARG001  (its static paths are set first)
    return copy.copy(tiny_engine)


@pytest.fixture(scope="module")
def notes_address(engine, module_home: Path) -> Iterator[str]:  # noqa: ARG001
    yield from serve(engine, port=FIRST_PORT)


def open_page(page: Page, address: str, dimension: int) -> None:
    page.goto(f"{address}/?tab=dimensions&dimension={dimension}")
    settle(page)
    name(page).wait_for()


def name(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Your name for this dimension")


def say(box: Locator, text: str) -> None:
    box.fill(text)
    box.press("Tab")


def leading_alone(engine, text: str) -> int:
    """Return a dimension that is the only active one of its concept, and gives it its name."""
    concepts = engine.encode(text).concepts
    alone = (one.concept for one in concepts if len(one.dimensions) == 1)
    return next(j for j in alone if j in {one.dimension for one in engine.encode(text).dimensions})


def test_name_is_shown_in_table_and_search_after_reload_and_can_be_undone(
    page: Page, notes_address: str, engine
) -> None:
    j = leading_alone(engine, "a circle")
    suggested = engine.checkpoint.name_of(j)
    page.goto(f"{notes_address}/?q=a+circle")
    settle(page)
    row = page.locator(f".sv-dim[data-d='{j}']")
    row.get_by_role("link").click()
    name(page).wait_for()
    place = "node => node.getBoundingClientRect().y + scrollY"
    before = page.locator(".sv-facts").evaluate(place)
    say(name(page), "a name of mine")
    saved(page)
    after = page.locator(".sv-facts").evaluate(place)
    assert before == after
    expect(page.get_by_role("heading", level=2)).to_contain_text("a name of mine")
    expect(page.locator(f".sv-table tr[data-d='{j}'] a")).to_have_text("a name of mine")
    page.get_by_role("tab", name="Search").click()
    expect(row.locator(".sv-name")).to_have_text("a name of mine")
    page.reload()
    settle(page)
    expect(row.locator(".sv-name")).to_have_text("a name of mine")
    open_page(page, notes_address, j)
    page.get_by_role("button", name="Reset to").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(suggested)
    expect(name(page)).to_have_value("")


def test_star_tags_and_notes_are_saved_and_filterable(page: Page, notes_address: str) -> None:
    open_page(page, notes_address, 5)
    page.get_by_role("button", name="Star", exact=True).click()
    page.get_by_role("combobox", name="Add a tag").fill("to check")
    page.get_by_role("combobox", name="Add a tag").press("Enter")
    say(page.get_by_role("textbox", name="Notes"), "- one\n- two")
    expect(page.locator(".sv-table tr[data-d='5'] .sv-signs > *")).to_have_count(3)
    assert not violations(page)
    open_page(page, notes_address, 5)
    expect(page.get_by_role("button", name="Star", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.get_by_role("textbox", name="Notes")).to_have_value("- one\n- two")
    filters = page.get_by_role("combobox", name="Filter by annotations")
    for choice in ("Starred (1)", "With a note (1)", "Tag: to check (1)"):
        filters.select_option(label=choice)
        expect(page.locator(".sv-table tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Remove the tag to check").click()
    expect(page.locator(".sv-table tr[data-d='5'] .sv-sign-tags")).to_have_count(0)


def test_two_pages_at_once_lose_no_annotation(page: Page, notes_address: str) -> None:
    other = page.context.new_page()
    for one in (page, other):
        open_page(one, notes_address, 7)
    name(
        other
    ).focus()  # while the field has the focus, changes of other pages do not replace its text
    say(name(page), "first")
    saved(page)
    say(name(other), "second")
    clash = other.get_by_role("alert").filter(has_text="Another page changed")
    expect(clash).to_contain_text("first")
    expect(name(other)).to_have_value("second")
    clash.get_by_role("button", name="Use my version").click()
    saved(other)
    for one, tag in ((page, "here"), (other, "there")):
        one.get_by_role("combobox", name="Add a tag").fill(tag)
        one.get_by_role("combobox", name="Add a tag").press("Enter")
        expect(one.locator(".sv-tags")).to_contain_text(tag)
        saved(one)
    open_page(page, notes_address, 7)
    expect(name(page)).to_have_value("second")
    expect(page.locator(".sv-tag")).to_have_text(["here×", "there×"])


def test_markup_in_names_is_escaped(page: Page, notes_address: str, engine) -> None:
    j = leading_alone(engine, "a circle")
    open_page(page, notes_address, j)
    hostile = PAYLOAD[:78]
    say(name(page), hostile)
    saved(page)
    say(page.get_by_role("textbox", name="Notes"), PAYLOAD)
    page.get_by_role("combobox", name="Add a tag").fill("<img src=x onerror='pwned=1'>")
    page.get_by_role("combobox", name="Add a tag").press("Enter")
    sign = page.locator(f".sv-table tr[data-d='{j}'] .sv-sign-tags")
    expect(sign).to_have_attribute("aria-label", "tags: <img src=x onerror='pwned=1'>")
    expect(page.get_by_role("heading", level=2)).to_contain_text(hostile)
    page.goto(f"{notes_address}/?q=a+circle")
    settle(page)
    expect(page.locator(f".sv-dim[data-d='{j}'] .sv-name")).to_have_text(hostile)
    assert page.evaluate("window.pwned") is None


def test_search_can_be_saved_opened_renamed_deleted_and_restored(
    page: Page, notes_address: str
) -> None:
    page.goto(f"{notes_address}/")
    settle(page)
    search(page, "a circle", "the snow")
    shown = found(page)
    page.locator("summary").filter(has_text="Save").click()
    expect(page.get_by_role("textbox", name="Name of this search")).to_have_value(
        "a circle without the snow"
    )
    page.get_by_role("button", name="Save this search").click()
    menu = page.locator(".sv-menu-panel")
    expect(menu.get_by_role("link")).to_have_text("a circle without the snow")
    assert not violations(page)
    menu.get_by_role("button", name="Rename a circle").click()
    menu.get_by_role("textbox", name="New name").fill("<b>mine</b>")
    menu.get_by_role("textbox", name="New name").press("Enter")
    menu.get_by_role("button", name="Delete <b>mine</b>").click()
    expect(menu.get_by_role("link")).to_have_count(0)
    menu.get_by_role("button", name="Undo").click()
    expect(menu.get_by_role("link")).to_have_text("<b>mine</b>")
    page.set_viewport_size({"width": 390, "height": 844})
    assert not has_sideways_scroll(page)
    page.goto(f"{notes_address}/")
    settle(page)
    page.get_by_role("group", name="Saved searches").get_by_role("link").click()
    settle(page)
    expect(page.get_by_role("textbox", name="without")).to_have_value("the snow")
    assert found(page) == shown


def test_annotations_can_be_exported_and_imported(
    page: Page, notes_address: str, tmp_path: Path
) -> None:
    open_page(page, notes_address, 11)
    page.get_by_role("button", name="Export or import").click()
    dialog = page.get_by_role("dialog")
    file = tmp_path / "notes.csv"
    file.write_text("dimension,name,starred\n11,from a file,true\n")
    with page.expect_file_chooser() as chooser:
        dialog.get_by_role("button", name="Import").click()
    chooser.value.set_files(file)
    expect(dialog).to_contain_text("1 name, 1 star to import")
    assert not violations(page)
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog).to_contain_text("Imported.")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Export CSV").click()
    assert "\n11,from a file,,,true," in Path(download.value.path()).read_text()
    dialog.get_by_role("button", name="Close").click()
    expect(name(page)).to_have_value("from a file")


def test_page_works_and_reports_if_annotations_cannot_be_saved(
    page: Page, engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sieve.explorer.app import start

    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    (tmp_path / "annotations").write_text("a file, not a folder")
    served = start(copy.copy(engine), port=FIRST_PORT)
    try:
        page.goto(f"{served.url}/?tab=dimensions&dimension=3")
        settle(page)
        expect(page.locator(".sv-dim-notes")).to_contain_text("notes cannot be saved: ")
        expect(page.get_by_role("heading", level=2)).to_be_visible()
        expect(name(page)).to_have_count(0)
    finally:
        served.app.close()
