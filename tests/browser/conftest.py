"""Fixtures that run the app in Chromium."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from page_api import serve
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from processes import FIRST_PORT

from browser.steps import installed_browser, skip_guide
from sieve.model.engine import SearchEngine

PAYLOAD = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\'"`${1}{{2}} dog'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Path of an installed Chromium; installs Debian's if there is none and never skips."""
    found = installed_browser()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        wait = ("-o", "DPkg::Lock::Timeout=300")  # another worker may be installing it
        for command in (("update",), ("install", "-y", "--no-install-recommends", "chromium")):
            subprocess.run(("apt-get", "-qq", *wait, *command), check=False, capture_output=True)
        found = installed_browser()
    if found is None:
        pytest.fail("browser tests need Chromium: `apt-get install chromium`, or any Google Chrome")
    return found


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as opened:
        yield opened


@pytest.fixture(scope="session")
def browser(playwright: Playwright, browser_path: str) -> Iterator[Browser]:
    expect.set_options(timeout=60_000)
    # One process per site keeps the compiled scripts of the app, which take a second a page.
    # Compositing on the CPU costs less than on an emulated GPU.
    args = ["--no-sandbox", "--renderer-process-limit=1", "--disable-gpu"]
    launched = playwright.chromium.launch(executable_path=browser_path, args=args)
    yield launched
    launched.close()


@pytest.fixture(scope="session")
def address(tiny_engine) -> Iterator[str]:
    """Address of the app on the tiny engine."""
    yield from serve(tiny_engine, port=FIRST_PORT)


@pytest.fixture
def training_address(
    tiny_engine: SearchEngine,
    home: Path,  # noqa: ARG001
) -> Iterator[str]:
    """Address of an app that also trains and evaluates."""
    from sieve.explorer.tabs.train import TrainHandlers

    handlers = TrainHandlers(tiny_engine.collection, Path(tiny_engine.checkpoint.path), "cpu")
    yield from serve(tiny_engine, port=FIRST_PORT, training=handlers)


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory, word_cache: Path) -> Iterator[Path]:
    """A $SIEVE_HOME for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("module-home")
        (home / "words").symlink_to(word_cache)
        patch.setenv("SIEVE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def hostile_engine(tiny_engine: SearchEngine) -> SearchEngine:
    """The tiny engine with markup in every caption, label and name."""
    return with_text(tiny_engine, PAYLOAD)


def with_text(tiny_engine: SearchEngine, words: str) -> SearchEngine:
    """Copy an engine and replace every caption, label and name by the same text."""
    engine = copy.copy(tiny_engine)
    collection = engine.collection = copy.copy(tiny_engine.collection)
    items = tiny_engine.collection.items.copy()
    items["captions"] = [[f"{words} {text}" for text in texts] for texts in items["captions"]]
    items["labels"] = [[words] for _ in range(len(items))]
    collection.__dict__ |= {"items": items}
    collection.__dict__.pop("caption_texts", None)
    checkpoint = engine.checkpoint = copy.copy(tiny_engine.checkpoint)
    checkpoint.name_of = lambda dimension: f"{words} {dimension}"
    engine.derived = copy.copy(tiny_engine.derived)
    engine.derived.collection = collection
    engine.derived.dimensions = tiny_engine.derived.dimensions.assign(
        name=words, top_word=words, label=words, runner_up=words
    )
    others = {"runner_up": words, "vocabulary": words}
    names = tiny_engine.checkpoint.names
    checkpoint.names = {j: replace(name, **others) for j, name in names.items()}
    return engine


@pytest.fixture(scope="session")
def hostile_address(hostile_engine, address: str) -> Iterator[str]:  # noqa: ARG001
    yield from serve(hostile_engine, port=FIRST_PORT)


@pytest.fixture(scope="session")
def shared_context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    """The browser window whose tabs are the pages of most tests."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, base_url=address, reduced_motion="reduce"
    )
    skip_guide(context)
    context.new_page().goto("/config")  # an open tab keeps the renderer process
    yield context
    context.close()


@pytest.fixture
def page(shared_context: BrowserContext) -> Iterator[Page]:
    """A new tab with empty storage."""
    first, *_ = shared_context.pages
    with checked_page(shared_context) as opened:
        yield opened
        for tab in shared_context.pages:
            if tab.url.startswith("http"):
                tab.evaluate("try { localStorage.clear() } catch {}")
    for tab in shared_context.pages:
        if tab != first:
            tab.close()
    shared_context.clear_cookies()
    shared_context.clear_permissions()


@contextmanager
def website(folder: Path) -> Iterator[int]:
    """Serve the files of a folder as another website, and return its port."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def fresh_page(
    browser: Browser, address: str, *, guide: bool = False, timeout: int = 30_000, **options: Any
) -> Iterator[Page]:
    """Open a page in a separate window, with empty storage except that the guide was seen."""
    defaults = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
    context = browser.new_context(base_url=address, **(defaults | options))
    if not guide:
        skip_guide(context)
    with checked_page(context, timeout) as opened:
        yield opened
    context.close()


@contextmanager
def checked_page(context: BrowserContext, timeout: int = 30_000) -> Iterator[Page]:
    """Open a page that fails its test on any script error."""
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.set_default_timeout(timeout)
    yield opened
    opened.close()
    assert not faults, faults
