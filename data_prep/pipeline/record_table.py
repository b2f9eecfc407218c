"""All records of a source, kept in Arrow's columns: millions take some hundred megabytes.

A `Record` is built only when it is asked for. Rows are the source's records in their order, without
those whose id another has already; the source's own places are kept, for what is known by place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.records import Record, Source
from data_prep.skipped import Skipped

_CHUNK = 1 << 14
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "image": pa.string(),
        "captions": pa.list_(pa.string()),
        "labels": pa.list_(pa.string()),
        "split": pa.string(),
    }
)


class RecordTable(NamedTuple):
    """What a source holds, by row."""

    columns: pa.Table
    """key, image, captions, labels, split: n rows"""
    ids: np.ndarray
    """(n,) uint64"""
    places: np.ndarray
    """(n,) int64: place of each record among all r that the source yields"""
    text_starts: np.ndarray
    """(r + 1,) int64: the first caption of each record that the source yields, then their sum"""
    sha256: str
    """Of all that the source yields."""
    left_out: list[Skipped]
    """Records without a row."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.ids)

    def records(self, start: int, stop: int) -> list[Record]:
        """Build the records of some rows."""
        return [_record(row) for row in self.columns.slice(start, stop - start).to_pylist()]

    def take(self, rows: np.ndarray) -> pa.Table:
        """Choose some rows, ascending, that lie close together."""
        if not len(rows):
            return self.columns.slice(0, 0)
        near = self.columns.slice(int(rows[0]), int(rows[-1] - rows[0]) + 1)
        return near.take(pa.array(rows - rows[0]))

    def caption_counts(self, rows: np.ndarray) -> np.ndarray:
        """Count the captions of some rows: (b,) int64."""
        places = self.places[rows]
        return self.text_starts[places + 1] - self.text_starts[places]

    def id(self, row: int) -> str:
        """Give a record's id."""
        return f"{self.ids[row]:016x}"


def gather(source: Source) -> RecordTable:
    """Read all records of a source.

    Raises
    ------
    ValueError
        If it has none.
    """
    reading = _Reading()
    for place, record in enumerate(source.records()):
        reading.add(place, record)
    if not reading.counts:
        raise ValueError(f"{source.name} has no images: there is nothing to prepare")
    return reading.table()


class _Reading:
    """Records that are being read."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._batches: list[pa.RecordBatch] = []
        self._last: list[Record] = []
        self._ids: list[np.ndarray] = []
        self._places: list[np.ndarray] = []
        self._last_places: list[int] = []
        self._digest = hashlib.sha256()
        self._left_out: list[tuple[int, Skipped]] = []

    def add(self, place: int, record: Record) -> None:
        """Take in the record at a place."""
        self.counts.append(len(record.captions))
        facts = (record.key, record.image, record.split, *record.captions, "", *record.labels)
        data = "\0".join(facts).encode("utf-8", "surrogatepass")
        self._digest.update(len(data).to_bytes(8, "big") + data)
        try:
            data.decode()
        except UnicodeDecodeError:  # as Python marks bytes of file names that are not UTF-8
            reason = "name is not UTF-8: rename it"
            self._left_out.append((place, Skipped(record.key, record.image, reason)))
            return
        self._last.append(record)
        self._last_places.append(place)
        if len(self._last) == _CHUNK:
            self._flush()

    def table(self) -> RecordTable:
        """Leave out all but the first of each id, and put the rest together."""
        self._flush()
        ids = np.concatenate([np.empty(0, np.uint64), *self._ids])
        places = np.concatenate([np.empty(0, np.int64), *self._places])
        _, first, which = np.unique(ids, return_index=True, return_inverse=True)
        kept = first[which] == np.arange(len(ids))
        self._note_duplicates(np.flatnonzero(~kept), first[which], places)
        self._left_out.sort(key=lambda entry: entry[0])
        return RecordTable(
            columns=pa.Table.from_batches(self._kept_batches(kept), _SCHEMA),
            ids=ids[kept],
            places=places[kept],
            text_starts=np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)]),
            sha256=self._digest.hexdigest(),
            left_out=[entry for _, entry in self._left_out],
        )

    def _flush(self) -> None:
        if not self._last:
            return
        columns = [[getattr(record, name) for record in self._last] for name in _SCHEMA.names]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, _SCHEMA, strict=True)]
        self._batches.append(pa.record_batch(arrays, schema=_SCHEMA))
        self._ids.append(np.array([int(record.id, 16) for record in self._last], np.uint64))
        self._places.append(np.array(self._last_places, np.int64))
        self._last, self._last_places = [], []

    def _note_duplicates(self, rows: np.ndarray, first_of: np.ndarray, places: np.ndarray) -> None:
        for row in rows.tolist():
            again, first = self._record(row), self._record(int(first_of[row]))
            reason = f"duplicate id: {again.id} is {first.key} already"
            entry = Skipped(again.key, again.image, reason)
            self._left_out.append((int(places[row]), entry))

    def _record(self, row: int) -> Record:
        batch = self._batches[row // _CHUNK]
        return _record(batch.slice(row % _CHUNK, 1).to_pylist()[0])

    def _kept_batches(self, kept: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Give back each batch as soon as its rows are chosen: two copies would not be small."""
        for start in range(0, len(kept), _CHUNK):
            batch, self._batches[start // _CHUNK] = self._batches[start // _CHUNK], None  # type: ignore[call-overload]
            chosen = kept[start : start + _CHUNK]
            yield batch if chosen.all() else batch.filter(pa.array(chosen))


def _record(row: dict[str, object]) -> Record:
    captions, labels = row["captions"], row["labels"]
    return Record(**(row | {"captions": tuple(captions), "labels": tuple(labels)}))  # type: ignore[arg-type]
