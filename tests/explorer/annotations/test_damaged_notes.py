"""A damaged file of notes is reported, and is not written to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import Annotations


def opened(path: Path) -> Annotations:
    return Annotations(Database(path, "c" * 64, "d" * 64), m=64)


def read_all(path: Path) -> object:
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


def test_truncated_file_is_reported(path: Path) -> None:
    whole, before = path.read_bytes(), read_all(path)
    for length in (0, 1, 100, 4096, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"(is damaged|is not a database); move it away"):
            read_all(path)
    path.write_bytes(whole)
    assert read_all(path) == before


def test_damaged_page_is_reported(path: Path) -> None:
    whole = path.read_bytes()
    for page in range(4096, len(whole), 4096):
        path.write_bytes(whole[:page] + b"\xff" * 64 + whole[page + 64 :])
        with pytest.raises(ValueError, match="is damaged; move it away"):
            opened(path).write(40, "name", "more", 0)


def test_checksum_of_an_earlier_version_is_removed_by_a_write(path: Path) -> None:
    before = read_all(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO origin VALUES ('content', '00000000')")
    assert read_all(path) == before
    opened(path).write(40, "name", "more", 0)  # the checksum would no longer be that of the rows
    with closing(sqlite3.connect(path)) as connection:
        assert not connection.execute("SELECT 1 FROM origin WHERE name = 'content'").fetchone()
