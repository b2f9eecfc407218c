"""All records of a source, kept packed: millions take some hundred megabytes.

A `Record` is built only when it is asked for. Rows are the source's records in their order, without
those whose id another has already; the source's own places are kept, for what is known by place.

Rows of a table that does not change, compressed chunk by chunk.

Keys, addresses and captions of millions of records take hundreds of megabytes as they are, and few
when compressed. They are read in order, some hundred rows at a time; so only one chunk lies open.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sieve.data_prep.records import Record, ReportsSkippedRows, Skipped, Source, Tally


class PackedRows:
    """Rows of one schema.

    Parameters
    ----------
    schema : pa.Schema
    chunks : iterable of pa.RecordBatch
        Each is packed before the next is asked for.
    """

    def __init__(self, schema: pa.Schema, chunks: Iterable[pa.RecordBatch] = ()) -> None:
        self._schema = schema
        self._packed: list[bytes] = []
        self._starts = [0]
        self._open: tuple[int, pa.RecordBatch] | None = None
        for chunk in chunks:
            self.append(chunk)

    def __len__(self) -> int:
        """Count the rows."""
        return self._starts[-1]

    def append(self, chunk: pa.RecordBatch) -> None:
        """Pack some rows after those that are there."""
        sink = pa.BufferOutputStream()
        # No threads: decoders are forked, and would wait for those of their parent.
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        with pa.ipc.new_stream(sink, self._schema, options=options) as stream:
            stream.write_batch(chunk)
        self._packed.append(sink.getvalue().to_pybytes())
        self._starts.append(len(self) + len(chunk))

    def chunks(self) -> Iterable[pa.RecordBatch]:
        """Unpack all, one after the other."""
        return map(self._chunk, range(len(self._packed)))

    def take(self, rows: np.ndarray) -> pa.Table:
        """Unpack some rows, ascending: each chunk is opened at most once."""
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        pieces = [
            self._chunk(number).take(pa.array(rows[numbers == number] - self._starts[number]))
            for number in np.unique(numbers).tolist()
        ]
        return pa.Table.from_batches(pieces, self._schema)

    def _chunk(self, number: int) -> pa.RecordBatch:
        if self._open is None or self._open[0] != number:
            options = pa.ipc.IpcReadOptions(use_threads=False)
            with pa.ipc.open_stream(self._packed[number], options=options) as stream:
                self._open = number, stream.read_next_batch()
        return self._open[1]


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

    columns: PackedRows
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
        return self.records_at(np.arange(start, stop))

    def records_at(self, rows: np.ndarray) -> list[Record]:
        """Build the records of some rows, ascending."""
        return [_record(row) for row in self.columns.take(rows).to_pylist()]

    def caption_counts(self, rows: np.ndarray) -> np.ndarray:
        """Count the captions of some rows: (b,) int64."""
        places = self.places[rows]
        return self.text_starts[places + 1] - self.text_starts[places]

    def id(self, row: int) -> str:
        """Give a record's id."""
        return f"{self.ids[row]:016x}"


def read_records(source: Source) -> RecordTable:
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
        skipped = source.skipped_rows() if isinstance(source, ReportsSkippedRows) else []
        found = f"; not used: {Tally(skipped).explain()}" if skipped else ""
        raise ValueError(f"there are no images in {source}: there is nothing to prepare{found}")
    pa.default_memory_pool().release_unused()  # of what the source held while it was read
    return reading.table()


class _Reading:
    """Records that are being read."""

    def __init__(self) -> None:
        self.counts = array("q")
        self._columns = PackedRows(_SCHEMA)
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
        first_of = first[which]
        kept = first_of == np.arange(len(ids))
        columns = self._columns
        if not kept.all():
            self._note_duplicates(np.flatnonzero(~kept), first_of, places)
            columns = PackedRows(_SCHEMA, self._kept_chunks(kept))
        self._left_out.sort(key=lambda entry: entry[0])
        return RecordTable(
            columns=columns,
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
        self._columns.append(pa.record_batch(arrays, schema=_SCHEMA))
        self._ids.append(np.array([int(record.id, 16) for record in self._last], np.uint64))
        self._places.append(np.array(self._last_places, np.int64))
        self._last, self._last_places = [], []

    def _note_duplicates(self, rows: np.ndarray, first_of: np.ndarray, places: np.ndarray) -> None:
        """Name the records at some rows, and which of the same id was there before each."""
        firsts, which = np.unique(first_of[rows], return_inverse=True)
        keys = self._columns.take(firsts)["key"].to_pylist()
        again = self._columns.take(rows).to_batches()
        records = (_record(row) for batch in again for row in batch.to_pylist())
        for row, record, first in zip(rows, records, which, strict=True):
            reason = f"duplicate id: {record.id} is {keys[first]} already"
            entry = Skipped(record.key, record.image, reason)
            self._left_out.append((int(places[row]), entry))

    def _kept_chunks(self, kept: np.ndarray) -> Iterator[pa.RecordBatch]:
        for number, chunk in enumerate(self._columns.chunks()):
            yield chunk.filter(pa.array(kept[number * _CHUNK : (number + 1) * _CHUNK]))


def _record(row: dict[str, object]) -> Record:
    captions, labels = row["captions"], row["labels"]
    return Record(**(row | {"captions": tuple(captions), "labels": tuple(labels)}))  # type: ignore[arg-type]
