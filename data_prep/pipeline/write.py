"""Write a collection's files as a stream of rows.

The bytes depend on the rows alone: one run, shards, and a run that was killed and resumed give the
same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sieve.data_prep.pipeline.near_duplicates import write_duplicates
from sieve.data_prep.pipeline.plan import PreparationPlan
from sieve.data_prep.pipeline.work_dir import WorkDir
from sieve.data_prep.records import (
    ReportsSkippedRows,
    Skipped,
    source_roots,
    split_from_hash,
    write_skipped,
)
from sieve.model import collection as layout
from sieve.model.collection import CodesIdentity, write_manifest

_ROW_GROUP = 1 << 16
ITEMS_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image": pa.string(),
        "captions": pa.list_(pa.string()),
        "labels": pa.list_(pa.string()),
        "split": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
    }
)


class ItemBlock(NamedTuple):
    """Some items with their embeddings."""

    items: pa.Table
    """b rows of `ITEMS_SCHEMA`"""
    images: np.ndarray
    """(b, d) float16"""
    texts: np.ndarray
    """(c, d) float16: all captions of the b items, in their order"""


class CollectionWriter:
    """Write items and embeddings into a folder.

    Parameters
    ----------
    n_items, n_captions : int
        Totals of all rows that will be added.
    width : int
        Width of the embeddings; with 0 none are written.
    """

    def __init__(self, folder: Path, n_items: int, n_captions: int, width: int) -> None:
        self._items = pq.ParquetWriter(folder / layout.ITEMS, ITEMS_SCHEMA, compression="zstd")
        self._embeddings: tuple[BinaryIO, ...] = ()
        if width:
            self._embeddings = (
                _open_npy(folder / layout.IMAGE_EMBEDDINGS, np.float16, (n_items, width)),
                _open_npy(folder / layout.TEXT_EMBEDDINGS, np.float16, (n_captions, width)),
            )
        self._owners = _open_npy(folder / layout.CAPTION_ITEM, np.int32, (n_captions,))
        self._pending = ITEMS_SCHEMA.empty_table()
        self._expected = (n_items, n_captions)
        self._written = (0, 0)

    def add(self, rows: ItemBlock) -> None:
        """Append rows."""
        counts = pc.call_function("list_value_length", [rows.items["captions"]]).to_numpy()
        n_items, n_captions = self._written
        owners = np.repeat(np.arange(n_items, n_items + len(counts)), counts)
        assert len(rows.images) == len(counts) and len(rows.texts) == len(owners)
        for stream, embeddings in zip(self._embeddings, (rows.images, rows.texts), strict=False):
            stream.write(embeddings.tobytes())
        self._owners.write(owners.astype(np.int32).tobytes())
        self._written = (n_items + len(counts), n_captions + len(owners))
        self._pending = pa.concat_tables([self._pending, rows.items])
        while len(self._pending) >= _ROW_GROUP:
            self._write_group(_ROW_GROUP)

    def close(self) -> None:
        """Write the last rows and close the files."""
        if len(self._pending):
            self._write_group(len(self._pending))
        for stream in (self._items, *self._embeddings, self._owners):
            stream.close()
        assert self._written == self._expected, (self._written, self._expected)

    def _write_group(self, size: int) -> None:
        group = self._pending.slice(0, size).combine_chunks()
        self._items.write_table(group, row_group_size=size)
        self._pending = self._pending.slice(size)


def _open_npy(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> BinaryIO:
    """Open an `.npy` file for appending, with the header that `np.save` writes."""
    stream = path.open("wb")
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream


def write_collection(plan: PreparationPlan, work: WorkDir) -> None:
    """Write all files of the collection from its complete chunks."""
    folder, identity = work.collection, plan.embedder.identity
    rows = [work.load_column(chunk.start, "rows") for chunk in plan.chunks]
    n_items = sum(map(len, rows))
    n_captions = sum(int(plan.table.caption_counts(some).sum()) for some in rows)
    writer = CollectionWriter(folder, n_items, n_captions, identity.width)
    for chunk in plan.chunks:
        writer.add(_read_chunk(plan, work, chunk.start))
    writer.close()
    counts = {"items": n_items, "captions": n_captions}
    counts["skipped"] = write_skipped(folder / layout.SKIPPED, _skipped(plan, work))
    codes = _write_codes(plan, folder, np.concatenate(rows)) if plan.codes else None
    if plan.shard is None and codes is None:
        counts["duplicates"] = write_duplicates(folder)
    write_manifest(
        folder,
        name=plan.source.name,
        backbone=None if codes else identity,
        codes=codes,
        source=str(plan.source),
        licence=plan.source.licence,
        counts=counts,
        roots=source_roots(plan.source),
        follow_links=bool(getattr(plan.source, "follow_links", False)),
        shard=None if plan.shard is None else {"part": str(plan.shard), "origin": plan.origin},
    )


def _write_codes(plan: PreparationPlan, folder: Path, rows: np.ndarray) -> CodesIdentity:
    """Write the codes of the usable rows and of their captions."""
    assert plan.codes is not None
    positions, starts = plan.table.positions[rows], plan.table.text_starts
    counts = plan.table.caption_counts(rows)
    captions = np.repeat(starts[positions] - np.cumsum(counts) + counts, counts)
    captions += np.arange(len(captions))
    return plan.codes.write(folder, plan.source.name, positions, captions)


def _read_chunk(plan: PreparationPlan, work: WorkDir, start: int) -> ItemBlock:
    chunk = work.load(start)
    columns = plan.table.columns.take(chunk.rows)
    ids = pa.array([plan.table.id(row) for row in chunk.rows.tolist()], pa.string())
    width, height = (pa.array(np.ascontiguousarray(side)) for side in chunk.sizes.T)
    fields = {name: columns[name] for name in ("image", "captions", "labels")}
    splits = [
        given or split_from_hash(content)
        for given, content in zip(
            columns["split"].to_pylist(), chunk.contents.tolist(), strict=True
        )
    ]
    items = {"id": ids, **fields, "split": splits, "width": width, "height": height}
    return ItemBlock(pa.table(items, ITEMS_SCHEMA), chunk.images, chunk.texts)


def _skipped(plan: PreparationPlan, work: WorkDir) -> Iterator[Skipped]:
    """Yield what is skipped: records without a row, bad records, and rows that are no records."""
    yield from plan.left_out
    for chunk in plan.chunks:
        reasons = work.load_column(chunk.start, "reasons").tolist()
        records = plan.table.records_at(work.load_column(chunk.start, "bad_rows"))
        for record, reason in zip(records, reasons, strict=True):
            yield Skipped(record.key, record.image, reason)
    ends_here = plan.shard is None or plan.shard.is_last
    if ends_here and isinstance(plan.source, ReportsSkippedRows):
        yield from plan.source.skipped_rows()
