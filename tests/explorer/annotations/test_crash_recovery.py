"""Test that a writer killed at any write of its commit loses no annotations.

As in SQLite's own crash tests, the writer replaces the system calls that change the disk
(`xSetSystemCall`) and exits in the n-th call with half of its bytes written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import Annotations, Field, FieldChange

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names Linux's system calls")

N_NOTES = 16
CRASHING_WRITER = '''
import ctypes, os, shutil, sqlite3, sys, _sqlite3
from pathlib import Path
from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.store import Annotations, FieldChange

FIRST = "szOsFile mxPathname".split()
POINTERS = """pNext zName pAppData xOpen xDelete xAccess xFullPathname xDlOpen xDlError xDlSym
xDlClose xRandomness xSleep xCurrentTime xGetLastError xCurrentTimeInt64 xSetSystemCall""".split()

class Vfs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ["iVersion", *FIRST]] + [
        (name, ctypes.c_void_p) for name in POINTERS
    ]

library = ctypes.CDLL(_sqlite3.__file__)  # finds SQLite among what Python's module is linked to
library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
vfs = library.sqlite3_vfs_find(None)
c = ctypes.CDLL(None, use_errno=True)
replace = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    vfs.contents.xSetSystemCall
)
dies_at, count = 0, 0
size, pointer, number = ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_int

def counted(name, kind, half):
    original = getattr(c, name)
    original.restype, original.argtypes = kind._restype_, kind._argtypes_
    def call(*given):
        global count
        count += 1
        if count == dies_at:
            half(original, *given)
            os._exit(9)
        return original(*given)
    wrapped = kind(call)
    replace(ctypes.addressof(vfs.contents), name.encode(), ctypes.cast(wrapped, pointer))
    return wrapped

kept = [
    counted(name, ctypes.CFUNCTYPE(size, number, pointer, ctypes.c_size_t, ctypes.c_int64),
            lambda f, file, data, n, at: f(file, data, n // 2, at))
    for name in ("pwrite", "pwrite64")
] + [
    counted("ftruncate", ctypes.CFUNCTYPE(number, number, ctypes.c_int64), lambda *_: None),
    counted("unlink", ctypes.CFUNCTYPE(number, ctypes.c_char_p), lambda *_: None),
]

original, out, n_notes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for n in range(1, 500):
    folder = out / f"{n:03}"
    folder.mkdir()
    path = folder / original.name
    shutil.copy(original, path)
    child = os.fork()
    if child == 0:
        store = Annotations(Database(path, "c" * 64, "d" * 64), m=64)
        before = store.all()
        new = "new " * 600
        changes = [FieldChange(j, "note", new, before[j]["note"], "") for j in range(n_notes)]
        count, dies_at = 0, n
        # Too few pages for the transaction, so that SQLite writes some before it commits.
        connect = sqlite3.connect
        def small(*given, **options):
            connection = connect(*given, **options)
            connection.execute("PRAGMA cache_size=12")
            return connection
        sqlite3.connect = small
        store.apply(changes)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 9:
        print(n - 1)
        sys.exit(code)
'''


def opened(path: Path) -> Annotations:
    return Annotations(Database(path, "c" * 64, "d" * 64), m=64)


@pytest.fixture(scope="module")
def crashed_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One folder per system call at which a writer of 16 long notes was killed."""
    out = tmp_path_factory.mktemp("crashes")
    original = out / "notes.sqlite"
    store = opened(original)
    store.write(50, "name", "dog", 0)
    store.apply(FieldChange(j, "note", "old " * 600, Field(), "") for j in range(N_NOTES))
    command = [sys.executable, "-c", CRASHING_WRITER, original, out, N_NOTES]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if "no such" in done.stderr or "undefined symbol" in done.stderr:
        pytest.skip("this Python's SQLite cannot be reached")
    assert done.returncode == 0, done.stderr
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    assert len(folders) == int(done.stdout) + 1
    return folders


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to)) / "notes.sqlite"


def test_crash_at_any_write_of_a_commit_loses_nothing(
    crashed_folders: list[Path], tmp_path: Path
) -> None:
    states, hot = [], 0
    for folder in crashed_folders:
        hot += (folder / "notes.sqlite-journal").exists()
        store = opened(copied(folder, tmp_path / folder.name))
        assert store.names() == {50: "dog"}  # the first to open it is a reader
        notes = {saved["note"].value.split()[0] for j, saved in store.all().items() if j < N_NOTES}
        assert len(notes) == 1, f"half written after {folder.name}"
        states.append(notes.pop())
        assert store.fault() == "" and store.write(50, "name", "cat", 1).saved
    assert len(crashed_folders) > 30 and hot > 25, "each page is written twice"
    assert states[0] == "old" and states[-1] == "new" and states == sorted(states)[::-1]


@pytest.fixture
def hot_journal(crashed_folders: list[Path]) -> Path:
    """A folder whose database cannot be read without its journal."""

    def needs_journal(folder: Path) -> bool:
        data = (folder / "notes.sqlite").read_bytes()
        return b"new new" in data and b"old old" in data

    return [folder for folder in crashed_folders if needs_journal(folder)][-3]


def test_journal_is_not_applied_to_a_new_database(hot_journal: Path, tmp_path: Path) -> None:
    path = copied(hot_journal, tmp_path / "split")
    aside = path.with_name("moved")
    path.rename(aside)
    store = opened(path)
    for ask in (store.all, lambda: store.write(1, "name", "new", 0)):
        with pytest.raises(ValueError, match="is missing, but notes.sqlite-journal still exists"):
            ask()
    assert "move the database back" in store.fault() and not path.exists()
    aside.rename(path)
    assert opened(path).all()[1]["note"].value.startswith("old")


@pytest.fixture
def read_only(hot_journal: Path) -> Iterator[Path]:
    """The same in a read-only folder, also if tests run as root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = copied(hot_journal, Path(folder) / "annotations")
        for file in path.parent.iterdir():
            file.chmod(0o444)
        path.parent.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield path
        if root:
            os.seteuid(0)
        path.parent.chmod(0o755)


def test_read_only_error_preserves_both_files(read_only: Path) -> None:
    for ask in (opened(read_only).all, lambda: opened(read_only).write(1, "name", "x", 0)):
        with pytest.raises(ValueError) as raised:
            ask()
        line = str(raised.value)
        assert "notes.sqlite-journal beside it holds an unfinished write" in line
        assert "keep the files together" in line and "move it away" not in line and "\n" not in line
