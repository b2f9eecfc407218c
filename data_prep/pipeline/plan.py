"""Plan of one preparation, or of one shard of it, and the work directory of its results.

Shards let several machines prepare one collection. The command line parses them, so this module
imports neither torch nor Arrow.

The work directory, from which an interrupted run resumes, is a sibling of the new collection,
`.NAME.part`. Chunks of fixed row ranges are written atomically, so that each is complete or absent;
a fingerprint identifies the run that wrote them. A file lock excludes a second writer, and ends
with the process that holds it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Self

import numpy as np
import PIL

from sieve.data_prep.records import Skipped, Source

if TYPE_CHECKING:
    from sieve.data_prep.pipeline.embed import Embedder
    from sieve.data_prep.precomputed import PrecomputedCodes
    from sieve.data_prep.records import RecordTable

try:
    import fcntl
except ImportError:  # Windows: no lock, but only one of two writers can rename the result
    fcntl = None

log = logging.getLogger(__name__)

CHUNK_ROWS = 256
"""Rows of a chunk: the most that a killed run loses, and the unit in which shards are cut."""
_LOCK_TIMEOUT = 3.0
"""Seconds to wait for the lock: decoders of a killed run take a moment to end."""


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `of`, counted from 1."""

    index: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise ValueError(
                f"shard {self.index}/{self.of} does not exist; in i/n, i must be from 1 to n"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `i/n`; raise ValueError if the text has another form or there is no such shard."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ValueError(f"expected a shard as i/n, such as 1/4; got {text[:40]!r}")
        return cls(int(found[1]), int(found[2]))

    def rows(self, n_rows: int) -> range:
        """Return this shard's rows out of all: whole chunks, so that batches do not change."""
        n_chunks = -(-n_rows // CHUNK_ROWS)
        ends = (-(-n_chunks * i // self.of) * CHUNK_ROWS for i in (self.index - 1, self.index))
        return range(*(min(end, n_rows) for end in ends))


@dataclass(frozen=True)
class PreparationPlan:
    """Source, rows and options of a preparation."""

    source: Source
    table: RecordTable
    embedder: Embedder
    shard: Shard | None = None
    """None to prepare the whole collection."""
    keep_going: bool = False
    codes: PrecomputedCodes | None = None
    """Codes in place of embeddings, which then have width 0."""

    @cached_property
    def rows(self) -> range:
        """Rows to prepare."""
        return (self.shard or Shard()).rows(len(self.table))

    @property
    def counted(self) -> list[Skipped]:
        """Records without a row that count as bad; for a shard only its own rows count."""
        return self.table.left_out if self.shard is None else []

    @property
    def total(self) -> int:
        """Number of records of which the share of bad ones is computed."""
        return len(self.rows) + len(self.counted)

    @property
    def chunks(self) -> list[range]:
        """Rows of each chunk."""
        return split_range(self.rows, CHUNK_ROWS)

    @cached_property
    def origin(self) -> dict[str, object]:
        """Everything that the collection's bytes depend on; equal for all shards of one."""
        source, precomputed = self.source, self.embedder.precomputed
        return {
            "source": f"{type(source).__name__}: {source}",
            "records": self.table.sha256,
            "backbone": self.embedder.identity.sha256,
            "computes": self.embedder.computes,
            "known": precomputed.sha256() if precomputed else "",
            **({"codes": self.codes.sha256()} if self.codes else {}),
            "part": CHUNK_ROWS,
            "splits": "drawn by content",
            "libraries": f"pillow {PIL.__version__}, numpy {np.__version__}",
        }

    @property
    def fingerprint(self) -> str:
        """Everything that the bytes of this plan's chunks depend on, as JSON."""
        rows = self.rows
        return json.dumps({**self.origin, "rows": f"{rows.start} to {rows.stop}"}, indent=1)


def split_range(rows: range, size: int) -> list[range]:
    """Split rows into ranges of one size, the last of which may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class WorkDirLockedError(OSError):
    """Another process is preparing the same collection."""


class Chunk(NamedTuple):
    """Results for one range of rows."""

    rows: np.ndarray
    """(b,) int64: usable rows, ascending"""
    sizes: np.ndarray
    """(b, 2) int32: width, height"""
    contents: np.ndarray
    """(b,) uint64: hash of each image; 0 if the record has a split"""
    images: np.ndarray
    """(b, d) float16"""
    texts: np.ndarray
    """(c, d) float16: all captions of the b records, in their order"""
    bad_rows: np.ndarray
    """(x,) int64: rows that cannot be used, ascending"""
    reasons: np.ndarray
    """(x,) str: reason for each bad row"""


class WorkDir:
    """Work directory of a collection in preparation."""

    def __init__(self, path: Path, out: Path) -> None:
        self._path, self._out, self._chunks = path, out, path / "parts"
        self.collection = path / "collection"
        """Folder that becomes the collection."""
        self.temporary = path / "drafts"
        """Folder for files that are renamed when they are complete."""
        self.records = path / "records.parquet"

    @classmethod
    @contextmanager
    def acquire(cls, out: Path) -> Iterator[Self]:
        """Lock the work directory of a collection; on exit, remove it unless it holds chunks.

        Raise FileExistsError if `out` exists, and WorkDirLockedError if another process holds the
        lock.
        """
        path = out.parent / f".{out.name}.part"
        if out.exists() and path.is_dir() and not (path / "collection").exists():
            shutil.rmtree(path, ignore_errors=True)  # a run was killed just before it removed this
        _refuse_existing(out)
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while (lock := _try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise WorkDirLockedError(
                    f"another process is preparing {out}; wait for it, or choose another --out"
                )
            time.sleep(0.1)
        with lock:
            work = cls(path, out)
            try:
                _refuse_existing(out)  # another process may have finished by now
                yield work
            finally:
                if out.exists() or not work.saved():
                    shutil.rmtree(path, ignore_errors=True)

    def claim(self, fingerprint: str) -> None:
        """Create the folders; remove the files of runs with another fingerprint."""
        mark = self._path / "fingerprint"
        folders = (self._chunks, self.collection)
        same = mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint
        if not same:
            if self.saved():
                reason = "left by a run with other records, settings or backbone"
                log.warning("ignoring %s, %s", self._path, reason)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (*folders, self.temporary):
            folder.mkdir(exist_ok=True)
        if not same:
            temporary = self.temporary / "fingerprint"
            temporary.write_text(fingerprint, encoding="utf-8")
            os.replace(temporary, mark)

    def saved(self) -> list[int]:
        """Return the first row of each saved chunk, ascending."""
        return sorted(int(path.stem) for path in self._chunks.glob("*.npz"))

    def save(self, start: int, chunk: Chunk) -> None:
        """Write a chunk atomically."""
        temporary = self.temporary / "part.npz"
        np.savez(temporary, **chunk._asdict())
        os.replace(temporary, self._chunk_path(start))

    def is_intact(self, start: int) -> bool:
        """Whether a chunk exists and passes its checksums, which a loss of power may break."""
        try:
            with zipfile.ZipFile(self._chunk_path(start)) as archive:
                return archive.testzip() is None
        except (OSError, zipfile.BadZipFile):
            return False

    def load(self, start: int) -> Chunk:
        """Read a chunk."""
        with np.load(self._chunk_path(start), allow_pickle=False) as arrays:
            return Chunk(**{name: arrays[name] for name in Chunk._fields})

    def load_column(self, start: int, name: str) -> np.ndarray:
        """Read one array of a chunk."""
        with np.load(self._chunk_path(start), allow_pickle=False) as arrays:
            return arrays[name]

    def keep_only(self, starts: set[int]) -> None:
        """Delete all other chunks."""
        for start in set(self.saved()) - starts:
            self._chunk_path(start).unlink()

    def finish(self) -> None:
        """Move the collection to its final path; raise FileExistsError if that exists by now."""
        _refuse_existing(self._out)
        os.rename(self.collection, self._out)

    def _chunk_path(self, start: int) -> Path:
        return self._chunks / f"{start:09}.npz"


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists already; choose another name or remove it first")


def _try_lock(folder: Path) -> IO[str] | None:
    """Lock a folder for this process, and create it if it is missing; None if another holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    try:
        stream = path.open("a")
    except FileNotFoundError:  # its previous holder has just removed the folder
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
