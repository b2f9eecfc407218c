"""Test the Dimensions tab with ten thousand dimensions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from processes import FIRST_PORT
from tiny_codes import write_many_codes

from browser.conftest import fresh_page
from browser.steps import go, has_sideways_scroll
from browser.test_dimension_map import drawn
from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.dimensions.page import ablate_dimension
from sieve.model.engine import SearchEngine


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchEngine]:
    """An engine with codes of 10,000 dimensions and a separate $SIEVE_HOME."""
    folder = tmp_path_factory.mktemp("many")
    source = Codes(CodeFiles.find(write_many_codes(folder / "codes", 10_000)), name="many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(folder / "home"))
        made = prepare(
            source, None, folder / "made", precomputed=source.precomputed(), progress=False
        )
        yield SearchEngine.open(made.path)


@pytest.fixture
def crowd(many: SearchEngine, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page of this engine, whose map takes a second instead of twenty."""
    from sieve.explorer.app import start

    monkeypatch.setattr("sieve.model.dimensions.map.MOST", 500)
    served = start(many, port=FIRST_PORT)
    with fresh_page(browser, served.url, guide=True, timeout=60_000) as page:
        yield page
    served.app.close()


def test_ten_thousand_dimensions_are_listed_mapped_and_navigable(
    crowd: Page, many: SearchEngine
) -> None:
    go(crowd, "?tab=dimensions")
    expect(crowd.locator(".sv-found")).to_contain_text("10,000 dimensions")
    crowd.get_by_text("Map", exact=True).click()
    drawn(crowd)
    expect(
        crowd.get_by_text("10,000 active dimensions, t-SNE of their activations")
    ).to_be_visible()
    box = crowd.get_by_role("searchbox")
    box.fill("#9876")
    box.press("Enter")
    expect(crowd.get_by_role("heading", name="thing 9876")).to_be_visible()
    box.fill("no such thing")
    expect(crowd.get_by_text("No dimension matches by name")).to_be_visible()
    box.fill("")
    crowd.evaluate("document.querySelector('.sv-scroll').scrollTop = 5000 * 36")
    crowd.locator(".sv-table tr[aria-rowindex='5002']").wait_for()
    assert crowd.locator(".sv-table tbody tr").count() < 300
    # A caption of one word of 5,000 letters, in the list of captions and as a probe.
    assert len(many.collection.caption_texts[0]) == 5000
    opened = (many.collection, many.checkpoint, many.derived)
    dimension = next(
        int(j)
        for j in many.text_codes.row(0)[0]
        if any(len(change.text) == 5000 for change in ablate_dimension(*opened, int(j)).changes)
    )
    crowd.evaluate("d => Sieve.showDimension(d)", dimension)
    crowd.locator(".sv-page-head", has_text=f"#{dimension}").wait_for()
    crowd.locator(".sv-probe").scroll_into_view_if_needed()
    crowd.locator(".sv-query-text").first.wait_for()
    for width in (1280, 390):
        crowd.set_viewport_size({"width": width, "height": 844})
        assert not has_sideways_scroll(crowd)
