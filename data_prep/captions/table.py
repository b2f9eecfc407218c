"""Captions of images: rows of a file, put together by image.

Rows are kept as Arrow columns and grouped by index, so that the three million rows of Conceptual
Captions take some hundred megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sieve.data_prep.captions.formats import Row, read_rows
from sieve.data_prep.captions.text import Columns, Described, caption_fault, split_named, tidy
from sieve.data_prep.records import SPLITS
from sieve.data_prep.skipped import Skipped

MAX_NAME_CHARACTERS = 1_000
_BETWEEN = "\x1f"
"""Stands between an image's labels; no tidy label has it."""
_CHUNK = 1 << 16


def read_captions(
    path: Path, columns: Columns | None = None, key_of: Callable[[str], str] = str
) -> CaptionsByImage:
    """Read a caption file: CSV, TSV, JSON lines or Parquet; see `sieve.data_prep.captions.formats`.

    Several rows may describe one image; a caption that repeats there is kept once.

    Parameters
    ----------
    path : Path
    columns : Columns, optional
    key_of : callable
        The key of the image that a name means; by default the name itself.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not of its format, lacks a column, or has an unknown split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no caption file {path}; check --captions")
    read = CaptionReading(path.name, key_of)
    for row in read_rows(path, columns or Columns(), read.skip):
        read.add(row)
    return read.whole()


class CaptionReading:
    """Rows that are being read; those that say nothing are left out by name.

    Parameters
    ----------
    name : str
        What the rows stand in.
    key_of : callable
        The key of the image that a name means; by default the name itself.
    """

    def __init__(self, name: str, key_of: Callable[[str], str] = str) -> None:
        self._name, self._key_of = name, key_of
        self._skipped: list[Skipped] = []
        self._last = ""
        # Rows of one image mostly stand together: a run of them has one key.
        self._runs, self._lines = array("i"), array("q")
        self._keys = _Column(pa.large_string())
        self._splits = array("b")  # 0: none, else 1 + place in SPLITS
        self._captions, self._labels = _Column(pa.string()), _Column(pa.string())

    def add(self, row: Row) -> None:
        """Take in one row; one without a usable caption still says split and labels."""
        if not row.image:
            self.skip(row.line, "", "no image name")
            return
        if len(row.image) > MAX_NAME_CHARACTERS:
            self.skip(row.line, row.image, "huge image name")
            return
        split = split_named(row.split)
        if row.split.strip() and split is None:
            raise ValueError(
                f"{self._name}:{row.line} has split {tidy(row.split)[:40]!r}; expected "
                f"{', '.join(SPLITS)} (or val, dev), or nothing to have it drawn"
            )
        caption = tidy(row.caption)
        fault = caption_fault(caption)
        if fault:
            self.skip(row.line, row.image, fault)
        if row.image != self._last:
            self._keys.append(self._key_of(row.image))
            self._last = row.image
        self._runs.append(len(self._keys) - 1)
        self._lines.append(row.line)
        self._splits.append(SPLITS.index(split) + 1 if split else 0)
        self._captions.append(None if fault else caption)
        self._labels.append(_BETWEEN.join(filter(None, map(tidy, row.labels))) or None)

    def skip(self, line: int, image: str, reason: str) -> None:
        """Note a row that is left out."""
        self._skipped.append(Skipped(f"{self._name}:{line}", tidy(image)[:200], reason))

    def whole(self) -> CaptionsByImage:
        """Put rows of one image together."""
        keys, numbers = _numbered(self._keys.whole())
        rows = _Rows(
            numbers[np.array(self._runs, np.int32)],
            self._captions.whole(),
            self._labels.whole(),
            np.array(self._splits, np.int8),
            np.array(self._lines, np.int64),
        )
        pa.default_memory_pool().release_unused()
        for row, reason in [*_repeated(rows), *_contradicted(rows, len(keys))]:
            self.skip(self._lines[row], keys[int(rows.owners[row])].as_py(), reason)
        self._skipped.sort(key=lambda entry: int(entry.key.rpartition(":")[2]))
        return CaptionsByImage(keys, rows, self._skipped)


def _numbered(given: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Find all names, each once, in the order in which they come first, and the number of each.

    They are sorted: a hash table, in Python or in Arrow, takes several times the names' memory.

    Returns
    -------
    tuple of pa.Array and np.ndarray
        (k,) the names; (r,) int32: which of them each is
    """
    names = given.combine_chunks()
    del given  # each copy of millions counts
    order = pc.sort_indices(names).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    ascending = names.take(order)
    begins = np.ones(len(names), bool)
    begins[1:] = pc.not_equal(ascending[1:], ascending[:-1])  # pyright: ignore[reportAttributeAccessIssue]
    del ascending
    if begins.all():
        return names, np.arange(len(names), dtype=np.int32)
    firsts = order[begins]  # equal ones stay in their order
    numbers = np.empty(len(firsts), np.int32)
    numbers[np.argsort(firsts)] = np.arange(len(firsts))
    which = np.empty(len(names), np.int32)
    which[order] = numbers[np.cumsum(begins, dtype=np.int32) - 1]
    return names.take(np.sort(firsts)), which


class _Column:
    """Strings that grow into an Arrow column."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._chunks: list[pa.Array] = []
        self._last: list[str | None] = []

    def __len__(self) -> int:
        return _CHUNK * len(self._chunks) + len(self._last)

    def append(self, value: str | None) -> None:
        self._last.append(value)
        if len(self._last) == _CHUNK:
            self._flush()

    def whole(self) -> pa.ChunkedArray:
        """Give all, and keep nothing."""
        self._flush()
        chunks, self._chunks = self._chunks, []
        return pa.chunked_array(chunks, self._kind)

    def _flush(self) -> None:
        if self._last:
            self._chunks.append(pa.array(self._last, self._kind))
            self._last = []


class _Rows:
    """Columns of all rows, with the image that each is of."""

    def __init__(
        self,
        owners: np.ndarray,
        captions: pa.ChunkedArray,
        labels: pa.ChunkedArray,
        splits: np.ndarray,
        lines: np.ndarray,
    ) -> None:
        self.owners = owners
        """(r,) int32: number of the image's key"""
        self.captions = captions
        self.labels = labels
        self.splits = splits
        """(r,) int8"""
        self.lines = lines
        """(r,) int64"""
        self.dropped = np.zeros(len(owners), bool)
        """(r,) whose caption is a repetition"""
        self._order = np.argsort(owners, kind="stable").astype(np.int32)
        self._starts = np.searchsorted(owners[self._order], np.arange(owners.max(initial=-1) + 2))

    def of(self, owner: int) -> list[int]:
        """Rows of one image, in the file's order."""
        return self._order[self._starts[owner] : self._starts[owner + 1]].tolist()

    def shared_owners(self) -> list[int]:
        """Images of more than one row."""
        return np.flatnonzero(np.diff(self._starts) > 1).tolist()


def _repeated(rows: _Rows) -> Iterator[tuple[int, str]]:
    """Find captions that their image has already, and drop them."""
    for owner in rows.shared_owners():
        seen: set[str] = set()
        for row in rows.of(owner):
            caption = rows.captions[row].as_py()
            if caption in seen:
                rows.dropped[row] = True
                yield row, "duplicate caption"
            elif caption is not None:
                seen.add(caption)


def _contradicted(rows: _Rows, n_keys: int) -> Iterator[tuple[int, str]]:
    """Find splits that contradict the first of their image, which counts for all its rows."""
    said = np.flatnonzero(rows.splits)
    first = np.zeros(n_keys, np.int8)
    first[rows.owners[said][::-1]] = rows.splits[said][::-1]  # of several writes the last stays
    counts = first[rows.owners]
    for row in said[rows.splits[said] != counts[said]].tolist():
        here, before = SPLITS[rows.splits[row] - 1], SPLITS[counts[row] - 1]
        yield row, f"split {here} contradicts {before} before, which counts"
    rows.splits[:] = counts


class CaptionsByImage(Mapping[str, Described]):
    """What a caption file says of each image, by key, in the file's order.

    Attributes
    ----------
    skipped : list of Skipped
        Rows that are left out, in the file's order.
    """

    def __init__(self, keys: pa.Array, rows: _Rows, skipped: list[Skipped]) -> None:
        self.skipped = skipped
        self._keys = keys
        self._rows = rows

    def in_order(self) -> Iterator[tuple[str, int]]:
        """Give all keys, sorted, each with its number: its place in the file's order."""
        order = pc.sort_indices(self._keys)  # pyright: ignore[reportAttributeAccessIssue]
        for number in map(int, order.to_numpy()):
            yield self._keys[number].as_py(), number

    def describe(self, number: int) -> Described:
        """Gather the rows of the image of a number."""
        described = Described()
        named: dict[str, None] = {}
        for row in self._rows.of(number):
            caption, labels = self._rows.captions[row].as_py(), self._rows.labels[row].as_py()
            if caption is not None and not self._rows.dropped[row]:
                described.captions.append(caption)
            named.update(dict.fromkeys(labels.split(_BETWEEN) if labels else ()))
            split = int(self._rows.splits[row])
            described.split = SPLITS[split - 1] if split else ""
        described.labels = list(named)
        return described

    def lines(self, number: int) -> list[int]:
        """Tell where one image's rows stand, all of them."""
        return self._rows.lines[self._rows.of(number)].tolist()

    def caption_lines(self, number: int) -> list[int]:
        """Tell where one image's captions stand, in the order in which they are given."""
        rows = self._rows.of(number)
        kept = [r for r in rows if self._rows.captions[r].is_valid and not self._rows.dropped[r]]
        return self._rows.lines[kept].tolist()

    def __getitem__(self, key: str) -> Described:
        """Gather the rows of the image of a key."""
        return self.describe(self._numbers[key])

    def __iter__(self) -> Iterator[str]:
        return (key.as_py() for key in self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self)}
