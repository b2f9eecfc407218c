"""Test that a damaged byte in the annotations is reported or has no effect."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import Annotations


def opened(path: Path) -> Annotations:
    return Annotations(Database(path, "c" * 64, "d" * 64), m=64)


def told(path: Path) -> object:
    store = opened(path)
    return store.all(), store.searches.all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "notes.sqlite"
    store = opened(found)
    for dimension in range(12):
        store.write(dimension, "name", f"name {dimension}", 0)
    store.write(3, "note", "what I saw\nthere", 0)
    store.searches.save("dogs", "?q=a+dog")
    return found


def test_no_damaged_byte_is_undetected(path: Path) -> None:
    whole, before = path.read_bytes(), told(path)
    caught = 0
    for place in [*range(0, 200, 7), *range(200, len(whole), 61)]:
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        caught += _is_told_or_the_same(path, before)
    for length in (0, 1, 100, 4096, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        caught += _is_told_or_the_same(path, before)
    assert caught > 20
    path.write_bytes(whole)
    assert told(path) == before


def _is_told_or_the_same(path: Path, before: object) -> bool:
    try:
        assert told(path) == before
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    return False


def test_all_stored_text_is_covered_by_checksums(path: Path) -> None:
    whole = path.read_bytes()
    for word in (b"name 7", b"what I saw", b"dogs", b"?q=a+dog"):
        place = whole.index(word) + len(word) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="is damaged; move it away"):
            told(path)
        with pytest.raises(ValueError, match="is damaged; move it away"):
            opened(path).write(40, "name", "more", 0)


def test_file_without_checksums_is_opened_and_upgraded(path: Path) -> None:
    before = told(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM origin WHERE name = 'content'")
    assert told(path) == before
    opened(path).write(40, "name", "more", 0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT 1 FROM origin WHERE name = 'content'").fetchone()
