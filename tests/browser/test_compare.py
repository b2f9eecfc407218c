"""Test the Compare tab: two methods on one query, with metrics if labels define relevance."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from browser.steps import go, search, settle


def facts(page: Page, column: int) -> list[str]:
    page.locator(".sv-compare-columns dd").first.wait_for()
    return page.locator(".sv-compare-columns > section").nth(column).locator("dd").all_inner_texts()


def test_compare_tab_compares_and_scores_the_search(page: Page, tiny_engine) -> None:
    go(page)
    search(page, "a circle", "the snow")
    page.get_by_role("tab", name="Compare").click()
    assert len(facts(page, 0)) == len(facts(page, 1)) == 3
    labels = [set(one) for one in tiny_engine.collection.items["labels"]]
    right = sum("circle" in one and "snow" not in one for one in labels)
    expect(page.locator(".sv-compare-summary")).to_contain_text(
        f"Relevant: has circle, not snow, judged by labels: {right} images"
    )
    query = tiny_engine.encode("a circle", "the snow")
    first = tiny_engine.search(query, top=10).results
    precision = sum("circle" in one.labels and "snow" not in one.labels for one in first) / 10
    assert float(facts(page, 0)[1].split()[0]) == precision
    marks = page.locator(".sv-compare-grid").first.locator(".sv-compare-mark")
    assert set(marks.all_inner_texts()) <= {"✓ relevant", "✗ has snow", "no circle"}


def test_method_and_labels_are_selected_and_stored_in_the_url(page: Page) -> None:
    go(page, "?tab=compare&versus=q:a+circle,without:the+snow")
    facts(page, 0)
    page.get_by_label("Against").select_option("literal")
    expect(page.get_by_role("heading", name="Dense · literal")).to_be_visible()
    page.get_by_role("combobox", name="and not").select_option("night")
    expect(page.locator(".sv-compare-summary")).to_contain_text("not night")
    settle(page)
    assert "method:literal" in page.url and "b:night" in page.url
    page.reload()
    expect(page.get_by_role("heading", name="Dense · literal")).to_be_visible()
    expect(page.locator(".sv-compare-summary")).to_contain_text("has circle, not night")
    expect(page.get_by_role("textbox", name="Compare: find")).to_have_value("a circle")


def test_duplicate_images_are_shown_together(page: Page) -> None:
    go(page, "?tab=compare&versus=q:a+circle,without:the+snow")
    facts(page, 0)
    both = page.locator(".sv-compare-grid").first.locator("button:not(.sv-is-only)").first
    both.focus()
    twins = page.locator(f".sv-compare-grid [data-id='{both.get_attribute('data-id')}'].sv-is-twin")
    expect(twins).to_have_count(2)
    only = page.locator(".sv-compare-grid .sv-is-only").first
    expect(only).to_contain_text("only here")


def test_compare_tab_asks_for_labels_if_none_match_the_query(page: Page) -> None:
    go(page, "?tab=compare&versus=q:something+round,without:winter")
    expect(page.locator(".sv-compare-summary")).to_contain_text(
        "Choose above what counts as relevant"
    )
    page.get_by_role("combobox", name="has", exact=True).select_option("circle")
    page.get_by_role("combobox", name="and not").select_option("snow")
    assert len(facts(page, 0)) == 3
