"""Records, the `Source` protocol, the table of all records, splits, and skipped records.

A `Source` yields the records of one data set and opens their images; only a source knows the file
format of its data set. It is small and picklable, so that each decoder process can hold a copy.

A split that the source does not name is derived from a hash of the image. Equal images therefore
always share a split: in shards, resumed runs, later versions and other collections.

A `RecordTable` holds every record that a source yields, in a Parquet file of the work directory. It
is read in groups of rows: millions of records need little memory.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.model.files import read_cell, safe_cell

SPLITS = ("train", "select", "test")
HASH_SPLIT = ""
"""Split of a record whose source names none; see `split_from_hash`."""
_TRAIN_SHARE, _SELECT_SHARE = 0.8, 0.1
_GROUP_ROWS = 1 << 14
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
RECORD_SCHEMA = pa.schema(
    {"key": _TEXT, "image": _TEXT, "captions": _TEXTS, "labels": _TEXTS, "split": _TEXT}
)
"""Fields of a `Record`."""
MAX_BAD_SHARE = 0.05
"""A larger share of bad records, or of malformed rows, stops a preparation."""


def split_from_hash(content: int) -> str:
    """Map a 64-bit hash of an image, or an id, to a split: 80 % train, 10 % select, 10 % test."""
    share = content / 2**64
    if share < _TRAIN_SHARE:
        return "train"
    return "select" if share < _TRAIN_SHARE + _SELECT_SHARE else "test"


def image_hash(image: Image.Image) -> int:
    """Return a 64-bit hash of the size and pixels of an upright RGB image."""
    return hash64(f"{image.width}x{image.height}".encode(), image.tobytes())


def hash64(*parts: bytes) -> int:
    """Return the first 64 bits of the SHA-256 of concatenated parts."""
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
    """Origin of a collection's records. Instances are picklable and hold no open files.

    A source may also have `skipped_rows`, which returns a list of `Skipped`, and the attributes
    `root` and `follow_links` of `sieve.data_prep.sources.BaseSource`.
    """

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
        """Open the record's image in RGB, upright; raise ValueError if it cannot be used.

        `size` is the requested long side in pixels, a hint for sources that draw.
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
    """Count skipped records by the kind of their reason, with an example of each kind."""

    _SEVERAL = re.compile(r"[^:]+: (\d[\d,]{0,14}) of them(?:;.*)?")

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, tuple[str, str]] = {}
        """Key and reason of the first entry of each kind."""
        for entry in entries:
            self.add(entry.key, entry.reason)

    @property
    def total(self) -> int:
        """Number of skipped records, several of which one entry may represent."""
        return self.counts.total()

    def add(self, key: str, reason: str) -> None:
        """Count one record, or as many as the reason states."""
        kind = reason.split(":")[0]
        several = self._SEVERAL.fullmatch(reason)
        self.counts[kind] += int(several[1].replace(",", "")) if several else 1
        self._examples.setdefault(kind, (key, reason))

    def update(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.counts.update(other.counts)
        self._examples = other._examples | self._examples

    def describe(self) -> str:
        """Return one line with all kinds, each with its count and an example."""
        counts = self.counts.most_common()
        return ", ".join(f"{n:,} × {kind} ({self._examples[kind][0]})" for kind, n in counts)

    def explain(self, n: int = 4) -> str:
        """Return one line with the most frequent kinds: count, full reason and example."""
        found = [(count, *self._examples[kind]) for kind, count in self.counts.most_common(n)]
        return "; ".join(f"{count:,} × {reason} ({key})" for count, key, reason in found)


class SkippedRows(list[Skipped]):
    """Entries that a source skips while reading, with counts of all and of malformed rows."""

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        super().__init__(entries)
        self.n_rows = 0
        """Number of rows read, including valid ones."""
        self.malformed = Tally()
        """Rows that could not be parsed; more than 5 % of them stop a preparation. A row with no
        caption, or with a repeated one, is skipped but not malformed."""

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


def skipped_rows(source: Source) -> SkippedRows:
    """Return the rows that a source skipped; call it after reading the records."""
    rows = getattr(source, "skipped_rows", SkippedRows)()
    return rows if isinstance(rows, SkippedRows) else SkippedRows(rows)


def is_utf8(text: str) -> bool:
    """Return whether a text has no surrogates, which stand for invalid bytes of file names."""
    return re.search(r"[\ud800-\udfff]", text) is None


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


@dataclass
class RecordTable:
    """Records of a source by row, in its order, without repeated ids."""

    path: Path
    """Parquet file of all r records that the source yields; empty where a name is not UTF-8."""
    ids: np.ndarray
    """(n,) uint64"""
    positions: np.ndarray
    """(n,) int64: position of each row's record among those that the source yields"""
    text_starts: np.ndarray
    """(r + 1,) int64: first caption of each record that the source yields; last, their number"""
    sha256: str
    """Hash of all records that the source yields."""
    left_out: list[Skipped]
    """Records without a row."""
    _cached: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray | range) -> pa.Table:
        """Read the given ascending rows; each group of the file is read at most once."""
        positions = self.positions[rows]
        groups = positions // _GROUP_ROWS
        pieces = [
            self._group(number).take(positions[groups == number] - number * _GROUP_ROWS)
            for number in np.unique(groups).tolist()
        ]
        return pa.concat_tables([RECORD_SCHEMA.empty_table(), *pieces])

    def records(self, rows: np.ndarray | range) -> list[Record]:
        """Build the records of the given ascending rows."""
        return [
            Record(r["key"], r["image"], tuple(r["captions"]), tuple(r["labels"]), r["split"])
            for r in self.take(rows).to_pylist()
        ]

    def caption_counts(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of captions of each given row: (b,) int64."""
        positions = self.positions[rows]
        return self.text_starts[positions + 1] - self.text_starts[positions]

    def caption_positions(self, rows: np.ndarray) -> np.ndarray:
        """Return where the captions of the given rows are among those of the source: (c,) int64."""
        counts = self.caption_counts(rows)
        before = np.cumsum(counts) - counts
        starts = self.text_starts[self.positions[rows]]
        return np.repeat(starts - before, counts) + np.arange(counts.sum())

    def id(self, row: int) -> str:
        """Return the id of a row's record."""
        return f"{self.ids[row]:016x}"

    def _group(self, number: int) -> pa.Table:
        if self._cached is None or self._cached[0] != number:
            # No threads: forked decoders would wait for the threads of their parent.
            with pq.ParquetFile(self.path) as file:
                self._cached = number, file.read_row_group(number, use_threads=False)
        return self._cached[1]


def read_records(source: Source, path: Path) -> RecordTable:
    """Write all records of a source to a file; raise ValueError if there are none."""
    digest = hashlib.sha256()
    ids, positions, text_starts = array("Q"), array("q"), array("q", [0])
    left_out: list[tuple[int, Skipped]] = []
    records = iter(source.records())
    options = {"compression": "zstd", "write_statistics": False, "use_compliant_nested_type": False}
    with pq.ParquetWriter(path, RECORD_SCHEMA, **options) as writer:
        while group := list(islice(records, _GROUP_ROWS)):
            for i, record in enumerate(group):
                position = len(text_starts) - 1
                text_starts.append(text_starts[-1] + len(record.captions))
                fields = (record.key, record.image, record.split, *record.captions, "")
                text = "\0".join((*fields, *record.labels))
                data = text.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "big") + data)
                if is_utf8(text):
                    ids.append(int(record.id, 16))
                    positions.append(position)
                else:
                    reason = "name is not UTF-8: rename it"
                    left_out.append((position, Skipped(record.key, record.image, reason)))
                    group[i] = Record("", "")
            writer.write_table(pa.Table.from_pylist([vars(one) for one in group], RECORD_SCHEMA))
    if len(text_starts) == 1:
        skipped = skipped_rows(source)
        unused = f"; not used: {Tally(skipped).explain()}" if skipped else ""
        raise ValueError(f"there are no images in {source}: there is nothing to prepare{unused}")
    pa.default_memory_pool().release_unused()  # memory that the source used while reading
    ids_n, positions_n, starts = map(np.asarray, (ids, positions, text_starts))
    table = RecordTable(path, ids_n, positions_n, starts, digest.hexdigest(), [])
    _drop_repeated_ids(table, left_out)
    return table


def _drop_repeated_ids(table: RecordTable, left_out: list[tuple[int, Skipped]]) -> None:
    """Keep the first row of each id; list all records without a row, in their order."""
    first = np.zeros(len(table), bool)
    first[np.unique(table.ids, return_index=True)[1]] = True
    repeated = np.flatnonzero(~first)
    for row, record in zip(repeated, table.records(repeated), strict=True):
        reason = f"duplicate id: {record.id} is {record.key} already"
        left_out.append((table.positions[row], Skipped(record.key, record.image, reason)))
    table.ids, table.positions = table.ids[first], table.positions[first]
    table.left_out += [entry for _, entry in sorted(left_out, key=lambda pair: pair[0])]
