"""Joining collections of one backbone: shards to the whole, new items to an older version.

Nothing is embedded, and nothing that is joined is changed: rows are copied in order, thumbnails are
linked where the disk allows it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.known import read
from sieve.data_prep.pipeline.duplicates import write_duplicates
from sieve.data_prep.pipeline.sharding import Shard
from sieve.data_prep.pipeline.writing import ITEMS_SCHEMA, CollectionWriter, Rows
from sieve.data_prep.skipped import Skipped, read_skipped, write_skipped
from sieve.data_prep.thumbnails import thumbnail_file
from sieve.model import collection as layout
from sieve.model.collection import Collection, thumbnail_path
from sieve.model.collection_writing import write_manifest
from sieve.model.drafts import new_folder

_ROWS = 4_096


def merge(parts: Sequence[Path], out: Path, name: str = "") -> Collection:
    """Join all shards of one preparation to the collection that one long run would have made.

    Parameters
    ----------
    parts : sequence of Path
        Folders made with a `shard`, in any order.
    out : Path
        The collection's folder; must not exist yet.
    name : str
        The collection's; by default the first shard's.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If a shard is missing, comes twice, or belongs to another preparation; or no record of all
        can be used.
    """
    shards = sorted(((_shard_of(part), part) for part in map(Collection.open, parts)), key=_index)
    _check(shards)
    collections = [part for _, part in shards]
    if not any(part.n_items for part in collections):
        raise ValueError(f"none of the {len(parts)} parts has an item: there is nothing to merge")
    first = collections[0]
    return join(collections, out, name=name or first.name, source=first.manifest["source"])


def join(parts: Sequence[Collection], out: Path, *, name: str, source: str) -> Collection:
    """Write the items of several collections of one backbone, one after the other, to a new one.

    No two may have an id in common. The licence is what the parts say, each once.

    Raises
    ------
    FileExistsError
        If `out` exists.
    """
    with new_folder(out) as folder:
        n_items = sum(part.n_items for part in parts)
        n_captions = sum(part.n_captions for part in parts)
        writer = CollectionWriter(folder, n_items, n_captions, parts[0].backbone.width)
        for part in parts:
            for rows in _rows_of(part):
                writer.add(rows)
                _link_thumbnails(part.path, folder, rows.items["id"])
        writer.close()
        skipped: Iterator[Skipped] = chain.from_iterable(
            read_skipped(part.checked(layout.SKIPPED) / layout.SKIPPED) for part in parts
        )
        counts = {"items": n_items, "captions": n_captions}
        counts["skipped"] = write_skipped(folder / layout.SKIPPED, skipped)
        counts["duplicates"] = write_duplicates(folder)
        licences = dict.fromkeys(str(part.manifest["licence"]) for part in parts)
        write_manifest(
            folder,
            name=name,
            backbone=parts[0].backbone,
            source=source,
            licence="; ".join(licences),
            counts=counts,
            roots=_roots(parts),
            follow_links=any(part.manifest.get("follow_links") is True for part in parts),
        )
    return Collection.open(out)


def _roots(parts: Sequence[Collection]) -> tuple[str, ...]:
    roots = (root for part in parts for root in part.manifest.get("roots", ()))
    return tuple(dict.fromkeys(roots))


def _shard_of(part: Collection) -> Shard:
    try:
        return Shard.parse(part.manifest["shard"]["part"])
    except KeyError:
        raise ValueError(
            f"{part.path} is no part of a collection but a whole one; parts are made with "
            "`sieve prepare … --shard i/n`"
        ) from None


def _index(pair: tuple[Shard, Collection]) -> int:
    return pair[0].index


def _check(shards: Sequence[tuple[Shard, Collection]]) -> None:
    """Refuse what is not each shard of one preparation, once."""
    if not shards:
        raise ValueError("there is nothing to merge; name the parts")
    first = shards[0][1]
    for shard, part in shards:
        theirs, ours = part.manifest["shard"]["origin"], first.manifest["shard"]["origin"]
        differing = [what for what in ours if theirs.get(what) != ours[what]]
        if differing or shard.of != shards[0][0].of:
            what = differing[0] if differing else "number of parts"
            raise ValueError(
                f"{part.path} and {first.path} are not of one preparation: they differ in {what}"
            )
    there = [shard.index for shard, _ in shards]
    missing = sorted(set(range(1, shards[0][0].of + 1)) - set(there))
    if missing:
        names = ", ".join(f"{index}/{shards[0][0].of}" for index in missing[:10])
        raise ValueError(f"parts are missing: {names}; make them with --shard, then merge all")
    twice = next((index for index in there if there.count(index) > 1), None)
    if twice:
        raise ValueError(f"part {twice}/{shards[0][0].of} is named twice; name each part once")


def _rows_of(part: Collection) -> Iterator[Rows]:
    """Read a collection a few thousand items at a time."""
    first = first_text = 0
    for batch in pq.ParquetFile(part.checked(layout.ITEMS) / layout.ITEMS).iter_batches(_ROWS):
        items = pa.Table.from_batches([batch]).select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)
        end = first + len(items)
        text_end = int(np.searchsorted(part.caption_item, end))
        images = read(part.image_embeddings, first, end)
        yield Rows(items, images, read(part.text_embeddings, first_text, text_end))
        first, first_text = end, text_end


def _link_thumbnails(source: Path, target: Path, ids: pa.ChunkedArray) -> None:
    for item_id in ids.to_pylist():
        path = thumbnail_path(item_id)
        try:
            thumbnail_file(source, item_id)
        except ValueError as error:
            raise ValueError(f"{source / path}: {error}; prepare that part again") from None
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / path, target / path)
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(source / path, target / path)
