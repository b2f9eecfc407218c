"""What every source of images yields: records, and a way to open their images.

A source is small and picklable, so that decoder processes can hold a copy. `prepare` turns its
records into a collection; nothing else in the house knows a dataset's file format.

Draw splits from what a picture shows, so that equal pictures always share one.

A draw depends on the picture alone: shards, resumed runs and later versions of a collection agree,
and a copy under another name, or in another collection, never crosses from train to test.

Records, rows and files that are not in a collection, with the reason for each.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from sieve.data_prep.csv_safety import read_cell, safe_cell

_TRAIN_SHARE, _SELECT_SHARE = 0.8, 0.1


def split_from_hash(content: int) -> str:
    """Draw a split: 80 % train, 10 % select, 10 % test.

    Parameters
    ----------
    content : int
        64-bit hash of the picture, or an item's id where there is no picture.
    """
    place = content / 2**64
    if place < _TRAIN_SHARE:
        return "train"
    return "select" if place < _TRAIN_SHARE + _SELECT_SHARE else "test"


def image_hash(image: Image.Image) -> int:
    """Hash the size and the pixels of an upright RGB image, to 64 bits."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def embedding_hash(embedding: np.ndarray) -> int:
    """Hash one embedding, (d,) float16, to 64 bits."""
    return int.from_bytes(hashlib.sha256(embedding.tobytes()).digest()[:8], "big")


COLUMNS = ("key", "image", "reason")
_SEVERAL = re.compile(r"[^:]+: (\d[\d,]{0,14}) of them(?:;.*)?")


MAX_BAD_SHARE = 0.05
"""A larger share of bad records, or of malformed rows, stops a preparation."""


class Skipped(NamedTuple):
    """One record, file or row of a caption file that is not in the collection."""

    key: str
    """The record's key, or the place of a row: `captions.csv:17`."""
    image: str
    reason: str
    """`KIND: details; what to do`; entries are counted by kind, the part before the colon. Details
    such as `512 of them` state how many an entry stands for."""


class SkippedRows(list[Skipped]):
    """Records that a source skips while it reads, with a count of the rows that were read.

    Attributes
    ----------
    n_rows : int
        Rows that were read, the good ones too.
    malformed : Tally
        Rows that could not be parsed: more than 5 % of them stop a preparation. A row without a
        caption or with a repeated one is skipped but not malformed.
    """

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        super().__init__(entries)
        self.n_rows = 0
        self.malformed = Tally()

    def add(self, key: str, image: str, reason: str) -> None:
        """Note a row or file that is left out."""
        self.append(Skipped(key, image, reason))

    def add_malformed(self, key: str, image: str, reason: str) -> None:
        """Note a row that could not be parsed; it is counted in `n_rows` by its reader."""
        self.append(Skipped(key, image, reason))
        self.malformed.add(key, reason)

    def count_rows(self, other: SkippedRows) -> None:
        """Add the counts of rows of another source or file, but not its entries."""
        self.n_rows += other.n_rows
        self.malformed.update(other.malformed)

    def check(self) -> None:
        """Raise ValueError if more than 5 % of the rows are malformed."""
        if self.malformed.total > MAX_BAD_SHARE * self.n_rows:
            raise ValueError(
                f"{self.malformed.total:,} of {self.n_rows:,} rows cannot be read, more than "
                f"{MAX_BAD_SHARE:.0%}: {self.malformed.explain()}; correct them, or leave them "
                "out with --keep-going"
            )


@runtime_checkable
class ReportsSkippedRows(Protocol):
    """A source that leaves out rows and files which are no records, such as empty captions."""

    def skipped_rows(self) -> Sequence[Skipped]:
        """Return all of them, in the order of the file; called after the records were read."""
        ...


class Tally:
    """Count entries by the kind of their reason, with an example of each.

    Attributes
    ----------
    total : int
    """

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        self.total = 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        for entry in entries:
            self.add(entry.key, entry.reason)

    def add(self, key: str, reason: str) -> None:
        """Count one more, or as many as the reason states."""
        kind = reason.split(":")[0]
        several = _SEVERAL.fullmatch(reason)
        count = int(several[1].replace(",", "")) if several else 1
        self.total += count
        self._counts[kind] += count
        self._examples.setdefault(kind, key)
        self._reasons.setdefault(kind, reason)

    def update(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.total += other.total
        self._counts.update(other._counts)
        self._examples = {**other._examples, **self._examples}
        self._reasons = {**other._reasons, **self._reasons}

    def most_common(self, n: int | None = None) -> list[tuple[str, int]]:
        """Return kinds with their counts, the most frequent first."""
        return self._counts.most_common(n)

    def describe(self, n: int | None = None) -> str:
        """Return the kinds, each with its count and an example, on one line."""
        most = self._counts.most_common(n)
        return ", ".join(f"{count:,} × {kind} ({self._examples[kind]})" for kind, count in most)

    def explain(self, n: int = 4) -> str:
        """Return the most frequent kinds, each with its count, an example and the whole reason."""
        most = self._counts.most_common(n)
        return "; ".join(
            f"{count:,} × {self._reasons[kind]} ({self._examples[kind]})" for kind, count in most
        )

    def __str__(self) -> str:
        """Return the four most frequent kinds."""
        return self.describe(4)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> int:
    """Write `skipped.csv`, every cell safe; returns how many rows it has."""
    count = 0
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in skipped:
            writer.writerow(map(safe_cell, entry))
            count += 1
    return count


def read_skipped(path: Path) -> Iterable[Skipped]:
    """Read `skipped.csv` row by row; ValueError where it is something else."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        next(rows, None)
        for row in rows:
            if len(row) != len(COLUMNS):
                raise ValueError(
                    f"{path} is damaged: line {rows.line_num} has {len(row)} columns, not "
                    f"{len(COLUMNS)}; prepare the collection again"
                )
            yield Skipped(*map(read_cell, row))


SPLITS = ("train", "select", "test")
HASH_SPLIT = ""
"""Split of a record whose source names none: it is drawn by the picture, see `data_prep.splits`."""


@dataclass(frozen=True)
class Record:
    """One image, with what is known about it before any model sees it."""

    key: str
    """Stable key in the source, of which the id is made: a relative path or the source's own id."""
    image: str
    """Where the original is: a path, or `scene:SEED:INDEX` for a scene that is drawn anew."""
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in (*SPLITS, HASH_SPLIT):
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the key."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]


class Source(Protocol):
    """A collection's origin. Instances are picklable and hold no open files."""

    name: str
    licence: str

    def records(self) -> Iterator[Record]:
        """All records, in an order that depends on nothing but the source."""
        ...

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open the record's image in RGB, upright.

        Parameters
        ----------
        record : Record
        size : int
            Wanted length of the long side in pixels; a hint for sources that draw.

        Raises
        ------
        ValueError
            With a one-line reason where the image cannot be used.
        """
        ...


def source_roots(source: Source) -> tuple[str, ...]:
    """Return the folder that a source's files are named relative to, if its files lie in one."""
    root: Path | None = getattr(source, "root", None)
    return () if root is None else (str(root),)
