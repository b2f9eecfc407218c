"""Caption tables: the rows of a caption file, grouped by image.

Rows are stored as Arrow columns and grouped by index, so that the three million rows of Conceptual
Captions take a few hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sieve.data_prep.captions.caption_text import (
    CaptionRow,
    Columns,
    ImageDescription,
    caption_fault,
    read_split,
    tidy,
)
from sieve.data_prep.captions.formats import read_rows
from sieve.data_prep.records import SPLITS, SkippedRows

MAX_NAME_CHARACTERS = 1_000
_LABEL_DELIMITER = "\x1f"
"""Separates the labels of an image; no tidy label contains it."""
_CHUNK = 1 << 16
_FILE_BITS = 40
_SCHEMA = pa.schema([
    ("key", pa.large_string()),
    ("place", pa.int64()),  # index of the file, and line in it
    ("split", pa.int8()),  # 0: none, else 1 + index in SPLITS
    ("caption", pa.string()),
    ("labels", pa.string()),
])  # fmt: skip


ResolveNames = Callable[[Iterable[str]], tuple[Mapping[str, str], Mapping[str, str]]]
"""Find the images of all names of a file at once, so that a match can be unique on both sides.

Returns the key of each image whose name is not its key, and a reason for each ambiguous name.
"""


def read_captions(
    path: Path, columns: Columns | None = None, resolve: ResolveNames | None = None
) -> CaptionsByImage:
    """Read a caption file; see `sieve.data_prep.captions.formats`.

    Several rows may describe one image; a repeated caption of an image is stored once. By default
    the name of an image is its key. Raise FileNotFoundError if there is no such file, and
    ValueError if it is not in its format, lacks a column, or has an unknown split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no caption file {path}; check --captions")
    builder = CaptionTableBuilder(path.name)
    for row in read_rows(path, columns or Columns(), builder.add_malformed):
        builder.add(row)
    return builder.build(resolve)


class CaptionTableBuilder:
    """Collects the rows of named files; rows without content are skipped with a reason."""

    def __init__(self, name: str) -> None:
        self._names = [name]
        self._skipped = SkippedRows()
        self._skipped_places: list[int] = []
        self._last_line = -1
        self._rows: list[tuple[str, int, int, str | None, str]] = []
        self._batches: list[pa.RecordBatch] = []

    def next_file(self, name: str) -> None:
        """Start another file, whose rows are counted from 1 again."""
        self._names.append(name)
        self._last_line = -1

    def add(self, row: CaptionRow) -> None:
        """Add one row; one without a usable caption still has a split and labels."""
        if not row.image or len(row.image) > MAX_NAME_CHARACTERS:
            fault = "huge image name" if row.image else "no image name"
            self.add_malformed(row.line, row.image, fault)
            return
        self._count(row.line)
        split = read_split(row.split, f"{self._names[-1]}:{row.line}") if row.split else ""
        caption, place = tidy(row.caption), self._place(row.line)
        if fault := caption_fault(caption):
            self._skip(place, row.image, fault)
        labels = _LABEL_DELIMITER.join(filter(None, map(tidy, row.labels)))
        number = SPLITS.index(split) + 1 if split else 0
        self._rows.append((row.image, place, number, None if fault else caption, labels))
        if len(self._rows) == _CHUNK:
            self._flush()

    def add_malformed(self, line: int, image: str, reason: str) -> None:
        """Add a row that cannot be read to the skipped rows."""
        self._count(line)
        self._skip(self._place(line), image, reason, malformed=True)

    def build(self, resolve: ResolveNames | None = None) -> CaptionsByImage:
        """Group the rows by image; by default the name of an image is its key."""
        self._flush()
        table = pa.Table.from_batches(self._batches, _SCHEMA)
        self._batches.clear()
        names = table["key"].dictionary_encode().combine_chunks()
        keys, owners = names.dictionary, names.indices.to_numpy()
        table = table.drop_columns("key")
        places = table["place"].to_numpy()
        if resolve is not None:
            keys, owners = self._resolve(keys, owners, places, resolve)
            table = table.filter(pa.array(owners >= 0))
            places, owners = places[owners >= 0], owners[owners >= 0]
        splits = table["split"].to_numpy()
        with_split = np.flatnonzero(splits)[::-1]  # the last of several writes to one index wins
        first = np.zeros(len(keys), np.int8)
        first[owners[with_split]] = splits[with_split]
        used = first[owners]
        repeated = _repeated_captions(owners, table["caption"])
        faults = [(row, "duplicate caption") for row in repeated.tolist()]
        for row in np.flatnonzero((splits > 0) & (splits != used)).tolist():
            here, before = SPLITS[splits[row] - 1], SPLITS[used[row] - 1]
            reason = f"split {here} contradicts the image's earlier split {before}, which is used"
            faults.append((row, reason))
        for row, reason in faults:
            self._skip(int(places[row]), keys[int(owners[row])].as_py(), reason)
        order = sorted(range(len(self._skipped)), key=self._skipped_places.__getitem__)
        self._skipped[:] = [self._skipped[place] for place in order]
        has_caption = table["caption"].is_valid().to_numpy().copy()
        has_caption[repeated] = False
        return CaptionsByImage(keys, owners, table, used, has_caption, self._skipped)

    def _count(self, line: int) -> None:
        """Count a row once, however many captions it has."""
        self._skipped.n_rows += line != self._last_line
        self._last_line = line

    def _place(self, line: int) -> int:
        """Pack the index of the file and the line in it into one integer."""
        return ((len(self._names) - 1) << _FILE_BITS) + line

    def _skip(self, place: int, image: str, reason: str, malformed: bool = False) -> None:
        self._skipped_places.append(place)
        key = f"{self._names[place >> _FILE_BITS]}:{place & ((1 << _FILE_BITS) - 1)}"
        add = self._skipped.add_malformed if malformed else self._skipped.add
        add(key, tidy(image)[:200], reason)

    def _flush(self) -> None:
        if self._rows:
            columns = map(pa.array, zip(*self._rows, strict=True), _SCHEMA.types)
            self._batches.append(pa.record_batch(list(columns), schema=_SCHEMA))
            self._rows.clear()

    def _resolve(
        self, keys: pa.Array, owners: np.ndarray, places: np.ndarray, resolve: ResolveNames
    ) -> tuple[pa.Array, np.ndarray]:
        """Assign each row the resolved key of its image, or -1 if its name is refused."""
        names = keys.to_pylist()
        key_of, refused = resolve(names)
        if not key_of and not refused:
            return keys, owners
        is_refused = np.array([name in refused for name in names], bool)
        for row in np.flatnonzero(is_refused[owners]).tolist():
            name = names[owners[row]]
            self._skip(int(places[row]), name, refused[name], malformed=True)
        kept: dict[str, int] = {}
        renumbered = np.full(len(names), -1, np.int32)
        for number in np.flatnonzero(~is_refused).tolist():
            key = key_of.get(names[number], names[number])
            renumbered[number] = kept.setdefault(key, len(kept))
        return pa.array(list(kept), pa.large_string()), renumbered[owners]


def _repeated_captions(owners: np.ndarray, captions: pa.ChunkedArray) -> np.ndarray:
    """Return the rows whose caption repeats an earlier one of their image: (p,) integer."""
    shared = np.bincount(owners, minlength=1)[owners] > 1
    rows = np.flatnonzero(shared & captions.is_valid().to_numpy())
    codes = captions.take(pa.array(rows)).dictionary_encode().combine_chunks().indices.to_numpy()
    pairs = (owners[rows].astype(np.int64) << 32) | codes
    first = np.unique(pairs, return_index=True)[1]
    return np.delete(rows, first)


class CaptionsByImage(Mapping[str, ImageDescription]):
    """Descriptions of images by key, in file order, and the skipped rows of their file."""

    def __init__(
        self, keys: pa.Array, owners: np.ndarray, table: pa.Table, splits: np.ndarray,
        has_caption: np.ndarray, skipped: SkippedRows,
    ) -> None:  # fmt: skip
        self.skipped, self._keys = skipped, keys
        self._captions, self._labels = table["caption"], table["labels"]
        self._places = table["place"].to_numpy()
        self._splits, self._has_caption = splits, has_caption
        self._order = np.argsort(owners, kind="stable").astype(np.int32)
        self._starts = np.searchsorted(owners[self._order], np.arange(len(keys) + 1))

    def sorted_keys(self) -> Iterator[tuple[str, int]]:
        """Yield all keys, sorted, each with its number: its index in file order."""
        order = pc.sort_indices(self._keys)  # pyright: ignore[reportAttributeAccessIssue]
        for number in map(int, order.to_numpy()):
            yield self._keys[number].as_py(), number

    def describe(self, number: int) -> ImageDescription:
        """Return the description of the image with a number."""
        rows = self._rows_of(number)
        captions = [self._captions[row].as_py() for row in rows if self._has_caption[row]]
        labels = filter(None, (self._labels[row].as_py() for row in rows))
        named = dict.fromkeys(name for text in labels for name in text.split(_LABEL_DELIMITER))
        split = int(self._splits[rows[0]])
        return ImageDescription(captions, list(named), SPLITS[split - 1] if split else "")

    def caption_lines(self, number: int) -> list[int]:
        """Return the line numbers of one image's captions, in the order of the captions."""
        rows = self._rows_of(number)
        return [int(self._places[row]) for row in rows if self._has_caption[row]]

    def __getitem__(self, key: str) -> ImageDescription:
        return self.describe(self._numbers[key])

    def __iter__(self) -> Iterator[str]:
        return (key.as_py() for key in self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def _rows_of(self, number: int) -> list[int]:
        return self._order[self._starts[number] : self._starts[number + 1]].tolist()

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self)}
