"""Table of all records of a source, in a Parquet file of the work directory.

Rows are the source's records in order, without repeated ids. The file holds every record that the
source yields, in groups that are read one at a time: millions of records need little memory.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.records import Record, Skipped, Source, Tally, is_utf8, skipped_rows

_GROUP_ROWS = 1 << 14
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
RECORD_SCHEMA = pa.schema(
    {"key": _TEXT, "image": _TEXT, "captions": _TEXTS, "labels": _TEXTS, "split": _TEXT}
)
"""Fields of a `Record`."""


@dataclass
class RecordTable:
    """Records of a source by row."""

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
