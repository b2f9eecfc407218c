"""Test the page in the output of a notebook: a frame in a page of another origin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.lib.display import IFrame
from playwright.sync_api import Browser, expect
from processes import FIRST_PORT

import sieve
from browser.conftest import fresh_page, website
from browser.steps import found, search, settle, switches
from sieve.model.engine import SearchEngine


@pytest.fixture(scope="module")
def explorer(tiny_engine: SearchEngine) -> Iterator[sieve.LaunchedExplorer]:
    with sieve.launch(sieve.Engine(tiny_engine), port=FIRST_PORT + 80) as explorer:
        yield explorer


@pytest.fixture(scope="module")
def notebook_port(
    explorer: sieve.LaunchedExplorer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Port of a page with the output that `sieve.launch` displays in Jupyter."""
    folder = tmp_path_factory.mktemp("notebook")
    frame = IFrame(explorer.url, "100%", 900)._repr_html_()
    (folder / "index.html").write_text(f"<!doctype html><body>{frame}", "utf-8")
    with website(folder) as port:
        yield port


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_page_works_in_a_notebook_on_this_machine(
    browser: Browser, explorer: sieve.LaunchedExplorer, notebook_port: int, host: str
) -> None:
    with fresh_page(browser, explorer.url) as page:
        page.goto(f"http://{host}:{notebook_port}")
        frame = page.wait_for_selector("iframe").content_frame()
        assert frame
        settle(frame)
        search(frame, "a red circle")
        before = found(frame)
        assert len(before) == 24
        image = frame.locator(".sv-tile img").first
        assert image.evaluate("image => image.decode().then(() => true)")
        switches(frame).first.uncheck()
        settle(frame)
        assert found(frame) != before
        frame.get_by_role("tab", name="Dimensions").click()
        expect(frame.get_by_role("row").nth(1)).to_be_visible()


def test_other_websites_cannot_embed_the_page(
    browser: Browser, explorer: sieve.LaunchedExplorer, notebook_port: int
) -> None:
    with fresh_page(browser, explorer.url) as page:
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(f"http://evil.localhost:{notebook_port}")
        expect(page.frame_locator("iframe").locator(".sv-tile")).to_have_count(0)
