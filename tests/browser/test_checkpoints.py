"""Test the banner that names the open checkpoint on every tab."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from processes import FIRST_PORT

from browser.steps import go
from sieve.explorer.app import Server
from sieve.model.engine import SearchEngine
from sieve.model.files import CHECKSUMS, write_checksums

TABS = ("search", "dimensions", "inspect", "compare", "figure", "benchmark")


def test_link_of_another_checkpoint_shows_a_note_on_every_tab(page: Page) -> None:
    for tab in TABS:
        go(page, f"?tab={tab}&dimension=7&checkpoint=other")
        banner = page.locator(".sv-banner")
        expect(banner).to_be_visible()
        expect(banner).to_contain_text("made with checkpoint 'other'")
        page.get_by_role("button", name="Dismiss").click()
        expect(banner).to_be_empty()


@pytest.fixture
def server(
    tiny_engine: SearchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """The tiny collection with two checkpoints; the newer one was trained briefly."""
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    monkeypatch.setattr("sieve.model.checkpoint_choice.QUICK_DIMENSIONS", 1)
    for newer, (name, steps) in enumerate((("full", 400), ("trial", 20)), 1):
        folder = Path(shutil.copytree(tiny_engine.checkpoint.path, tmp_path / "checkpoints" / name))
        training = json.loads((folder / "training.json").read_text())
        training["curves"][-1]["step"] = steps
        (folder / "training.json").write_text(json.dumps(training))
        write_checksums(folder, (file.name for file in folder.iterdir() if file.name != CHECKSUMS))
        os.utime(folder / "config.json", (newer, newer))
    path = tiny_engine.collection.path
    opened = Server(
        tiny_engine.collection,
        lambda chosen: SearchEngine.open(path, chosen, "cpu"),
        port=FIRST_PORT,
    )
    opened.start()
    yield opened
    assert opened.served is not None
    opened.served.app.close()


def test_page_offers_and_opens_the_other_checkpoint(server: Server, page: Page) -> None:
    assert server.served is not None
    page.goto(server.served.url)
    banner = page.locator(".sv-banner")
    expect(banner).to_contain_text(
        "full is open, because trial had only a quick training (20 steps)."
    )
    with page.expect_request(lambda request: "component_server" in request.url):
        page.get_by_role("button", name="Open trial").click()
    expect(page.get_by_role("button", name="Opening trial")).to_be_disabled()
    while page.locator(".sv-about").inner_text().find("checkpoint trial") < 0:
        server.switch_checkpoint()
        page.wait_for_timeout(100)
    expect(banner).to_contain_text("trial had only a quick training (20 steps); full is better.")
    expect(page.get_by_role("button", name="Open full")).to_be_visible()
