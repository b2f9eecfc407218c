"""Compressed table of all records of a source.

Millions of records take a few hundred megabytes. Rows are the source's records in order, without
repeated ids. Precomputed embeddings follow the source's own order, so the table stores the position
of each row in it. Rows are read in ascending order, and one decompressed chunk is cached.
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
    """Immutable rows of one schema, compressed batch by batch.

    Parameters
    ----------
    schema : pa.Schema
    batches : iterable of pa.RecordBatch
        Consumed lazily: each is compressed before the next is requested.
    """

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch] = ()) -> None:
        self._schema = schema
        self._packed: list[bytes] = []
        self._starts = [0]
        self._cached: tuple[int, pa.RecordBatch] | None = None
        for batch in batches:
            self.append(batch)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._starts[-1]

    def append(self, batch: pa.RecordBatch) -> None:
        """Compress and append rows."""
        sink = pa.BufferOutputStream()
        # No threads: forked decoders would wait for the threads of their parent.
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        with pa.ipc.new_stream(sink, self._schema, options=options) as stream:
            stream.write_batch(batch)
        self._packed.append(sink.getvalue().to_pybytes())
        self._starts.append(len(self) + len(batch))

    def batches(self) -> Iterable[pa.RecordBatch]:
        """Decompress all batches, one at a time."""
        return map(self._batch, range(len(self._packed)))

    def take(self, rows: np.ndarray) -> pa.Table:
        """Decompress the given ascending rows; each batch is decompressed at most once."""
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        pieces = [
            self._batch(number).take(pa.array(rows[numbers == number] - self._starts[number]))
            for number in np.unique(numbers).tolist()
        ]
        return pa.Table.from_batches(pieces, self._schema)

    def _batch(self, number: int) -> pa.RecordBatch:
        if self._cached is None or self._cached[0] != number:
            options = pa.ipc.IpcReadOptions(use_threads=False)
            with pa.ipc.open_stream(self._packed[number], options=options) as stream:
                self._cached = number, stream.read_next_batch()
        return self._cached[1]


_BATCH_ROWS = 1 << 14
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
    """Records of a source by row."""

    columns: PackedRows
    """key, image, captions, labels, split: n rows"""
    ids: np.ndarray
    """(n,) uint64"""
    positions: np.ndarray
    """(n,) int64: position of each record among all r that the source yields"""
    text_starts: np.ndarray
    """(r + 1,) int64: first caption of each record that the source yields; last, their number"""
    sha256: str
    """Hash of all records that the source yields."""
    left_out: list[Skipped]
    """Records without a row."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def records(self, start: int, stop: int) -> list[Record]:
        """Build the records of a range of rows."""
        return self.records_at(np.arange(start, stop))

    def records_at(self, rows: np.ndarray) -> list[Record]:
        """Build the records of the given ascending rows."""
        return [_record(row) for row in self.columns.take(rows).to_pylist()]

    def caption_counts(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of captions of each given row: (b,) int64."""
        positions = self.positions[rows]
        return self.text_starts[positions + 1] - self.text_starts[positions]

    def id(self, row: int) -> str:
        """Return the id of a row's record."""
        return f"{self.ids[row]:016x}"


def read_records(source: Source) -> RecordTable:
    """Read all records of a source.

    Raises
    ------
    ValueError
        If it has no record.
    """
    builder = _TableBuilder()
    for position, record in enumerate(source.records()):
        builder.add(position, record)
    if not builder.caption_counts:
        skipped = source.skipped_rows() if isinstance(source, ReportsSkippedRows) else []
        unused = f"; not used: {Tally(skipped).explain()}" if skipped else ""
        raise ValueError(f"there are no images in {source}: there is nothing to prepare{unused}")
    pa.default_memory_pool().release_unused()  # memory that the source used while reading
    return builder.table()


class _TableBuilder:
    """Collect records into a table."""

    def __init__(self) -> None:
        self.caption_counts = array("q")
        self._columns = PackedRows(_SCHEMA)
        self._pending: list[Record] = []
        self._ids: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._pending_positions: list[int] = []
        self._digest = hashlib.sha256()
        self._left_out: list[tuple[int, Skipped]] = []

    def add(self, position: int, record: Record) -> None:
        """Add the record at a position of the source."""
        self.caption_counts.append(len(record.captions))
        fields = (record.key, record.image, record.split, *record.captions, "", *record.labels)
        data = "\0".join(fields).encode("utf-8", "surrogatepass")
        self._digest.update(len(data).to_bytes(8, "big") + data)
        try:
            data.decode()
        except (
            UnicodeDecodeError
        ):  # surrogates, which Python decodes from file names that are not UTF-8
            reason = "name is not UTF-8: rename it"
            self._left_out.append((position, Skipped(record.key, record.image, reason)))
            return
        self._pending.append(record)
        self._pending_positions.append(position)
        if len(self._pending) == _BATCH_ROWS:
            self._flush()

    def table(self) -> RecordTable:
        """Return the table without records that repeat an id."""
        self._flush()
        ids = np.concatenate([np.empty(0, np.uint64), *self._ids])
        positions = np.concatenate([np.empty(0, np.int64), *self._positions])
        _, first, which = np.unique(ids, return_index=True, return_inverse=True)
        first_of = first[which]
        is_first = first_of == np.arange(len(ids))
        columns = self._columns
        if not is_first.all():
            self._note_duplicates(np.flatnonzero(~is_first), first_of, positions)
            columns = PackedRows(_SCHEMA, self._filtered(is_first))
        self._left_out.sort(key=lambda entry: entry[0])
        return RecordTable(
            columns=columns,
            ids=ids[is_first],
            positions=positions[is_first],
            text_starts=np.concatenate([[0], np.cumsum(self.caption_counts, dtype=np.int64)]),
            sha256=self._digest.hexdigest(),
            left_out=[entry for _, entry in self._left_out],
        )

    def _flush(self) -> None:
        if not self._pending:
            return
        columns = [[getattr(record, name) for record in self._pending] for name in _SCHEMA.names]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, _SCHEMA, strict=True)]
        self._columns.append(pa.record_batch(arrays, schema=_SCHEMA))
        self._ids.append(np.array([int(record.id, 16) for record in self._pending], np.uint64))
        self._positions.append(np.array(self._pending_positions, np.int64))
        self._pending, self._pending_positions = [], []

    def _note_duplicates(
        self, rows: np.ndarray, first_of: np.ndarray, positions: np.ndarray
    ) -> None:
        """Note the records of rows whose id an earlier record has, with that record's key."""
        firsts, which = np.unique(first_of[rows], return_inverse=True)
        keys = self._columns.take(firsts)["key"].to_pylist()
        repeated = self._columns.take(rows).to_batches()
        records = (_record(row) for batch in repeated for row in batch.to_pylist())
        for row, record, first in zip(rows, records, which, strict=True):
            reason = f"duplicate id: {record.id} is {keys[first]} already"
            entry = Skipped(record.key, record.image, reason)
            self._left_out.append((int(positions[row]), entry))

    def _filtered(self, mask: np.ndarray) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(self._columns.batches()):
            start = number * _BATCH_ROWS
            yield batch.filter(pa.array(mask[start : start + _BATCH_ROWS]))


def _record(row: dict[str, object]) -> Record:
    captions, labels = row["captions"], row["labels"]
    return Record(**(row | {"captions": tuple(captions), "labels": tuple(labels)}))  # type: ignore[arg-type]
