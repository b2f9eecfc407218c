"""Caption tables: the rows of a caption file, grouped by image.

Rows are stored as Arrow columns and grouped by index, so that the three million rows of Conceptual
Captions take a few hundred megabytes.
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

from sieve.data_prep.captions.caption_rows import CaptionRow
from sieve.data_prep.captions.caption_text import (
    Columns,
    ImageDescription,
    caption_fault,
    tidy,
)
from sieve.data_prep.captions.cell import read_split
from sieve.data_prep.captions.formats import read_rows
from sieve.data_prep.records import SPLITS, SkippedRows

MAX_NAME_CHARACTERS = 1_000
_LABEL_DELIMITER = "\x1f"
"""Separates the labels of an image; no tidy label contains it."""
_CHUNK = 1 << 16
_FILE_BITS = 40


class NameResolver(Protocol):
    """Finds the images that the names in a caption file refer to."""

    def resolve(self, names: Iterable[str]) -> ResolvedNames:
        """Resolve all names of a file at once, so that a match can be unique on both sides."""
        ...


class ResolvedNames(NamedTuple):
    """The images that the names in a caption file refer to."""

    keys: Mapping[str, str]
    """Key of the image, for each name that is not its own key."""
    refused: Mapping[str, str]
    """Reason, for each name that may refer to several images."""


def read_captions(
    path: Path, columns: Columns | None = None, names: NameResolver | None = None
) -> CaptionsByImage:
    """Read a caption file; see `sieve.data_prep.captions.formats`.

    Several rows may describe one image; a repeated caption of an image is stored once.

    Parameters
    ----------
    path : Path
    columns : Columns, optional
    names : NameResolver, optional
        Finds the images that the names refer to; by default a name is its own key.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not in its format, lacks a column, or has an unknown split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no caption file {path}; check --captions")
    builder = CaptionTableBuilder(path.name)
    for row in read_rows(path, columns or Columns(), builder.add_malformed):
        builder.add(row)
    return builder.build(names)


class CaptionTableBuilder:
    """Collects rows into a table; rows without content are skipped with a reason.

    Parameters
    ----------
    name : str
        Name of the file, for the keys of skipped rows.
    """

    def __init__(self, name: str) -> None:
        self._names = [name]
        self._skipped = SkippedRows()
        self._places: list[int] = []
        self._last = ""
        self._last_line = -1
        # Rows of one image are usually adjacent: a run of them shares one key.
        self._runs, self._lines = array("i"), array("q")
        self._keys = _Column(pa.large_string())
        self._splits = array("b")  # 0: none, else 1 + index in SPLITS
        self._captions, self._labels = _Column(pa.string()), _Column(pa.string())

    def next_file(self, name: str) -> None:
        """Start another file, whose rows are counted from 1 again."""
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
        split = read_split(row.split, f"{self._names[-1]}:{row.line}") if row.split else ""
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
        self._labels.append(_LABEL_DELIMITER.join(filter(None, map(tidy, row.labels))) or None)

    def add_malformed(self, line: int, image: str, reason: str) -> None:
        """Add a row that cannot be read to the skipped rows."""
        self._skipped.n_rows += 1
        self._last_line = line
        self._malformed(line, image, reason)

    def _malformed(self, line: int, image: str, reason: str) -> None:
        self._note(self._place(line), image, reason, malformed=True)

    def _place(self, line: int) -> int:
        """Pack the index of the file and the line in it into one integer."""
        return ((len(self._names) - 1) << _FILE_BITS) + line

    def _skip(self, place: int, image: str, reason: str) -> None:
        self._note(place, image, reason, malformed=False)

    def _note(self, place: int, image: str, reason: str, malformed: bool) -> None:
        self._places.append(place)
        key = f"{self._names[place >> _FILE_BITS]}:{place & ((1 << _FILE_BITS) - 1)}"
        note = self._skipped.add_malformed if malformed else self._skipped.add
        note(key, tidy(image)[:200], reason)

    def build(self, names: NameResolver | None = None) -> CaptionsByImage:
        """Group the rows by image.

        Parameters
        ----------
        names : NameResolver, optional
            Finds the images that the names refer to; by default a name is its own key.
        """
        keys, numbers = _unique_keys(self._keys.build())
        owners = numbers[np.array(self._runs, np.int32)]
        captions, labels = self._captions.build(), self._labels.build()
        splits, lines = np.array(self._splits, np.int8), np.array(self._lines, np.int64)
        if names is not None:
            resolved = names.resolve(_Strings(keys))
            if resolved.keys or resolved.refused:
                keys, owners = self._with_resolved_keys(keys, owners, lines, resolved)
                kept = owners >= 0
                mask = pa.array(kept)
                captions, labels = captions.filter(mask), labels.filter(mask)
                owners, splits, lines = owners[kept], splits[kept], lines[kept]
        rows = _Rows(owners, captions, labels, splits, lines)
        pa.default_memory_pool().release_unused()
        for row, reason in [*_drop_duplicates(rows), *_split_conflicts(rows, len(keys))]:
            self._skip(int(lines[row]), keys[int(rows.owners[row])].as_py(), reason)
        order = sorted(range(len(self._places)), key=self._places.__getitem__)
        self._skipped[:] = [self._skipped[place] for place in order]
        return CaptionsByImage(keys, rows, self._skipped)

    def _with_resolved_keys(
        self, keys: pa.Array, owners: np.ndarray, lines: np.ndarray, resolved: ResolvedNames
    ) -> tuple[pa.Array, np.ndarray]:
        """Assign each row the resolved key of its image, or -1 if its name is refused."""
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


def _unique_keys(given: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Return the distinct names in order of first occurrence, and the index of each row's name.

    Names are sorted: a hash table, in Python or in Arrow, takes several times their memory.

    Returns
    -------
    tuple of pa.Array and np.ndarray
        (k,) the names; (r,) int32 the index of each row's name
    """
    names = given.combine_chunks()
    del given  # a copy of millions of names is large
    order = pc.sort_indices(names).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    ascending = names.take(order)
    begins = np.ones(len(names), bool)
    begins[1:] = pc.not_equal(ascending[1:], ascending[:-1])  # pyright: ignore[reportAttributeAccessIssue]
    del ascending
    if begins.all():
        return names, np.arange(len(names), dtype=np.int32)
    firsts = order[begins]  # the sort is stable
    numbers = np.empty(len(firsts), np.int32)
    numbers[np.argsort(firsts)] = np.arange(len(firsts))
    which = np.empty(len(names), np.int32)
    which[order] = numbers[np.cumsum(begins, dtype=np.int32) - 1]
    return names.take(np.sort(firsts)), which


class _Strings:
    """Strings of an Arrow array, converted while they are iterated."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return (value.as_py() for value in self._values)


class _Column:
    """A growing Arrow column of strings."""

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

    def build(self) -> pa.ChunkedArray:
        """Return all strings, and release them."""
        self._flush()
        chunks, self._chunks = self._chunks, []
        return pa.chunked_array(chunks, self._kind)

    def _flush(self) -> None:
        if self._last:
            self._chunks.append(pa.array(self._last, self._kind))
            self._last = []


class _Rows:
    """Columns of all rows, with the image that each row describes."""

    def __init__(
        self,
        owners: np.ndarray,
        captions: pa.ChunkedArray,
        labels: pa.ChunkedArray,
        splits: np.ndarray,
        lines: np.ndarray,
    ) -> None:
        self.owners = owners
        """(r,) int32, index of the image's key"""
        self.captions = captions
        self.labels = labels
        self.splits = splits
        """(r,) int8"""
        self.lines = lines
        """(r,) int64"""
        self.dropped = np.zeros(len(owners), bool)
        """(r,) bool, whether the caption repeats an earlier one of its image"""
        self._order = np.argsort(owners, kind="stable").astype(np.int32)
        self._starts = np.searchsorted(owners[self._order], np.arange(owners.max(initial=-1) + 2))

    def of(self, owner: int) -> list[int]:
        """Return the rows of one image, in file order."""
        return self._order[self._starts[owner] : self._starts[owner + 1]].tolist()

    def shared_owners(self) -> list[int]:
        """Return the images that have more than one row."""
        return np.flatnonzero(np.diff(self._starts) > 1).tolist()


def _drop_duplicates(rows: _Rows) -> Iterator[tuple[int, str]]:
    """Drop captions that repeat an earlier one of their image; yield their rows and a reason."""
    for owner in rows.shared_owners():
        seen: set[str] = set()
        for row in rows.of(owner):
            caption = rows.captions[row].as_py()
            if caption in seen:
                rows.dropped[row] = True
                yield row, "duplicate caption"
            elif caption is not None:
                seen.add(caption)


def _split_conflicts(rows: _Rows, n_keys: int) -> Iterator[tuple[int, str]]:
    """Apply the first split of each image to all its rows; yield rows that contradict it."""
    with_split = np.flatnonzero(rows.splits)
    first = np.zeros(n_keys, np.int8)
    # Reversed, because the last of several writes to one index wins.
    first[rows.owners[with_split][::-1]] = rows.splits[with_split][::-1]
    used = first[rows.owners]
    for row in with_split[rows.splits[with_split] != used[with_split]].tolist():
        here, before = SPLITS[rows.splits[row] - 1], SPLITS[used[row] - 1]
        yield row, f"split {here} contradicts the image's earlier split {before}, which is used"
    rows.splits[:] = used


class CaptionsByImage(Mapping[str, ImageDescription]):
    """Descriptions of images by key, in file order.

    Attributes
    ----------
    skipped : SkippedRows
        Skipped rows, in file order.
    """

    def __init__(self, keys: pa.Array, rows: _Rows, skipped: SkippedRows) -> None:
        self.skipped = skipped
        self._keys = keys
        self._rows = rows

    def sorted_keys(self) -> Iterator[tuple[str, int]]:
        """Yield all keys, sorted, each with its number: its index in file order."""
        order = pc.sort_indices(self._keys)  # pyright: ignore[reportAttributeAccessIssue]
        for number in map(int, order.to_numpy()):
            yield self._keys[number].as_py(), number

    def describe(self, number: int) -> ImageDescription:
        """Return the description of the image with a number."""
        description = ImageDescription()
        named: dict[str, None] = {}
        for row in self._rows.of(number):
            caption, labels = self._rows.captions[row].as_py(), self._rows.labels[row].as_py()
            if caption is not None and not self._rows.dropped[row]:
                description.captions.append(caption)
            named.update(dict.fromkeys(labels.split(_LABEL_DELIMITER) if labels else ()))
            split = int(self._rows.splits[row])
            description.split = SPLITS[split - 1] if split else ""
        description.labels = list(named)
        return description

    def lines(self, number: int) -> list[int]:
        """Return the line numbers of all rows of one image."""
        return self._rows.lines[self._rows.of(number)].tolist()

    def caption_lines(self, number: int) -> list[int]:
        """Return the line numbers of one image's captions, in the order of the captions."""
        rows = self._rows.of(number)
        kept = [r for r in rows if self._rows.captions[r].is_valid and not self._rows.dropped[r]]
        return self._rows.lines[kept].tolist()

    def __getitem__(self, key: str) -> ImageDescription:
        """Return the description of the image with a key."""
        return self.describe(self._numbers[key])

    def __iter__(self) -> Iterator[str]:
        return (key.as_py() for key in self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self)}
