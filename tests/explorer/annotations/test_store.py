"""Test names, notes and saved searches in SQLite: no acknowledged write is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import MAX_NAME, Annotations, open_annotations, read_field

pytestmark = pytest.mark.slow

COLLECTION, CHECKPOINT = "c" * 64, "d" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "annotations" / "notes.sqlite"


def opened(path: Path) -> Annotations:
    return Annotations(Database(path, COLLECTION, CHECKPOINT), m=64)


@pytest.fixture
def store(path: Path) -> Annotations:
    return opened(path)


def test_nothing_is_created_before_the_first_write(store: Annotations, path: Path) -> None:
    assert store.names() == {} and store.all() == {} and store.searches.all() == ()
    assert store.fault() == "" and not path.parent.exists()


def test_written_value_is_read_by_another_process(store: Annotations, path: Path) -> None:
    for field, value in {"name": " a\tdog ", "note": "x\r\ny\x00", "starred": True}.items():
        assert store.write(3, field, value, 0).saved
    assert store.write(3, "tags", ["b", "A", "a"], 0).field.value == "A, b"
    saved = opened(path).of(3)
    assert {name: field.value for name, field in saved.items()} == {
        "name": "a dog", "note": "x\ny", "starred": "1", "tags": "A, b",
    }  # fmt: skip
    assert opened(path).names() == {3: "a dog"}


def test_conflicting_change_is_rejected_with_both_values(store: Annotations, path: Path) -> None:
    mine = store.write(1, "name", "mine", 0)
    theirs = opened(path).write(1, "name", "theirs", 0)
    assert not theirs.saved and theirs.field == mine.field
    assert store.names() == {1: "mine"}
    assert opened(path).write(1, "name", "theirs", theirs.field.version).saved
    assert not store.write(1, "name", "", mine.field.version).saved
    assert store.names() == {1: "theirs"}


def test_writing_the_same_value_is_no_conflict(store: Annotations) -> None:
    store.write(1, "starred", True, 0)
    again = store.write(1, "starred", True, 0)
    assert again.saved and again.field.version == 1


def test_undone_name_is_removed(store: Annotations) -> None:
    version = store.write(1, "name", "mine", 0).field.version
    assert store.write(1, "name", "", version).saved
    assert store.names() == {} and store.of(1)["name"].version == 2


def test_names_are_visible_at_once_during_concurrent_writes(store: Annotations, path: Path) -> None:
    other, version = opened(path), 0
    for number in range(20):
        version = other.write(5, "name", f"name {number:02}", version).field.version
        assert store.names() == {5: f"name {number:02}"}
    # An unchanged file is not read again; a changed file is.
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert store.names() is store.names()
    other.write(5, "name", "other", version)
    assert store.names() == {5: "other"}


WRITER = """
import sys
from pathlib import Path
from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import Annotations
path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = Annotations(Database(path, "c" * 64, "d" * 64), m=100_000)
for j in range(first, first + count):
    assert store.write(j, "name", f"name {j}", 0).saved
    print(j, flush=True)
"""


def writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_lose_no_writes(path: Path) -> None:
    running = [writer(path, first, 12) for first in (0, 1000)]
    assert [process.wait(120) for process in running] == [0, 0]
    store = Annotations(Database(path, COLLECTION, CHECKPOINT), m=100_000)
    assert set(store.names()) == {*range(12), *range(1000, 1012)}
    for process in running:
        assert process.stdout is not None
        process.stdout.close()


def test_one_of_several_threads_wins_each_conflict(store: Annotations) -> None:
    with ThreadPoolExecutor(6) as pool:
        written = list(pool.map(lambda n: store.write(1, "note", f"note {n}", 0), range(6)))
    won = [one for one in written if one.saved]
    assert len(won) == 1 and {one.field for one in written} == {won[0].field}


def test_killed_writer_loses_no_acknowledged_write(path: Path) -> None:
    process = writer(path, 0, 100_000)
    assert process.stdout is not None
    reported = [int(process.stdout.readline()) for _ in range(8)]
    os.kill(process.pid, signal.SIGKILL)
    reported += [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    names = opened(path)
    names.m = 100_000
    assert set(reported) <= set(names.names()) and len(names.names()) <= len(reported) + 1
    assert names.write(99_999, "name", "after", 0).saved


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A read-only folder, also if tests run as root."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "annotations"
        place.mkdir()
        Path(folder).chmod(0o755)
        root = os.geteuid() == 0
        yield place
        if root:
            os.seteuid(0)
        place.chmod(0o755)


def forbid(place: Path) -> None:
    for file in place.iterdir():
        file.chmod(0o444)
    place.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_read_only_store_can_be_read(unprivileged: Path) -> None:
    path = unprivileged / "notes.sqlite"
    opened(path).write(2, "name", "before", 0)
    forbid(unprivileged)
    store = opened(path)
    assert store.names() == {2: "before"}
    assert store.fault() == (
        f"notes cannot be saved: {path} cannot be written; move it away, or set $SIEVE_HOME to "
        "another folder"
    )
    with pytest.raises(ValueError, match=r"^notes cannot be saved: .* cannot be written"):
        store.write(2, "name", "after", 1)
    fresh = opened(unprivileged / "other" / "notes.sqlite")
    assert "cannot be" in fresh.fault() and fresh.names() == {}
    with pytest.raises(ValueError, match="^notes cannot be saved: "):
        fresh.searches.save("a dog", "?q=a+dog")


def test_damaged_file_is_reported_and_not_changed(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    store = opened(path)
    assert store.names() == {}
    for ask in (store.all, lambda: store.write(1, "name", "x", 0), store.searches.all):
        with pytest.raises(ValueError, match=r"^notes cannot be saved: .* is not a database; "):
            ask()
    assert "is not a database" in store.fault()
    assert path.read_bytes() == b"no database at all" * 100


def test_database_of_another_program_is_not_changed(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    assert "is another program's database" in opened(path).fault()
    with pytest.raises(ValueError, match="is another program's database"):
        opened(path).write(1, "name", "x", 0)
    with closing(sqlite3.connect(path)) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_schema")] == ["bookmarks"]


def test_other_checkpoint_and_later_format_are_rejected(store: Annotations, path: Path) -> None:
    store.write(1, "name", "x", 0)
    other = Annotations(Database(path, COLLECTION, "e" * 64), m=64)
    assert "belongs to another collection or checkpoint" in other.fault() and other.names() == {}
    with closing(sqlite3.connect(path)) as later, later:
        later.execute("PRAGMA user_version=2")
    with pytest.raises(ValueError, match="has format 2, not 1"):
        opened(path).all()


def test_each_checkpoint_has_a_separate_file(home: Path) -> None:
    open_annotations(COLLECTION, CHECKPOINT, 8).write(1, "name", "x", 0)
    (file,) = (home / "annotations").iterdir()
    assert file.name == f"{'c' * 16}-{'d' * 24}.sqlite"
    assert open_annotations(COLLECTION, "e" * 64, 8).names() == {}


@pytest.mark.parametrize(
    ("field", "value", "saved"),
    [
        ("name", "<img onerror>", "<img onerror>"), ("name", "\u202eturned", "turned"),
        ("name", "two\nlines\x1b[31m", "two lines [31m"), ("name", "\u200b \u200d", ""),
        ("name", "👩‍🚀 of \ud800space", "👩‍🚀 of space"), ("tags", "b; a,\u200b, B", "a, b"),
        ("note", "- one\n    - two \n\n", "- one\n    - two"), ("starred", "no", ""),
    ],
)  # fmt: skip
def test_text_is_normalised(field: str, value: object, saved: str) -> None:
    assert read_field(field, value) == saved


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("name", "x" * (MAX_NAME + 1), "a name has 81 characters; at most 80 are allowed"),
        ("note", "x" * 10_001, "a note has 10,001 characters"),
        ("tags", ["x" * 41], "a tag has 41 characters"),
        ("tags", [str(n) for n in range(21)], "at most 20 tags; got 21"),
        ("tags", [1], "tags must be a string"),
        ("starred", "perhaps", "starred must be one of"),
        ("name", 7, "name must be a string"),
        ("rank", "x", "field must be one of .*; got 'rank'"),
    ],
)
def test_invalid_values_are_rejected_with_one_line(field: str, value: object, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_field(field, value)


def test_searches_can_be_saved_renamed_deleted_and_restored(store: Annotations, path: Path) -> None:
    first = store.searches.save("a dog", "?q=a+dog")
    second = store.searches.save("a cat", "?q=a+cat")
    assert store.searches.save("again", "?q=a+dog") == first
    assert [search.name for search in opened(path).searches.all()] == ["a cat", "a dog"]
    assert store.searches.rename(first.id, "the dog", first.version)[1]
    late, saved = opened(path).searches.rename(first.id, "no", first.version)
    assert not saved and late.name == "the dog"
    store.searches.delete(second.id)
    store.searches.delete(second.id)
    assert [search.name for search in store.searches.all()] == ["the dog"]
    with pytest.raises(ValueError, match="has been deleted"):
        store.searches.rename(second.id, "x", 1)
    store.searches.delete(second.id, undo=True)
    assert second in store.searches.all()
    with pytest.raises(ValueError, match="needs a name"):
        store.searches.save(" \u200b", "?q=x")


def test_only_the_last_deleted_search_can_be_restored(store: Annotations) -> None:
    for number in range(102):
        store.searches.delete(store.searches.save(f"s{number}", f"?q={number}").id)
    with pytest.raises(ValueError, match="too long ago"):
        store.searches.delete(1, undo=True)
    store.searches.delete(102, undo=True)
    assert [search.name for search in store.searches.all()] == ["s101"]
