"""Putting the parts of a preparation together: the collection's files, written as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sieve.data_prep.pipeline.duplicates import write_duplicates
from sieve.data_prep.pipeline.job import Job
from sieve.data_prep.pipeline.work import WorkFolder
from sieve.data_prep.pipeline.writing import ITEMS_SCHEMA, CollectionWriter, Rows
from sieve.data_prep.records import roots_of
from sieve.data_prep.skipped import NamesSkippedRows, Skipped, write_skipped
from sieve.data_prep.splits import drawn_split
from sieve.model import collection as layout
from sieve.model.collection_writing import write_manifest
from sieve.model.identity import CodesIdentity


def assemble(job: Job, work: WorkFolder) -> None:
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
        roots=roots_of(job.source),
        follow_links=bool(getattr(job.source, "follow_links", False)),
        shard=None if job.shard is None else {"part": str(job.shard), "origin": job.origin},
    )


def _write_codes(job: Job, folder: Path, rows: np.ndarray) -> CodesIdentity:
    """Write the codes of the rows that are kept, and of their captions."""
    assert job.codes is not None
    places, starts = job.table.places[rows], job.table.text_starts
    counts = job.table.caption_counts(rows)
    captions = np.repeat(starts[places] - np.cumsum(counts) + counts, counts)
    captions += np.arange(len(captions))
    return job.codes.write(folder, job.source.name, places, captions)


def _rows(job: Job, work: WorkFolder, start: int) -> Rows:
    part = work.load(start)
    columns = job.table.columns.take(part.rows)
    ids = pa.array([job.table.id(row) for row in part.rows.tolist()], pa.string())
    width, height = (pa.array(np.ascontiguousarray(side)) for side in part.sizes.T)
    told = {name: columns[name] for name in ("image", "captions", "labels")}
    splits = [
        given or drawn_split(content)
        for given, content in zip(columns["split"].to_pylist(), part.contents.tolist(), strict=True)
    ]
    items = {"id": ids, **told, "split": splits, "width": width, "height": height}
    return Rows(pa.table(items, ITEMS_SCHEMA), part.images, part.texts)


def _skipped(job: Job, work: WorkFolder) -> Iterator[Skipped]:
    """Name what is left out: records without a row, bad ones by row, rows that are no record."""
    yield from job.left_out
    for part in job.parts:
        reasons = work.load_column(part.start, "reasons").tolist()
        records = job.table.records_at(work.load_column(part.start, "bad_rows"))
        for record, reason in zip(records, reasons, strict=True):
            yield Skipped(record.key, record.image, reason)
    ends_here = job.shard is None or job.shard.is_last
    if ends_here and isinstance(job.source, NamesSkippedRows):
        yield from job.source.skipped_rows()
