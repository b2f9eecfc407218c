"""Writing a collection's files row by row, so that no list ever holds all of it.

The bytes depend on the rows alone, not on how they came in: a collection that was made in one go,
in shards, or by a run that was killed and went on is the same file by file.

Putting the parts of a preparation together: the collection's files, written as they are read.
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
from sieve.model.collection_writer import write_manifest
from sieve.model.identity import CodesIdentity

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
    """(c, d) float16: of all captions of the b items, in their order"""


class CollectionWriter:
    """Writes items and embeddings into a folder.

    Parameters
    ----------
    folder : Path
    n_items, n_captions, width : int
        Of all that will be added. Embeddings of no width are not written.
    """

    def __init__(self, folder: Path, n_items: int, n_captions: int, width: int) -> None:
        self._items = pq.ParquetWriter(folder / layout.ITEMS, ITEMS_SCHEMA, compression="zstd")
        self._embeddings: tuple[BinaryIO, ...] = ()
        if width:
            self._embeddings = (
                _array(folder / layout.IMAGE_EMBEDDINGS, np.float16, (n_items, width)),
                _array(folder / layout.TEXT_EMBEDDINGS, np.float16, (n_captions, width)),
            )
        self._owners = _array(folder / layout.CAPTION_ITEM, np.int32, (n_captions,))
        self._waiting = ITEMS_SCHEMA.empty_table()
        self._expected = (n_items, n_captions)
        self._written = (0, 0)

    def add(self, rows: ItemBlock) -> None:
        """Write some rows after those that are there."""
        counts = pc.call_function("list_value_length", [rows.items["captions"]]).to_numpy()
        n_items, n_captions = self._written
        owners = np.repeat(np.arange(n_items, n_items + len(counts)), counts)
        assert len(rows.images) == len(counts) and len(rows.texts) == len(owners)
        for stream, part in zip(self._embeddings, (rows.images, rows.texts), strict=False):
            stream.write(part.tobytes())
        self._owners.write(owners.astype(np.int32).tobytes())
        self._written = (n_items + len(counts), n_captions + len(owners))
        self._waiting = pa.concat_tables([self._waiting, rows.items])
        while len(self._waiting) >= _ROW_GROUP:
            self._write_group(_ROW_GROUP)

    def close(self) -> None:
        """Write what is left."""
        if len(self._waiting):
            self._write_group(len(self._waiting))
        for stream in (self._items, *self._embeddings, self._owners):
            stream.close()
        assert self._written == self._expected, (self._written, self._expected)

    def _write_group(self, size: int) -> None:
        group = self._waiting.slice(0, size).combine_chunks()
        self._items.write_table(group, row_group_size=size)
        self._waiting = self._waiting.slice(size)


def _array(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> BinaryIO:
    """Begin an `.npy` file as `np.save` does."""
    stream = path.open("wb")
    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream


def write_collection(job: PreparationPlan, work: WorkDir) -> None:
    """Write all files of the collection, whose parts are done."""
    folder, identity = work.collection, job.embedder.identity
    rows = [work.load_column(part.start, "rows") for part in job.parts]
    n_items = sum(map(len, rows))
    n_captions = sum(int(job.table.caption_counts(some).sum()) for some in rows)
    writer = CollectionWriter(folder, n_items, n_captions, identity.width)
    for part in job.parts:
        writer.add(_rows(job, work, part.start))
    writer.close()
    counts = {"items": n_items, "captions": n_captions}
    counts["skipped"] = write_skipped(folder / layout.SKIPPED, _skipped(job, work))
    codes = _write_codes(job, folder, np.concatenate(rows)) if job.codes else None
    if job.shard is None and codes is None:
        counts["duplicates"] = write_duplicates(folder)
    write_manifest(
        folder,
        name=job.source.name,
        backbone=None if codes else identity,
        codes=codes,
        source=str(job.source),
        licence=job.source.licence,
        counts=counts,
        roots=source_roots(job.source),
        follow_links=bool(getattr(job.source, "follow_links", False)),
        shard=None if job.shard is None else {"part": str(job.shard), "origin": job.origin},
    )


def _write_codes(job: PreparationPlan, folder: Path, rows: np.ndarray) -> CodesIdentity:
    """Write the codes of the rows that are kept, and of their captions."""
    assert job.codes is not None
    places, starts = job.table.places[rows], job.table.text_starts
    counts = job.table.caption_counts(rows)
    captions = np.repeat(starts[places] - np.cumsum(counts) + counts, counts)
    captions += np.arange(len(captions))
    return job.codes.write(folder, job.source.name, places, captions)


def _rows(job: PreparationPlan, work: WorkDir, start: int) -> ItemBlock:
    part = work.load(start)
    columns = job.table.columns.take(part.rows)
    ids = pa.array([job.table.id(row) for row in part.rows.tolist()], pa.string())
    width, height = (pa.array(np.ascontiguousarray(side)) for side in part.sizes.T)
    told = {name: columns[name] for name in ("image", "captions", "labels")}
    splits = [
        given or split_from_hash(content)
        for given, content in zip(columns["split"].to_pylist(), part.contents.tolist(), strict=True)
    ]
    items = {"id": ids, **told, "split": splits, "width": width, "height": height}
    return ItemBlock(pa.table(items, ITEMS_SCHEMA), part.images, part.texts)


def _skipped(job: PreparationPlan, work: WorkDir) -> Iterator[Skipped]:
    """Name what is left out: records without a row, bad ones by row, rows that are no record."""
    yield from job.left_out
    for part in job.parts:
        reasons = work.load_column(part.start, "reasons").tolist()
        records = job.table.records_at(work.load_column(part.start, "bad_rows"))
        for record, reason in zip(records, reasons, strict=True):
            yield Skipped(record.key, record.image, reason)
    ends_here = job.shard is None or job.shard.is_last
    if ends_here and isinstance(job.source, ReportsSkippedRows):
        yield from job.source.skipped_rows()
