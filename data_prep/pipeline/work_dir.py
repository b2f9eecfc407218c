"""The work folder of a preparation: what is done stays done, whatever ends the run.

It lies beside the collection that is being made, as `.NAME.part`. Parts of fixed row ranges are
written under another name and renamed, so that each is whole or absent; a fingerprint says what
they are of. A lock keeps a second writer out, and is gone with the process that holds it.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: two writers are not told apart, but only one of them can rename
    fcntl = None

log = logging.getLogger(__name__)

_PATIENCE = 3.0
"""Seconds that a lock is waited for: a killed run's decoders take a moment to notice."""


class WorkDirLockedError(OSError):
    """Another process is at work on the same collection."""


class Chunk(NamedTuple):
    """What became of the records of one range of rows."""

    rows: np.ndarray
    """(b,) int64: the usable ones, ascending"""
    sizes: np.ndarray
    """(b, 2) int32: width, height"""
    contents: np.ndarray
    """(b,) uint64: hash of each picture; 0 where a split is given"""
    images: np.ndarray
    """(b, d) float16"""
    texts: np.ndarray
    """(c, d) float16: of all captions of the b records, in their order"""
    bad_rows: np.ndarray
    """(x,) int64: the others"""
    reasons: np.ndarray
    """(x,) str: why"""


class WorkDir:
    """The work folder of a collection that is being made.

    Attributes
    ----------
    collection : Path
        Becomes the collection.
    drafts : Path
        For files that are renamed once whole.
    """

    def __init__(self, path: Path, out: Path) -> None:
        self._path, self._out = path, out
        self._parts = path / "parts"
        self.collection = path / "collection"
        self.drafts = path / "drafts"

    @classmethod
    @contextmanager
    def acquire(cls, out: Path) -> Iterator[Self]:
        """Hold the work folder of a collection; it goes where there is nothing worth keeping.

        Raises
        ------
        FileExistsError
            If there is something at `out` already.
        WorkDirLockedError
            If another process holds it.
        """
        path = out.parent / f".{out.name}.part"
        if out.exists() and path.is_dir() and not (path / "collection").exists():
            shutil.rmtree(path, ignore_errors=True)  # killed when all was done but this
        _refuse_existing(out)
        with _lock(path, out):
            work = cls(path, out)
            try:
                _refuse_existing(out)  # another process may have finished meanwhile
                yield work
            finally:
                if out.exists() or not work.done():
                    shutil.rmtree(path, ignore_errors=True)

    def claim(self, fingerprint: str) -> None:
        """Keep what a run of the same fingerprint left, and remove what another's did."""
        mark = self._path / "fingerprint"
        same = mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint
        if not same:
            if self.done():
                log.warning(
                    "%s was left by a run of other records, settings or backbone: it is not used",
                    self._path,
                )
            for folder in (self._parts, self.collection):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self._parts, self.collection, self.drafts):
            folder.mkdir(exist_ok=True)
        if not same:
            draft = self.drafts / "fingerprint"
            draft.write_text(fingerprint, encoding="utf-8")
            os.replace(draft, mark)

    def done(self) -> list[int]:
        """First rows of the parts that are there."""
        return sorted(int(path.stem) for path in self._parts.glob("*.npz"))

    def is_intact(self, start: int) -> bool:
        """Whether a part's bytes are those that were written, after a loss of power too."""
        try:
            with zipfile.ZipFile(self._part(start)) as archive:
                return archive.testzip() is None
        except (OSError, zipfile.BadZipFile):
            return False

    def save(self, start: int, part: Chunk) -> None:
        """Write a part."""
        draft = self.drafts / "part.npz"
        np.savez(draft, **part._asdict())
        os.replace(draft, self._part(start))

    def load(self, start: int) -> Chunk:
        """Read a part."""
        with np.load(self._part(start), allow_pickle=False) as arrays:
            return Chunk(**{name: arrays[name] for name in Chunk._fields})

    def load_column(self, start: int, name: str) -> np.ndarray:
        """Read one array of a part."""
        with np.load(self._part(start), allow_pickle=False) as arrays:
            return arrays[name]

    def keep_only(self, starts: set[int]) -> None:
        """Forget all other parts."""
        for start in set(self.done()) - starts:
            self._part(start).unlink()

    def finish(self) -> None:
        """Give the collection its name.

        Raises
        ------
        FileExistsError
            If there is something of that name meanwhile.
        """
        _refuse_existing(self._out)
        os.rename(self.collection, self._out)

    def _part(self, start: int) -> Path:
        return self._parts / f"{start:09}.npz"


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists already; choose another name or remove it first")


@contextmanager
def _lock(folder: Path, out: Path) -> Iterator[None]:
    """Hold a folder for this process alone, made where it is missing."""
    until = time.monotonic() + _PATIENCE
    stream = _try_lock(folder)
    while stream is None:
        if time.monotonic() > until:
            raise WorkDirLockedError(
                f"another process is preparing {out}; wait for it, or choose another --out"
            )
        time.sleep(0.1)
        stream = _try_lock(folder)
    with stream:
        yield


def _try_lock(folder: Path) -> IO[str] | None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    try:
        stream = path.open("a")
    except FileNotFoundError:  # its last owner has just removed the folder
        return None
    try:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            return stream
    except (BlockingIOError, FileNotFoundError):
        pass
    stream.close()
    return None
