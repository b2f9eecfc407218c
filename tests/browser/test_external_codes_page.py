"""Test a collection of external codes in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from processes import FIRST_PORT
from tiny_codes import write_codes

from browser.conftest import fresh_page
from browser.steps import found, go, search, settle, switches
from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.engine import SearchEngine


def open_engine(folder: Path, *, words: bool) -> SearchEngine:
    files = CodeFiles.find(write_codes(folder / "codes", texts=words, words=words))
    source = Codes(files, folder / "codes" / "photos", name="given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(folder / "home"))
        made = prepare(
            source, None, folder / "made", precomputed=source.precomputed(), progress=False
        )
        return SearchEngine.open(made.path)


def serve(engine: SearchEngine, browser: Browser) -> Iterator[Page]:
    from sieve.explorer.app import start

    served = start(engine, port=FIRST_PORT)
    with fresh_page(browser, served.url) as page:
        yield page
    served.app.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SearchEngine:
    return open_engine(tmp_path_factory.mktemp("given"), words=True)


@pytest.fixture
def codes_page(engine: SearchEngine, browser: Browser) -> Iterator[Page]:
    yield from serve(engine, browser)


@pytest.fixture
def wordless_page(tmp_path: Path, browser: Browser) -> Iterator[Page]:
    yield from serve(open_engine(tmp_path, words=False), browser)


def ids(engine: SearchEngine, rows: list[int]) -> list[str]:
    return engine.collection.items["id"].iloc[rows].tolist()


def test_link_that_sorts_by_labels_is_ignored_without_labels(codes_page: Page) -> None:
    orders = []
    for link in ("", "&atlas=sort:-auc"):
        go(codes_page, f"?tab=dimensions{link}")
        codes_page.locator(".sv-table tbody tr").first.wait_for()
        names = codes_page.locator(".sv-table tbody tr")
        orders.append(names.evaluate_all("all => all.map((row) => row.dataset.d)"))
        heads = codes_page.locator(".sv-table thead button").all_inner_texts()
        assert heads[-1] == "Top word"
    assert orders[0] == orders[1] != sorted(orders[0], key=int)


def test_search_toggles_items_and_dimensions_work_without_a_backbone(
    codes_page: Page, engine: SearchEngine
) -> None:
    go(codes_page)
    expect(codes_page.get_by_text("external codes")).to_be_visible()
    assert len(found(codes_page)) == 6
    expect(codes_page.get_by_role("button", name="Search by image")).to_be_hidden()
    search(codes_page, "a dog")
    assert found(codes_page) == ids(engine, [1, 2, 0, 5])
    expect(codes_page.get_by_text("Show backbone")).to_be_hidden()
    search(codes_page, "a dog", "a beach")
    assert found(codes_page) == ids(engine, [1, 2, 5, 0, 4, 3])
    switches(codes_page, "off").first.check()
    settle(codes_page)
    assert found(codes_page) == ids(engine, [1, 2, 0, 5])
    first = codes_page.locator(f".sv-tile[data-id='{ids(engine, [0])[0]}']")
    first.locator(".sv-like").click(force=True)
    settle(codes_page)
    query = engine.encode(item=ids(engine, [0])[0])
    assert found(codes_page) == [result.id for result in engine.search(query).results]

    go(codes_page)
    search(codes_page, "a dog with a xylophone")
    expect(
        codes_page.get_by_text("“xylophone” has no code in this collection; it was ignored.")
    ).to_be_visible()
    search(codes_page, "xylophone")
    expect(codes_page.get_by_role("alert")).to_contain_text(
        "No word of “xylophone” has a code in this collection"
    )

    go(codes_page, "?tab=dimensions&dimension=1")
    expect(codes_page.get_by_role("heading", name="beach")).to_be_visible()
    expect(codes_page.get_by_text("Named by the author of the codes")).to_be_visible()
    codes_page.get_by_role("button", name="Search “beach”").click()
    settle(codes_page)
    assert len(found(codes_page)) == 3


def test_without_word_codes_items_and_concepts_can_be_queries(wordless_page: Page) -> None:
    go(wordless_page)
    hint = "search by an item or a concept (such as concept:17), or prepare it with"
    expect(wordless_page.locator(".sv-muted-text")).to_contain_text(hint)
    search(wordless_page, "a dog")
    expect(wordless_page.get_by_role("alert")).to_contain_text(hint)
    search(wordless_page, "concept:dog", "concept:1")
    assert found(wordless_page)
    expect(wordless_page.locator(".sv-group-off .sv-name")).to_have_text(["beach"])
    wordless_page.get_by_role("tab", name="Inspect").click()
    left = wordless_page.get_by_role("textbox", name="Left: text or item ID")
    left.fill("concept:dog")
    left.press("Enter")
    wordless_page.locator(".sv-one .sv-grid img").first.wait_for()
    go(wordless_page)
    wordless_page.locator(".sv-tile .sv-like").first.click(force=True)
    settle(wordless_page)
    assert found(wordless_page)
    wordless_page.get_by_role("button", name="Search by text instead").click()
    settle(wordless_page)
    expect(wordless_page.get_by_text("Images from this collection")).to_be_visible()
