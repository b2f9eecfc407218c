"""Records, the `Source` protocol, hash-based splits, and the list of skipped records.

A `Source` yields the records of one data set and opens their images; only a source knows the file
format of its data set. It is small and picklable, so that each decoder process can hold a copy.

A split that the source does not name is derived from a hash of the image. Equal images therefore
always share a split: in shards, resumed runs, later versions and other collections.
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

SPLITS = ("train", "select", "test")
HASH_SPLIT = ""
"""Split of a record whose source names none; see `split_from_hash`."""
_TRAIN_SHARE, _SELECT_SHARE = 0.8, 0.1
MAX_BAD_SHARE = 0.05
"""A larger share of bad records, or of malformed rows, stops a preparation."""


def split_from_hash(content: int) -> str:
    """Map a hash to a split: 80 % train, 10 % select, 10 % test.

    Parameters
    ----------
    content : int
        64-bit hash of the image, or an item's id if there is no image.
    """
    share = content / 2**64
    if share < _TRAIN_SHARE:
        return "train"
    return "select" if share < _TRAIN_SHARE + _SELECT_SHARE else "test"


def image_hash(image: Image.Image) -> int:
    """Return a 64-bit hash of the size and pixels of an upright RGB image."""
    return _hash64(f"{image.width}x{image.height}".encode(), image.tobytes())


def embedding_hash(embedding: np.ndarray) -> int:
    """Return a 64-bit hash of one embedding, (d,) float16."""
    return _hash64(embedding.tobytes())


def _hash64(*parts: bytes) -> int:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest()[:8], "big")


@dataclass(frozen=True)
class Record:
    """One image with its captions, labels and split."""

    key: str
    """Stable key in the source, from which the id is computed: a relative path or an id."""
    image: str
    """Original image: a path, or `scene:SEED:INDEX` for a drawn scene."""
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
    """Origin of a collection's records. Instances are picklable and hold no open files."""

    @property
    def name(self) -> str:
        """Name of the collection."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the images, for people to read."""
        ...

    def records(self) -> Iterator[Record]:
        """Yield all records in an order that depends only on the source."""
        ...

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open the record's image in RGB, upright.

        Parameters
        ----------
        record : Record
        size : int
            Requested long side in pixels; a hint for sources that draw.

        Raises
        ------
        ValueError
            With a one-line reason if the image cannot be used.
        """
        ...


class Skipped(NamedTuple):
    """A record, a file or a row of a caption file that is not in the collection."""

    key: str
    """Key of the record, or file and line of a row: `captions.csv:17`."""
    image: str
    reason: str
    """`KIND: details; what to do`. Entries are counted by kind, the part before the colon. Details
    such as `512 of them` say how many records an entry represents."""


class Tally:
    """Count entries by the kind of their reason, with an example of each.

    Attributes
    ----------
    total : int
        Number of entries, where one entry may represent several records.
    """

    _SEVERAL = re.compile(r"[^:]+: (\d[\d,]{0,14}) of them(?:;.*)?")

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        self.total = 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, tuple[str, str]] = {}
        """Key and reason of the first entry of each kind."""
        for entry in entries:
            self.add(entry.key, entry.reason)

    def add(self, key: str, reason: str) -> None:
        """Count one entry, or as many as its reason states."""
        kind = reason.split(":")[0]
        several = self._SEVERAL.fullmatch(reason)
        count = int(several[1].replace(",", "")) if several else 1
        self.total += count
        self._counts[kind] += count
        self._examples.setdefault(kind, (key, reason))

    def update(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.total += other.total
        self._counts.update(other._counts)
        self._examples = other._examples | self._examples

    def most_common(self) -> list[tuple[str, int]]:
        """Return kinds and their counts, most frequent first."""
        return self._counts.most_common()

    def describe(self) -> str:
        """Return one line with all kinds, each with its count and an example."""
        return ", ".join(
            f"{count:,} × {kind} ({self._examples[kind][0]})" for kind, count in self.most_common()
        )

    def explain(self, n: int = 4) -> str:
        """Return one line with the most frequent kinds: count, full reason and example."""
        found = [(count, *self._examples[kind]) for kind, count in self.most_common()[:n]]
        return "; ".join(f"{count:,} × {reason} ({key})" for count, key, reason in found)


class SkippedRows(list[Skipped]):
    """Entries that a source skips while reading, with counts of all and of malformed rows.

    Attributes
    ----------
    n_rows : int
        Number of rows read, including valid ones.
    malformed : Tally
        Rows that could not be parsed; more than 5 % of them stop a preparation. A row with no
        caption, or with a repeated one, is skipped but not malformed.
    """

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        super().__init__(entries)
        self.n_rows = 0
        self.malformed = Tally()

    def add(self, key: str, image: str, reason: str) -> None:
        """Add a skipped row or file."""
        self.append(Skipped(key, image, reason))

    def add_malformed(self, key: str, image: str, reason: str) -> None:
        """Add a row that could not be parsed; the caller counts it in `n_rows`."""
        self.add(key, image, reason)
        self.malformed.add(key, reason)

    def count_rows(self, other: SkippedRows) -> None:
        """Add the row counts of another source or file, but not its entries."""
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
    """A source that reports skipped rows and files that are not records, such as empty captions."""

    def skipped_rows(self) -> Sequence[Skipped]:
        """Return all skipped rows in file order; call it after reading the records."""
        ...


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> int:
    """Write `skipped.csv` with safe cells; return its number of rows."""
    count = 0
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Skipped._fields)
        for entry in skipped:
            writer.writerow(map(safe_cell, entry))
            count += 1
    return count


def read_skipped(path: Path) -> Iterator[Skipped]:
    """Read `skipped.csv` row by row; raise ValueError if it has another format."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        next(rows, None)
        for row in rows:
            if len(row) != len(Skipped._fields):
                raise ValueError(
                    f"{path} is damaged: line {rows.line_num} has {len(row)} columns, expected "
                    f"{len(Skipped._fields)}; prepare the collection again"
                )
            yield Skipped(*map(read_cell, row))
