"""Test a collection whose backbone is unavailable in the browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from processes import FIRST_PORT
from unavailable_backbone import BACKBONE, write_embeddings

from browser.steps import found, go, has_sideways_scroll, search, settle, skip_guide
from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.embeddings import Embeddings, open_identity
from sieve.model.engine import Engine
from sieve.model.training import TrainingConfig, train

REASON = f"unknown backbone '{BACKBONE}'"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("own")
    source = Embeddings(write_embeddings(folder / "files"), name="own")
    named = open_identity(BACKBONE, source.width, "cpu")
    made = prepare(source, named, folder / "own", precomputed=source.precomputed(), progress=False)
    config = TrainingConfig(m=64, k=8)
    checkpoint = train(made, folder / "codes", config, device="cpu", progress=False)
    return Engine.open(made.path, checkpoint.path, "cpu")


@pytest.fixture
def own(engine: Engine, browser: Browser) -> Iterator[Page]:
    from sieve.explorer.app import start

    served = start(engine, port=FIRST_PORT)
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=served.url)
    skip_guide(context)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_default_timeout(30_000)
    yield page
    context.close()
    served.app.close()
    assert not faults, faults


def texts(page: Page) -> list[str]:
    return page.locator(".sv-columns > .sv-grid > .sv-tile .sv-text").all_inner_texts()


def test_search_tab_works_with_captions_only(own: Page) -> None:
    go(own)
    expect(own.locator(".sv-about")).to_contain_text("own-clip (unavailable)")
    expect(own.get_by_role("button", name="Search by image")).to_be_hidden()
    search(own, "a dog", "a beach")
    expect(own.locator(".sv-notes")).to_contain_text(REASON)
    expect(own.locator(".sv-notes")).to_contain_text("--text-encoder")
    best = texts(own)[:15]
    assert len(best) == 15 and all("dog" in text and "beach" not in text for text in best)
    before = found(own)
    own.locator(".sv-group-on input[type=checkbox]").first.uncheck()
    settle(own)
    assert found(own) != before
    own.set_viewport_size({"width": 390, "height": 800})
    assert not has_sideways_scroll(own)


def test_text_of_unknown_words_shows_one_line(own: Page) -> None:
    go(own)
    search(own, "a quokka")
    expect(own.locator(".sv-fault")).to_contain_text(REASON)
    expect(own.locator(".sv-fault")).to_contain_text("--text-encoder")


def test_every_tab_opens(own: Page, engine: Engine) -> None:
    item = engine.collection.items["id"].iloc[0]
    go(own, f"?item={item}")
    assert len(found(own)) == 24
    for tab, shown in (
        ("dimensions&dimension=1", ".sv-page-head h2"),
        ("inspect&inspect=left:a+dog", ".sv-one .sv-dim"),
        ("compare&versus=q:a+dog,without:a+beach", ".sv-versus-columns li button"),
        ('figure&figure={"rows":[{"query":"a dog"}],"columns":3}', ".sv-paper img"),
        ("benchmark", ".sv-mark"),
    ):
        go(own, f"?tab={tab}")
        expect(own.locator(shown).first).to_be_visible()
        expect(own.get_by_role("alert").filter(has_text="unavailable")).to_have_count(0)
