"""Test that a damaged thumbnail is an empty tile among the others."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from processes import FIRST_PORT

from browser.steps import found, settle
from sieve.explorer.app import start
from sieve.model.collection import Collection, thumbnail_path

WIDTHS = (
    "nodes => Object.fromEntries(nodes.map(n => [n.src.split('/').pop().slice(0, 16),"
    " [n.complete, n.naturalWidth]]))"
)


@pytest.fixture
def damaged(tiny_engine, address: str, tmp_path: Path) -> Iterator[tuple[str, str]]:  # noqa: ARG001
    """URL of a page with one damaged thumbnail, and the id of its item."""
    engine = copy.copy(tiny_engine)
    folder = shutil.copytree(tiny_engine.collection.path, tmp_path / "c")
    engine.collection = Collection.open(folder)
    query = engine.encode("a red circle")
    item = engine.search(query).results[1].id
    path = folder / thumbnail_path(item)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    served = start(engine, port=FIRST_PORT + 65)  # no picture of it is in the cache
    yield served.url, item
    served.app.close()


def test_damaged_thumbnail_is_shown_as_empty_tile(page: Page, damaged: tuple[str, str]) -> None:
    address, item = damaged
    page.goto(f"{address}/?q=a+red+circle")
    settle(page)
    assert item in found(page)
    page.wait_for_function(
        "[...document.querySelectorAll('.sv-tile img')].slice(0, 4).every(n => n.complete)"
    )
    shown = page.locator(".sv-tile img").evaluate_all(WIDTHS)
    first = [shown[one] for one in found(page)[:4]]
    assert [bool(width) for _, width in first] == [one != item for one in found(page)[:4]]
