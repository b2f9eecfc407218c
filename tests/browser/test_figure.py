"""Test the Figure tab: rows from searches and dimensions, preview and downloads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect

from browser.conftest import PAYLOAD
from browser.steps import dimensions_of, go, preview, search, settle, switches
from sieve.explorer.figures import Recipe, Row, parse_recipe
from sieve.explorer.figures.drawing import draw_figure


def to_figure(page: Page) -> None:
    page.get_by_role("button", name="Figure", exact=True).click()
    expect(preview(page)).to_be_visible()


def saved(page: Page, kind: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("group", name="Download").get_by_role("button", name=kind).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def recipe_of(page: Page, folder: Path) -> Recipe:
    return parse_recipe(saved(page, "Recipe", folder).read_text(encoding="utf-8"))


def field(page: Page, name: str):
    return page.get_by_role("textbox", name=name, exact=True)


def test_search_can_be_exported_as_a_figure(page: Page, tiny_engine, tmp_path: Path) -> None:
    go(page)
    search(page, "a circle", "the snow")
    switches(page).first.uncheck()
    settle(page)
    proposed = tiny_engine.encode("a circle", "the snow").proposed
    off = tuple(sorted({*proposed, *dimensions_of(switches(page).first)}))
    page.get_by_text("never", exact=True).click()
    settle(page)
    to_figure(page)
    recipe = recipe_of(page, tmp_path)
    excluded = Row("a circle", without="the snow", off=off, strictness="never")
    assert recipe.rows == (Row("a circle"), excluded)
    expect(page.get_by_role("tab", name="Figure")).to_have_attribute("aria-selected", "true")
    for kind in ("PDF", "SVG", "PNG"):
        drawn = draw_figure(tiny_engine, recipe, kind.lower())
        assert saved(page, kind, tmp_path).read_bytes() == drawn.data
    assert r"\begin{figure*}" in saved(page, "LaTeX", tmp_path).read_text()


def test_layout_options_change_the_preview_and_persist(page: Page, tmp_path: Path) -> None:
    go(page, "?q=a+circle")
    to_figure(page)
    before = preview(page).get_attribute("src")
    page.locator("select[name=preset]").select_option("one column")
    page.get_by_label("Images per row").fill("3")
    page.get_by_label("scores").check()
    expect(page.get_by_text("8.46 × ")).to_be_visible()
    assert preview(page).get_attribute("src") != before
    recipe = recipe_of(page, tmp_path)
    assert (recipe.width_cm, recipe.columns) == (8.46, 3)
    assert recipe.marks == ("violations", "names", "scores")
    page.get_by_label("Unit of the width").select_option("inches")
    expect(page.get_by_label("Width", exact=True)).to_have_value("3.33")
    page.reload()
    expect(preview(page)).to_be_visible()
    assert recipe_of(page, tmp_path) == recipe
    page.get_by_label("Images per row").fill("900")
    expect(page.locator(".sv-paper .sv-fault")).to_have_text(
        "Columns must be less than or equal to 24; got 900."
    )
    expect(page.get_by_role("button", name="PDF")).to_be_disabled()


def test_preview_can_be_zoomed(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    go(page, "?q=a+circle")
    to_figure(page)
    image, zoom = preview(page), page.get_by_label("Zoom of the preview")
    width = image.evaluate("image => image.clientWidth")
    assert width < 390
    zoom.select_option("actual size")
    assert image.evaluate("image => image.clientWidth") == round(17.78 / 2.54 * 96)
    zoom.select_option("200%")
    assert image.evaluate("image => image.clientWidth") == round(17.78 / 2.54 * 96 * 2)
    sheet = page.get_by_role("region", name="Preview")
    assert sheet.evaluate("sheet => sheet.scrollWidth > sheet.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    zoom.select_option("fit width")
    assert image.evaluate("image => image.clientWidth") == width


def test_rows_can_be_added_moved_and_removed(page: Page, tiny_engine, tmp_path: Path) -> None:
    go(page, "?q=a+circle")
    to_figure(page)
    page.get_by_role("button", name="+ Query").click()
    page.keyboard.type("a square")
    expect(preview(page)).to_have_attribute("alt", "Figure: a circle; a square")
    page.get_by_role("button", name="+ Dimensions").click()
    page.get_by_label("Dimensions of row 3").fill("5")
    preview(page)
    expect(page.locator(".sv-row-name")).to_have_text(tiny_engine.name_of(5))
    page.get_by_role("button", name="Move up row 3").click()
    page.keyboard.press("Enter")
    expect(field(page, "Query of row 3")).to_have_value("a square")
    page.get_by_role("button", name="Remove row 2").click()
    preview(page)
    assert recipe_of(page, tmp_path).rows == (Row(dimension=5), Row("a square"))


def test_row_may_list_several_dimensions(page: Page, tiny_engine, tmp_path: Path) -> None:
    go(page, "?q=a+circle")
    to_figure(page)
    page.get_by_role("button", name="+ Dimensions").click()
    listed = page.get_by_label("Dimensions of row 2")
    listed.fill("7, 2-4")
    preview(page)
    names = ", ".join(tiny_engine.name_of(j) for j in (7, 2, 3, 4))
    expect(page.locator(".sv-row-name")).to_have_text(names)
    assert recipe_of(page, tmp_path).rows == (Row("a circle"), Row(dimensions=(7, 2, 3, 4)))
    page.reload()
    preview(page)
    expect(listed).to_have_value("7, 2, 3, 4")
    fault = page.locator(".sv-paper .sv-fault")
    for wrong, line in {
        "7, x": "Row 2.dimension 2: a dimension is a whole number of at least 0; got 'x'",
        "99999": "Row 2: there is no dimension 99999",
        "7, 7": "Row 2: dimensions must differ; 7 is listed twice",
    }.items():
        listed.fill(wrong)
        expect(fault).to_contain_text(line)
    listed.fill("7")
    preview(page)
    expect(fault).to_be_empty()
    assert recipe_of(page, tmp_path).rows[1] == Row(dimension=7)


def test_contact_sheet_is_one_row_of_random_dimensions(page: Page, tmp_path: Path) -> None:
    go(page, "?q=a+circle")
    to_figure(page)
    page.get_by_role("button", name="Contact sheet").click()
    listed = page.get_by_label("Dimensions of row 1")
    expect(listed).to_have_value(re.compile(r"(\d+, ){24}\d+"))
    preview(page)
    (row,) = recipe_of(page, tmp_path).rows
    assert list(row.dimensions or ()) == [
        int(number) for number in listed.input_value().split(", ")
    ]


def test_dimension_can_be_added_to_the_figure(page: Page, tiny_engine, tmp_path: Path) -> None:
    j = int(tiny_engine.dimension_table()["firing_images"].to_numpy().argmax())
    go(page, f"?tab=dimensions&dimension={j}")
    page.locator(".sv-page-head").wait_for()
    to_figure(page)
    assert recipe_of(page, tmp_path).rows == (Row(dimension=j),)


def test_recipe_file_can_be_opened(page: Page, tmp_path: Path) -> None:
    go(page, "?q=a+circle")
    to_figure(page)
    page.get_by_text("LaTeX and recipe").click()
    own = {"rows": [{"query": "a triangle", "without": "snow"}], "columns": 3, "font": "serif"}

    def choose(data: bytes) -> None:
        files = {"name": "r.json", "mimeType": "application/json", "buffer": data}
        page.locator(".sv-form input[type=file]").set_input_files(files)

    fault = page.locator(".sv-paper .sv-fault")
    choose(b"{")
    expect(fault).to_have_text("This file is not a recipe: it is not valid JSON.")
    choose(json.dumps(own | {"colour": "<b>"}).encode())
    expect(fault).to_contain_text("A recipe has no field 'colour'")
    expect(field(page, "Query of row 1")).to_have_value("a circle")
    choose(json.dumps(own).encode())
    expect(field(page, "Query of row 1")).to_have_value("a triangle")
    expect(fault).to_be_empty()
    written = recipe_of(page, tmp_path)
    assert (written.columns, written.font) == (3, "serif")


def test_invalid_recipes_show_one_line(page: Page, hostile_address: str, tmp_path: Path) -> None:
    rows = [{"query": PAYLOAD}, {"dimension": 3}]
    for figure in (json.dumps({"rows": rows, "marks": ["captions", "names"]}), PAYLOAD, "[" * 900):
        page.goto(f"{hostile_address}/?tab=figure&figure={quote(figure)}")
        settle(page)
        page.locator(".sv-figure").wait_for()
        preview(page)
        assert page.evaluate("window.pwned") is None
        assert page.locator("img[src=x]").count() == 0
    page.goto(f"{hostile_address}/?tab=figure&figure={quote(json.dumps({'rows': rows}))}")
    expect(preview(page)).to_be_visible()
    expect(field(page, "Query of row 1")).to_have_value(PAYLOAD)
    assert recipe_of(page, tmp_path).rows == (Row(PAYLOAD), Row(dimension=3))
    assert page.evaluate("window.pwned") is None


def test_figure_tab_sends_no_request_before_it_is_opened(page: Page) -> None:
    go(page, "?q=a+circle")
    assert page.locator(".sv-figure").count() == 0


def test_figure_can_be_downloaded_by_keyboard(page: Page, tmp_path: Path) -> None:
    def tab_to(name: str, key: str = "Tab", at_most: int = 60) -> None:
        for _ in range(at_most):
            page.keyboard.press(key)
            if page.evaluate("document.activeElement.textContent.trim()") == name:
                return
        raise AssertionError(f"{at_most} times {key} do not lead to {name}")

    page.set_viewport_size({"width": 390, "height": 844})
    go(page)
    expect(field(page, "Find")).to_be_focused()
    page.keyboard.type("a circle without the snow")
    page.keyboard.press("Enter")
    settle(page)
    tab_to("Skip to the results")
    page.keyboard.press("Enter")
    tab_to("Figure", "Shift+Tab")
    page.keyboard.press("Enter")
    preview(page)
    tab_to("PDF")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    expect(page.get_by_role("button", name="PDF")).to_be_focused()
