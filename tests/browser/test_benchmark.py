"""Test the Benchmark tab: open, sort, compare, share and run evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tiny_evaluation import save_small_evaluation

from browser.steps import go, has_sideways_scroll, settle, violations
from sieve.model.engine import SearchEngine

PATIENCE = 240_000
"""Timeout in milliseconds for a process to load PyTorch on a busy machine."""


@pytest.fixture(autouse=True)
def long_timeout() -> None:
    expect.set_options(timeout=60_000)


@pytest.fixture
def two_evaluations(tiny_engine: SearchEngine, home: Path) -> Iterator[tuple[str, str]]:  # noqa: ARG001
    """An evaluation of the open checkpoint, and a newer one of another checkpoint."""
    own = save_small_evaluation(tiny_engine.collection, "tiny", tiny_engine.checkpoint.sha256)
    own = own.rename(own.with_name(f"2020{own.name[4:]}"))
    other = save_small_evaluation(tiny_engine.collection, "zebra", "ab" * 32)
    yield own.stem, other.stem


def rows(page: Page) -> list[str]:
    return page.locator(".sv-bench-scroll > .sv-scores tbody th").first.evaluate(
        "head => [...head.closest('tbody').querySelectorAll('th')].map(th => th.textContent)"
    )


def test_saved_results_can_be_opened_sorted_and_compared(
    page: Page, two_evaluations: tuple[str, str]
) -> None:
    own, other = two_evaluations
    go(page)
    page.get_by_role("tab", name="Benchmark").click()
    expect(page.locator(".sv-bench-about b")).to_contain_text("another checkpoint (zebra)")
    page.wait_for_url(re.compile(f"benchmark={other},label,"))
    page.get_by_label("Evaluation").select_option(own)
    expect(page.locator(".sv-bench-about b")).to_have_count(0)
    assert rows(page) == ["A only", "subtraction", "paper", "Sieve"]
    expect(page.get_by_role("row", name="paper")).to_contain_text("beats Sieve")
    page.get_by_role("button", name="AP@10", exact=True).click()
    assert rows(page) == ["paper", "Sieve", "subtraction", "A only"]
    page.locator(".sv-bench-chart .main-svg").first.wait_for()

    page.get_by_role("combobox", name="against").select_option("subtraction")
    expect(page.locator(".sv-bench-count")).to_contain_text("ahead of subtraction on 1 of 3 pairs")
    page.get_by_role("button", name="square without night").press("Enter")
    sides = page.locator(".sv-bench-sides > div")
    expect(sides).to_have_count(2)
    expect(sides.nth(0).locator("h4")).to_contain_text("Sieve  AP@10 0.600, 0 of 10 violate")
    expect(sides.nth(1).locator("h4")).to_contain_text("2 of 10 violate")
    expect(sides.nth(1).get_by_text("✗ night too")).to_have_count(2)
    assert not violations(page)
    page.wait_for_url(re.compile(f"benchmark={own},label,1,subtraction"))

    page.get_by_role("button", name="Caption track").click()
    page.get_by_role("button", name="square without night").click()
    page.wait_for_url(re.compile(f"benchmark={own},caption,1,subtraction"))
    page.reload()
    settle(page)
    expect(page.locator(".sv-bench-query h3")).to_have_text("square without night")
    expect(page.get_by_role("button", name="Caption track")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.set_viewport_size({"width": 390, "height": 844})
    assert not has_sideways_scroll(page)
    page.locator(".sv-bench-found button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Try this search").click()
    settle(page)
    assert page.evaluate("[Sieve.viewState.q, Sieve.viewState.without, Sieve.viewState.tab]") == [
        "square", "night", "search",
    ]  # fmt: skip


def test_link_opens_the_benchmark_tab_or_reports_a_missing_result(
    page: Page, two_evaluations: tuple[str, str]
) -> None:
    go(page, "?tab=benchmark&benchmark=20200101-x<b>,nothing,99999,magic")
    expect(page.locator(".sv-bench .sv-fault")).to_contain_text(
        "was not found; the newest is shown"
    )
    page.wait_for_url(re.compile(f"benchmark={two_evaluations[1]},label,"))
    assert rows(page)


@pytest.mark.usefixtures("forked_jobs")
def test_quick_benchmark_runs_and_reports_its_error(page: Page, training_address: str) -> None:
    page.set_default_timeout(60_000)
    page.goto(f"{training_address}/?tab=benchmark")
    settle(page)
    expect(page.locator(".sv-bench-empty")).to_contain_text("sieve evaluate")
    page.get_by_role("button", name="Run quick benchmark").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.reload()  # restored
    # The tiny collection has too few items for any pair; the page reports this.
    expect(page.locator(".sv-bench-status")).to_contain_text("failed", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Run quick benchmark")).to_be_enabled()
