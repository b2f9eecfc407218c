"""Captions of images: rows of a file, put together by image.

Rows are kept as Arrow columns and grouped by index, so that the three million rows of Conceptual
Captions take some hundred megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sieve.data_prep.captions.caption_text import (
    Columns,
    Described,
    caption_fault,
    split_named,
    tidy,
)
from sieve.data_prep.captions.formats import CaptionRow, read_rows
from sieve.data_prep.records import SPLITS, SkippedRows

MAX_NAME_CHARACTERS = 1_000
_BETWEEN = "\x1f"
"""Stands between an image's labels; no tidy label has it."""
_CHUNK = 1 << 16
_FILE_BITS = 40


class ResolvesNames(Protocol):
    """Finds the images that the names in a caption file mean."""

    def resolve(self, names: Iterable[str]) -> Resolved:
        """Resolve all names of a file at once, so that a match can be unique on both sides."""
        ...


class Resolved(NamedTuple):
    """The roles of a file's columns."""

    keys: Mapping[str, str]
    """Key of the image, for each name that is not its own key."""
    refused: Mapping[str, str]
    """Reason, for each name that may mean several images."""


def read_captions(
    path: Path, columns: Columns | None = None, names: ResolvesNames | None = None
) -> CaptionsByImage:
    """Read a caption file; see `sieve.data_prep.captions.formats`.

    Several rows may describe one image; a caption that repeats there is kept once.

    Parameters
    ----------
    path : Path
    columns : Columns, optional
    names : ResolvesNames, optional
        Finds the images that are meant; by default a name is its own key.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not of its format, lacks a column, or has an unknown split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no caption file {path}; check --captions")
    reading = CaptionReading(path.name)
    for row in read_rows(path, columns or Columns(), reading.add_malformed):
        reading.add(row)
    return reading.whole(names)


class CaptionReading:
    """Collect rows as they are read; rows that say nothing are skipped with their reason.

    Parameters
    ----------
    name : str
        Of the file, for the places of skipped rows.
    """

    def __init__(self, name: str) -> None:
        self._names = [name]
        self._skipped = SkippedRows()
        self._places: list[int] = []
        self._last = ""
        self._last_line = -1
        # Rows of one image are mostly neighbours: a run of them has one key.
        self._runs, self._lines = array("i"), array("q")
        self._keys = _Column(pa.large_string())
        self._splits = array("b")  # 0: none, else 1 + place in SPLITS
        self._captions, self._labels = _Column(pa.string()), _Column(pa.string())

    def next_file(self, name: str) -> None:
        """Begin another file, whose rows are counted from 1 again."""
        self._names.append(name)
        self._last_line = -1

    def add(self, row: CaptionRow) -> None:
        """Add one row; one without a usable caption still has a split and labels."""
        if row.line != self._last_line:
            self._skipped.n_rows += 1
            self._last_line = row.line
        if not row.image:
            self._malformed(row.line, "", "no image name")
            return
        if len(row.image) > MAX_NAME_CHARACTERS:
            self._malformed(row.line, row.image, "huge image name")
            return
        split = split_named(row.split)
        if row.split.strip() and split is None:
            raise ValueError(
                f"{self._names[-1]}:{row.line} has split {tidy(row.split)[:40]!r}; expected "
                f"{', '.join(SPLITS)} (or val, dev), or nothing to have it drawn"
            )
        caption = tidy(row.caption)
        fault = caption_fault(caption)
        if fault:
            self._skip(self._place(row.line), row.image, fault)
        if row.image != self._last:
            self._keys.append(row.image)
            self._last = row.image
        self._runs.append(len(self._keys) - 1)
        self._lines.append(self._place(row.line))
        self._splits.append(SPLITS.index(split) + 1 if split else 0)
        self._captions.append(None if fault else caption)
        self._labels.append(_BETWEEN.join(filter(None, map(tidy, row.labels))) or None)

    def add_malformed(self, line: int, image: str, reason: str) -> None:
        """Note a row that cannot be read."""
        self._skipped.n_rows += 1
        self._last_line = line
        self._malformed(line, image, reason)

    def _malformed(self, line: int, image: str, reason: str) -> None:
        self._note(self._place(line), image, reason, malformed=True)

    def _place(self, line: int) -> int:
        """Pack the number of the file and the line in it."""
        return ((len(self._names) - 1) << _FILE_BITS) + line

    def _skip(self, place: int, image: str, reason: str) -> None:
        self._note(place, image, reason, malformed=False)

    def _note(self, place: int, image: str, reason: str, malformed: bool) -> None:
        self._places.append(place)
        key = f"{self._names[place >> _FILE_BITS]}:{place & ((1 << _FILE_BITS) - 1)}"
        note = self._skipped.add_malformed if malformed else self._skipped.add
        note(key, tidy(image)[:200], reason)

    def whole(self, names: ResolvesNames | None = None) -> CaptionsByImage:
        """Group the rows by image.

        Parameters
        ----------
        names : ResolvesNames, optional
            Finds the images that are meant; by default a name is its own key.
        """
        keys, numbers = _numbered(self._keys.whole())
        owners = numbers[np.array(self._runs, np.int32)]
        captions, labels = self._captions.whole(), self._labels.whole()
        splits, lines = np.array(self._splits, np.int8), np.array(self._lines, np.int64)
        if names is not None:
            resolved = names.resolve(_Strings(keys))
            if resolved.keys or resolved.refused:
                keys, owners = self._renamed(keys, owners, lines, resolved)
                kept = owners >= 0
                mask = pa.array(kept)
                captions, labels = captions.filter(mask), labels.filter(mask)
                owners, splits, lines = owners[kept], splits[kept], lines[kept]
        rows = _Rows(owners, captions, labels, splits, lines)
        pa.default_memory_pool().release_unused()
        for row, reason in [*_repeated(rows), *_contradicted(rows, len(keys))]:
            self._skip(int(lines[row]), keys[int(rows.owners[row])].as_py(), reason)
        order = sorted(range(len(self._places)), key=self._places.__getitem__)
        self._skipped[:] = [self._skipped[place] for place in order]
        return CaptionsByImage(keys, rows, self._skipped)

    def _renamed(
        self, keys: pa.Array, owners: np.ndarray, lines: np.ndarray, resolved: Resolved
    ) -> tuple[pa.Array, np.ndarray]:
        """Give rows the key of their image, or -1 if it is refused."""
        names = [key.as_py() for key in keys]
        is_refused = np.array([name in resolved.refused for name in names], bool)
        for row in np.flatnonzero(is_refused[owners]).tolist():
            name = names[owners[row]]
            self._note(int(lines[row]), name, resolved.refused[name], malformed=True)
        kept: dict[str, int] = {}
        renumbered = np.full(len(names), -1, np.int32)
        for number, name in enumerate(names):
            if name not in resolved.refused:
                key = resolved.keys.get(name, name)
                renumbered[number] = kept.setdefault(key, len(kept))
        return pa.array(list(kept), pa.large_string()), renumbered[owners]


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


class _Strings:
    """Strings of an Arrow array, made as they are iterated."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return (value.as_py() for value in self._values)


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
    skipped : SkippedRows
        Rows that are left out, in the file's order.
    """

    def __init__(self, keys: pa.Array, rows: _Rows, skipped: SkippedRows) -> None:
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
        """Return the lines of all rows of one image."""
        return self._rows.lines[self._rows.of(number)].tolist()

    def caption_lines(self, number: int) -> list[int]:
        """Return the lines of one image's captions, in the order of the captions."""
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
