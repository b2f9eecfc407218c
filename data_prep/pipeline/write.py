"""Write a collection's files as a stream of rows.

The bytes depend on the rows alone: one run, shards, and a run that was killed and resumed give the
same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sieve.data_prep.pipeline.near_duplicates import write_duplicates
from sieve.data_prep.pipeline.plan import PreparationPlan, Shard, WorkDir
from sieve.data_prep.records import (
    RECORD_SCHEMA,
    Skipped,
    skipped_rows,
    split_from_hash,
    write_skipped,
)
from sieve.model import collection as layout
from sieve.model.collection import write_manifest

_ROW_GROUP = 1 << 16
_SIZE = [("width", pa.int32()), ("height", pa.int32())]
ITEMS_SCHEMA = pa.schema([("id", pa.string()), *list(RECORD_SCHEMA)[1:], *_SIZE])
"""The id of an item, the fields of its record except the key, and the size of its image."""


class ItemBlock(NamedTuple):
    """Some items with their embeddings."""

    items: pa.Table
    """b rows of `ITEMS_SCHEMA`"""
    images: np.ndarray
    """(b, d) float16"""
    texts: np.ndarray
    """(c, d) float16: all captions of the b items, in their order"""


def write_items(
    folder: Path, blocks: Iterable[ItemBlock], n_items: int, n_captions: int, width: int
) -> None:
    """Write the item table and the embeddings of all blocks, one after the other.

    `n_items` and `n_captions` are totals of all blocks. With width 0, no embeddings are written.
    """
    with ExitStack() as stack:

        def open_npy(name: str, dtype: type[np.generic], *shape: int) -> BinaryIO:
            """Open an array for appending, with the header that `np.save` writes."""
            stream = stack.enter_context((folder / name).open("wb"))
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            return stream

        writer = pq.ParquetWriter(folder / layout.ITEMS, ITEMS_SCHEMA, compression="zstd")
        table = stack.enter_context(writer)
        caption_item = open_npy(layout.CAPTION_ITEM, np.int32, n_captions)
        files = ((layout.IMAGE_EMBEDDINGS, n_items), (layout.TEXT_EMBEDDINGS, n_captions))
        embeddings = [open_npy(name, np.float16, n, width) for name, n in files if width]
        pending, written = ITEMS_SCHEMA.empty_table(), np.zeros(2, int)
        for block in blocks:
            counts = pc.call_function("list_value_length", [block.items["captions"]]).to_numpy()
            owners = np.repeat(written[0] + np.arange(len(counts)), counts)
            assert len(block.images) == len(counts) and len(block.texts) == len(owners)
            caption_item.write(owners.astype(np.int32).tobytes())
            for stream, rows in zip(embeddings, (block.images, block.texts), strict=False):
                stream.write(rows.tobytes())
            written += len(counts), len(owners)
            pending = pa.concat_tables([pending, block.items])
            while len(pending) >= _ROW_GROUP:
                table.write_table(pending.slice(0, _ROW_GROUP).combine_chunks(), _ROW_GROUP)
                pending = pending.slice(_ROW_GROUP)
        if len(pending):
            table.write_table(pending.combine_chunks(), len(pending))
        assert written.tolist() == [n_items, n_captions]


def write_collection(plan: PreparationPlan, work: WorkDir) -> None:
    """Write all files of the collection from its complete chunks."""
    folder, identity = work.collection, plan.embedder.identity
    rows = [work.load_column(chunk.start, "rows") for chunk in plan.chunks]
    all_rows = np.concatenate([np.empty(0, np.int64), *rows])
    n_items, n_captions = len(all_rows), int(plan.table.caption_counts(all_rows).sum())
    blocks = (_read_chunk(plan, work, chunk.start) for chunk in plan.chunks)
    write_items(folder, blocks, n_items, n_captions, identity.width)
    counts = {"items": n_items, "captions": n_captions}
    counts["skipped"] = write_skipped(folder / layout.SKIPPED, _skipped(plan, work))
    codes = None
    if plan.codes is not None:
        positions, captions = plan.table.positions[all_rows], plan.table.caption_positions(all_rows)
        codes = plan.codes.write(folder, plan.source.name, positions, captions)
    if plan.shard is None and codes is None:
        counts["duplicates"] = write_duplicates(folder)
    root = getattr(plan.source, "root", None)
    write_manifest(
        folder,
        name=plan.source.name,
        backbone=None if codes else identity,
        codes=codes,
        source=str(plan.source),
        licence=plan.source.licence,
        counts=counts,
        roots=() if root is None else (str(root),),
        follow_links=bool(getattr(plan.source, "follow_links", False)),
        shard=None if plan.shard is None else {"part": str(plan.shard), "origin": plan.origin},
    )


def _read_chunk(plan: PreparationPlan, work: WorkDir, start: int) -> ItemBlock:
    chunk = work.load(start)
    columns = plan.table.take(chunk.rows)
    ids = pa.array([plan.table.id(row) for row in chunk.rows.tolist()], pa.string())
    width, height = (pa.array(np.ascontiguousarray(side)) for side in chunk.sizes.T)
    fields = {name: columns[name] for name in ("image", "captions", "labels")}
    given = zip(columns["split"].to_pylist(), chunk.contents.tolist(), strict=True)
    splits = [split or split_from_hash(content) for split, content in given]
    items = {"id": ids, **fields, "split": splits, "width": width, "height": height}
    return ItemBlock(pa.table(items, ITEMS_SCHEMA), chunk.images, chunk.texts)


def _skipped(plan: PreparationPlan, work: WorkDir) -> Iterator[Skipped]:
    """Yield what is skipped: records without a row, bad records, and rows that are no records."""
    shard = plan.shard or Shard()
    if shard.index == 1:
        yield from plan.table.left_out
    for chunk in plan.chunks:
        reasons = work.load_column(chunk.start, "reasons").tolist()
        records = plan.table.records(work.load_column(chunk.start, "bad_rows"))
        for record, reason in zip(records, reasons, strict=True):
            yield Skipped(record.key, record.image, reason)
    if shard.index == shard.of:
        yield from skipped_rows(plan.source)
