"""Test a collection whose backbone is unavailable in the browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from processes import FIRST_PORT
from unavailable_backbone import BACKBONE, write_embeddings

from browser.conftest import fresh_page
from browser.steps import found, go, has_sideways_scroll, search, settle
from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.embeddings import Embeddings, open_identity
from sieve.model.engine import SearchEngine
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import train

REASON = f"unknown backbone '{BACKBONE}'"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SearchEngine:
    folder = tmp_path_factory.mktemp("own")
    source = Embeddings(write_embeddings(folder / "files"), name="own")
    named = open_identity(BACKBONE, source.width, "cpu")
    made = prepare(source, named, folder / "own", precomputed=source.precomputed(), progress=False)
    config = TrainingConfig(m=64, k=8)
    checkpoint = train(made, folder / "codes", config, device="cpu", progress=False)
    return SearchEngine.open(made.path, checkpoint.path, "cpu")


@pytest.fixture
def captions_page(engine: SearchEngine, browser: Browser) -> Iterator[Page]:
    from sieve.explorer.app import start

    served = start(engine, port=FIRST_PORT)
    with fresh_page(browser, served.url) as page:
        yield page
    served.app.close()


def texts(page: Page) -> list[str]:
    return page.locator(".sv-columns > .sv-grid > .sv-tile .sv-text").all_inner_texts()


def test_search_tab_works_with_captions_only(captions_page: Page) -> None:
    go(captions_page)
    expect(captions_page.locator(".sv-about")).to_contain_text("own-clip (unavailable)")
    expect(captions_page.get_by_role("button", name="Search by image")).to_be_hidden()
    search(captions_page, "a dog", "a beach")
    expect(captions_page.locator(".sv-banner")).to_contain_text(REASON)
    expect(captions_page.locator(".sv-banner")).to_contain_text("--text-encoder")
    best = texts(captions_page)[:15]
    assert len(best) == 15 and all("dog" in text and "beach" not in text for text in best)
    before = found(captions_page)
    captions_page.locator(".sv-group-on input[type=checkbox]").first.uncheck()
    settle(captions_page)
    assert found(captions_page) != before
    captions_page.set_viewport_size({"width": 390, "height": 800})
    assert not has_sideways_scroll(captions_page)


def test_unavailable_backbone_is_noted_once(captions_page: Page) -> None:
    go(captions_page)
    note = captions_page.get_by_text("Texts are encoded by this collection's captions")
    expect(note).to_have_count(0)
    search(captions_page, "a dog")
    expect(note).to_have_count(1)
    captions_page.locator(".sv-group-on input[type=checkbox]").first.uncheck()
    settle(captions_page)
    search(captions_page, "a cat and a quokka")
    expect(captions_page.locator(".sv-notes").first).to_contain_text("quokka")
    expect(note).to_have_count(1)
    captions_page.get_by_role("button", name="Dismiss").click()
    expect(note).to_have_count(0)
    search(captions_page, "a boat", "a beach")
    for tab, shown in (
        ("Inspect", ".sv-why-items li, .sv-why-items img"),
        ("Compare", ".sv-compare-columns li button"),
    ):
        captions_page.get_by_role("tab", name=tab).click()
        expect(captions_page.locator(shown).first).to_be_visible()
        expect(note).to_have_count(0)


def test_unavailable_backbone_is_noted_for_a_link_to_another_tab(captions_page: Page) -> None:
    note = captions_page.get_by_text("Texts are encoded by this collection's captions")
    for link in ("?q=a+dog", "?tab=inspect&inspect=left:a+dog", "?tab=compare&versus=q:a+dog"):
        go(captions_page, link)
        expect(note).to_have_count(1)


def test_text_of_unknown_words_shows_one_line(captions_page: Page) -> None:
    go(captions_page)
    search(captions_page, "a quokka")
    expect(captions_page.locator(".sv-fault")).to_contain_text(REASON)
    expect(captions_page.locator(".sv-fault")).to_contain_text("--text-encoder")


def test_every_tab_opens(captions_page: Page, engine: SearchEngine) -> None:
    item = engine.collection.items["id"].iloc[0]
    go(captions_page, f"?item={item}")
    assert len(found(captions_page)) == 24
    for tab, shown in (
        ("dimensions&dimension=1", ".sv-page-head h2"),
        ("inspect&inspect=left:a+dog", ".sv-one .sv-dim"),
        ("compare&versus=q:a+dog,without:a+beach", ".sv-compare-columns li button"),
        ('figure&figure={"rows":[{"query":"a dog"}],"columns":3}', ".sv-paper img"),
        ("benchmark", ".sv-mark"),
    ):
        go(captions_page, f"?tab={tab}")
        expect(captions_page.locator(shown).first).to_be_visible()
        expect(captions_page.get_by_role("alert").filter(has_text="unavailable")).to_have_count(0)
