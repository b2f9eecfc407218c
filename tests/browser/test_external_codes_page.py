"""Test a collection of external codes in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from processes import FIRST_PORT
from tiny_codes import write_codes

from browser.steps import found, go, search, settle, skip_guide, switches
from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.sparse_codes import CodeFiles, Codes
from sieve.model.engine import Engine


def open_engine(folder: Path, *, words: bool) -> Engine:
    files = CodeFiles.find(write_codes(folder / "codes", texts=words, words=words))
    source = Codes(files, folder / "codes" / "photos", name="given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIEVE_HOME", str(folder / "home"))
        made = prepare(
            source, None, folder / "made", precomputed=source.precomputed(), progress=False
        )
        return Engine.open(made.path)


def serve(engine: Engine, browser: Browser) -> Iterator[Page]:
    from sieve.explorer.app import start

    served = start(engine, port=FIRST_PORT)
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, base_url=served.url, reduced_motion="reduce"
    )
    skip_guide(context)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.set_default_timeout(30_000)  # each test waits for a server to start
    yield opened
    context.close()
    served.app.close()
    assert not faults, faults


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return open_engine(tmp_path_factory.mktemp("given"), words=True)


@pytest.fixture
def given(engine: Engine, browser: Browser) -> Iterator[Page]:
    yield from serve(engine, browser)


@pytest.fixture
def mute(tmp_path: Path, browser: Browser) -> Iterator[Page]:
    yield from serve(open_engine(tmp_path, words=False), browser)


def ids(engine: Engine, rows: list[int]) -> list[str]:
    return engine.collection.items["id"].iloc[rows].tolist()


def test_search_toggles_and_items_work_without_a_backbone(given: Page, engine: Engine) -> None:
    go(given)
    expect(given.get_by_text("external codes")).to_be_visible()
    assert len(found(given)) == 6
    expect(given.get_by_role("button", name="Search by image")).to_be_hidden()
    search(given, "a dog")
    assert found(given) == ids(engine, [1, 2, 0, 5])
    expect(given.get_by_text("Compare with backbone")).to_be_hidden()
    search(given, "a dog", "a beach")
    assert found(given) == ids(engine, [1, 2, 5, 0, 4, 3])
    switches(given, "off").first.check()
    settle(given)
    assert found(given) == ids(engine, [1, 2, 0, 5])
    first = given.locator(f".sv-tile[data-id='{ids(engine, [0])[0]}']")
    first.locator(".sv-like").click(force=True)
    settle(given)
    query = engine.encode(item=ids(engine, [0])[0])
    assert found(given) == [result.id for result in engine.search(query).results]


def test_page_reports_unknown_words(given: Page) -> None:
    go(given)
    search(given, "a dog with a xylophone")
    expect(
        given.get_by_text("“xylophone” has no code in this collection; it was ignored.")
    ).to_be_visible()
    search(given, "xylophone")
    expect(given.get_by_role("alert")).to_contain_text(
        "No word of “xylophone” has a code in this collection"
    )


def test_dimensions_have_pages(given: Page) -> None:
    go(given, "?tab=dimensions&dimension=1")
    expect(given.get_by_role("heading", name="beach")).to_be_visible()
    expect(given.get_by_text("Named by the author of the codes")).to_be_visible()
    expect(given.get_by_role("heading", name="Similar dimensions")).to_have_count(0)
    given.get_by_role("button", name="Search “beach”").click()
    settle(given)
    assert len(found(given)) == 3


def test_without_word_codes_only_items_can_be_queries(mute: Page) -> None:
    go(mute)
    expect(mute.get_by_role("textbox", name="Find")).to_be_disabled()
    expect(mute.locator(".sv-mute")).to_contain_text("search by an item")
    mute.locator(".sv-tile .sv-like").first.click(force=True)
    settle(mute)
    assert found(mute)
    mute.get_by_role("button", name="Search by text instead").click()
    settle(mute)
    expect(mute.get_by_text("Images from this collection")).to_be_visible()
