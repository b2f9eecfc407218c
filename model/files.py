"""Files and folders that appear under their name only when they are whole.

Each is written as a draft beside its place, under a name that begins with a dot, and renamed in one
step. What a failed or killed writer leaves is never found under the name. Their permissions follow
the umask, as those of any other program's files do.

Where Sieve keeps what it makes: `$SIEVE_HOME`, by default the user's data folder.

Faults of disks, as the libraries that read and write here tell them.

Sizes and CRC-32 of an artifact's files, written beside them and compared when it is opened.

A byte that a disk or a copy has changed is otherwise still a number, only another one. CRC-32
finds every fault of up to 32 bits in a row, and reads several gigabytes in a second; against
people who change files on purpose it is no help. They stand in a file of their own, so that an
artifact's identity, which is the hash of its other files, does not change with them. An artifact
without them is refused.

Notice when a file of an artifact changes while it is open.

Artifacts are immutable. Their large arrays are memory-mapped, so a file that is overwritten in
place would silently give other results, and one that is truncated would end the process by SIGBUS.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import platformdirs
from numpy.lib.format import open_memmap


def sieve_home() -> Path:
    """Root of collections, checkpoints and derived files."""
    return Path(os.environ.get("SIEVE_HOME") or platformdirs.user_data_dir("sieve"))


UNREADABLE = (
    ValueError, OSError, EOFError, SyntaxError, TokenError, zlib.error, BadZipFile,
    TypeError, IndexError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
"""What NumPy raises where a file is no array: it reads the head as Python's literals."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = ("No space left", "(os error 28)", "(os error 27)", "File too large")
_LITTLE = 1 << 20


def reason_of(error: BaseException) -> str:
    """Tell in a few words on one line what a library said; its kind where it said nothing."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Tell whether something failed for want of room; NumPy, Arrow and safetensors say no number.

    Parameters
    ----------
    error : BaseException
    folder : Path
        Where it wrote.
    """
    if getattr(error, "errno", None) in _FULL or any(said in str(error) for said in _SAID):
        return True
    short = isinstance(error, OSError) and error.errno is None and "written" in str(error)
    silent = isinstance(error, OSError) and error.errno is None
    return short or (silent and folder.is_dir() and shutil.disk_usage(folder).free < _LITTLE)


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Say in one line what a full disk is, whichever library met it.

    Raises
    ------
    OSError
        Where something failed for want of room in `folder`.
    """
    try:
        yield
    except Exception as error:
        if not disk_is_full(error, folder):
            raise
        raise OSError(
            f"the disk that holds {folder} is full; free some space and run again"
        ) from None


CHECKSUMS = "checksums.json"
_CHUNK = 1 << 20
_MOST = 16 << 20
"""Bytes that a list of checksums can have."""


class _Sum(NamedTuple):
    """What a file was when it was written."""

    size: int
    crc32: str


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write `checksums.json` of some files of a folder, which are whole."""
    sums = {name: _sum(folder / name) for name in sorted(names)}
    told = {name: {"bytes": one.size, "crc32": one.crc32} for name, one in sums.items()}
    (folder / CHECKSUMS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def check_files(
    folder: Path,
    remedy: str,
    only: Iterable[str] | None = None,
    *,
    needs: Iterable[str] = (),
    required: bool = True,
) -> bool:
    """Compare files with what they were when they were written.

    Parameters
    ----------
    folder : Path
    remedy : str
        What to do where one is damaged, to end the line with.
    only : iterable of str, optional
        Leave out the others.
    needs : iterable of str
        Files that must have a checksum.
    required : bool
        Refuse a folder without `checksums.json`; only a folder that Sieve did not write may lack
        it.

    Returns
    -------
    bool
        Whether there are checksums.

    Raises
    ------
    ValueError
        If a file, or `checksums.json` itself, is damaged or missing; in one line that names it.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        if required:
            raise ValueError(
                f"{folder} has no {CHECKSUMS}, which is written with it: it is incomplete or was "
                f"changed; {remedy}"
            )
        return False
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        told = json.loads(path.read_text(encoding="utf-8"))
        sums = {name: _Sum(int(one["bytes"]), str(one["crc32"])) for name, one in told.items()}
        wanted = dict(sums) if only is None else {name: sums[name] for name in only}
        wanted |= {name: sums[name] for name in needs}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"{path} is damaged ({reason}); {remedy}") from None
    for name, expected in wanted.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; {remedy}")
        size = (folder / name).stat().st_size
        if size != expected.size or _sum(folder / name) != expected:
            raise ValueError(f"{folder / name} is damaged: its bytes have changed; {remedy}")
    return True


def _sum(path: Path) -> _Sum:
    """Read a file without mapping it, so that none of it counts as memory of this process."""
    size, crc, buffer = 0, 0, memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while n := stream.readinto(buffer):
            size, crc = size + n, zlib.crc32(buffer[:n], crc)
    return _Sum(size, f"{crc:08x}")


_checked: ContextVar[set[OpenedFiles] | None] = ContextVar("checked files", default=None)


@contextmanager
def checked_once() -> Iterator[None]:
    """Check the same files only once in this block: for one request, which reads them often."""
    outer = _checked.get()
    token = _checked.set(set() if outer is None else outer)
    try:
        yield
    finally:
        _checked.reset(token)


class OpenedFiles:
    """The state of some files when they were opened.

    Parameters
    ----------
    *paths : Path
        Create the object before the files are verified and mapped, so that no change is missed.
    """

    def __init__(self, *paths: Path) -> None:
        self._opened = {os.fspath(path): _state(path) for path in paths}

    def check(self) -> None:
        """Compare the size, time and inode of each file; about 2 µs a file.

        Raises
        ------
        ValueError
            If a file has changed since it was opened; the message says to restart.
        """
        checked = _checked.get()
        if checked is not None and self in checked:
            return
        for path, opened in self._opened.items():
            try:
                is_same = _state(path) == opened
            except OSError:
                is_same = False
            if not is_same:
                raise ValueError(
                    f"{path} has changed or was removed while it was open; restart Sieve, and "
                    "write changes to a new folder instead"
                )
        if checked is not None:
            checked.add(self)


class MappedArray(np.memmap):
    """A read-only memory map of a `.npy` file that raises a ValueError once the file has changed.

    The file is checked at each indexing, so read large arrays in slices. Operations on the whole
    array check nothing, and a file that is truncated during a read still ends the process.
    """

    _opened: OpenedFiles | None = None

    @classmethod
    def open(cls, path: Path) -> MappedArray:
        """Map a file.

        Raises
        ------
        faults.UNREADABLE
            If it is no array of numbers.
        """
        opened = OpenedFiles(path)
        array = open_memmap(path, mode="r").view(cls)
        array._opened = opened
        return array

    def __array_finalize__(self, obj: Any) -> None:
        """Pass the file on to views of the array; copies have none."""
        super().__array_finalize__(obj)
        is_view = self._mmap is not None  # pyright: ignore[reportAttributeAccessIssue]
        self._opened = getattr(obj, "_opened", None) if is_view else None

    def __getitem__(self, key: Any, /) -> Any:
        """Return a view, or a copy as a plain array."""
        self.check()
        part = super().__getitem__(key)
        if isinstance(part, MappedArray) and part._opened is None:
            return part.view(np.ndarray)
        return part

    def check(self) -> None:
        """Raise a ValueError if the file has changed since it was mapped."""
        if self._opened is not None:
            self._opened.check()


def _state(path: str | Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder; two writers at once cannot mix their files, and the first to finish wins.

    Parameters
    ----------
    target : Path
        Must not exist yet.

    Yields
    ------
    Path
        An empty folder beside `target` to write into.

    Raises
    ------
    FileExistsError
        If `target` exists already, also where another writer was faster.
    OSError
        In one line, where the disk is full.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another name or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_name(target)
    draft.mkdir()
    try:
        with writing_in(target.parent):
            yield draft
        try:
            draft.rename(target)
        except OSError as error:
            if target.exists():
                raise FileExistsError(f"{target} was made by another writer meanwhile") from None
            raise error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft_name(path: Path) -> Path:
    """Return an unused name; `tempfile` would ignore the umask and make its files private."""
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Make an empty draft of a file, with its ending; removed again unless it was renamed."""
    draft = _draft_name(path)
    try:
        draft.touch(exist_ok=False)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Make a draft to be written, which takes the file's place when all went well.

    Raises
    ------
    OSError
        In one line, where the disk is full.
    """
    with writing_in(path.parent), draft_beside(path) as draft:
        yield draft
        draft.replace(path)


def take_name(draft: Path, path: Path) -> bool:
    """Give a whole draft its name, unless something has it meanwhile: then False."""
    try:
        os.link(draft, path)  # unlike a rename, it never replaces another's file
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if path.exists():
            return False
        draft.replace(path)
    return True
