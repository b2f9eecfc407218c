"""Merge the shards of one preparation, and add new items to a collection.

Both join collections of one backbone into a new one and leave the old ones unchanged: rows are
copied in order, and thumbnails are hard-linked if the disk supports it.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.images import read_thumbnail, thumbnail_file
from sieve.data_prep.pipeline.embed import Embedder
from sieve.data_prep.pipeline.near_duplicates import write_duplicates
from sieve.data_prep.pipeline.plan import PreparationPlan, Shard
from sieve.data_prep.pipeline.write import ITEMS_SCHEMA, ItemBlock, write_items
from sieve.data_prep.precomputed import read_rows
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import (
    Record,
    Skipped,
    SkippedRows,
    Source,
    read_records,
    read_skipped,
    skipped_rows,
    write_skipped,
)
from sieve.model import collection as layout
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import ITEMS, Collection, ShardFacts, thumbnail_path, write_manifest
from sieve.model.files import atomic_folder


def merge(parts: Sequence[Path], out: Path, name: str = "") -> Collection:
    """Merge all shards of one preparation, in any order, into what a single run would write.

    The name of the collection is by default the first shard's. Raise FileExistsError if `out`
    exists, and ValueError if a shard is missing, is given twice, or belongs to another preparation,
    or if no shard has an item.
    """
    shards = _shards_in_order([Collection.open(part) for part in parts])
    if not any(part.n_items for part in shards):
        raise ValueError(f"none of the {len(parts)} shards has an item: there is nothing to merge")
    return join(shards, out, name=name or shards[0].name, source=shards[0].manifest.source)


def join(parts: Sequence[Collection], out: Path, *, name: str, source: str) -> Collection:
    """Concatenate collections of one backbone, whose ids must be distinct, into a new one.

    The licence lists each distinct licence of the parts. Raise FileExistsError if `out` exists.
    """
    manifests = [part.manifest for part in parts]
    n_items, n_captions = sum(p.n_items for p in parts), sum(p.n_captions for p in parts)
    with atomic_folder(out) as folder:
        blocks = (block for part in parts for block in _blocks(part, folder))
        write_items(folder, blocks, n_items, n_captions, parts[0].backbone.width)
        skipped = chain.from_iterable(
            read_skipped(part.checked(layout.SKIPPED) / layout.SKIPPED) for part in parts
        )
        n_skipped = write_skipped(folder / layout.SKIPPED, skipped)
        counts = {"items": n_items, "captions": n_captions, "skipped": n_skipped}
        write_manifest(
            folder,
            name=name,
            backbone=parts[0].backbone,
            source=source,
            licence="; ".join(dict.fromkeys(one.licence for one in manifests)),
            counts=counts | {"duplicates": write_duplicates(folder)},
            roots=tuple(dict.fromkeys(root for one in manifests for root in one.roots)),
            follow_links=any(one.follow_links for one in manifests),
        )
    return Collection.open(out)


def _shards_in_order(parts: Sequence[Collection]) -> list[Collection]:
    """Sort the parts; check that they are all shards of one preparation, each once."""
    if not parts:
        raise ValueError("there is nothing to merge; give the folders of all shards")
    numbered = [(Shard.parse(_shard_facts(part).part), part) for part in parts]
    shards = sorted(numbered, key=lambda pair: pair[0].index)
    n_shards, first = shards[0][0].of, shards[0][1]
    ours = {**_shard_facts(first).origin, "number of shards": n_shards}
    for shard, part in shards:
        theirs = {**_shard_facts(part).origin, "number of shards": shard.of}
        if differing := [field for field in ours if theirs.get(field) != ours[field]]:
            raise ValueError(
                f"{part.path} and {first.path} are not from the same preparation: they differ in "
                f"{differing[0]}"
            )
    found = Counter(shard.index for shard, _ in shards)
    if missing := [f"{i}/{n_shards}" for i in range(1, n_shards + 1) if i not in found]:
        names = ", ".join(missing[:10])
        raise ValueError(f"shards are missing: {names}; prepare them with --shard, then merge all")
    index, times = found.most_common(1)[0]
    if times > 1:
        raise ValueError(f"shard {index}/{n_shards} is given twice; give each shard once")
    return [part for _, part in shards]


def _shard_facts(part: Collection) -> ShardFacts:
    if part.manifest.shard is None:
        raise ValueError(
            f"{part.path} is a whole collection, not a shard; make shards with "
            "`sieve prepare … --shard i/n`"
        )
    return part.manifest.shard


def _blocks(part: Collection, folder: Path) -> Iterator[ItemBlock]:
    """Yield a collection's items in blocks of a few thousand, and link their thumbnails."""
    first = first_text = 0
    for batch in pq.ParquetFile(part.checked(layout.ITEMS) / layout.ITEMS).iter_batches(4096):
        items = pa.Table.from_batches([batch]).select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)
        end = first + len(items)
        text_end = int(np.searchsorted(part.caption_item, end))
        images = read_rows(part.image_embeddings, first, end)
        for item_id in items["id"].to_pylist():
            _link_thumbnail(part.path, folder, item_id)
        yield ItemBlock(items, images, read_rows(part.text_embeddings, first_text, text_end))
        first, first_text = end, text_end


def _link_thumbnail(source: Path, target: Path, item_id: str) -> None:
    path = target / thumbnail_path(item_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if (source / layout.THUMBNAIL_ARCHIVE).is_file():
            path.write_bytes(read_thumbnail(source, item_id))
            return
        old = thumbnail_file(source, item_id)
    except ValueError as error:
        old = source / thumbnail_path(item_id)
        raise ValueError(f"{old}: {error}; prepare that part again") from None
    try:
        os.link(old, path)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(old, path)


def add(
    collection: Collection, source: Source, backbone: Backbone, out: Path, *,
    workers: int | None = None, progress: bool = True, keep_going: bool = False,
) -> Collection:  # fmt: skip
    """Write a new version of a collection with the items of a source that it lacks.

    The old version is unchanged. A record is in the collection already if an item has its id and
    its image. If an item has its id but another image (`a.jpg` of another folder), the record's key
    is prefixed with the source's name. A killed run resumes when it is called again. For `workers`,
    `progress` and `keep_going`, see `prepare`.

    Raises
    ------
    FileExistsError
        If `out`, the folder of the new version, exists.
    ValueError
        If the backbone is not the collection's, or the source has nothing new.
    """
    if backbone.sha256 != collection.backbone.sha256:
        raise ValueError(
            f"{collection.path} was prepared with {collection.backbone}, not with backbone "
            f"{backbone.name} ({backbone.sha256[:12]}); pass the collection's --backbone"
        )
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another name or remove it first")
    new = NewRecords(source, collection)
    if not any(True for _ in new.records()):
        raise ValueError(f"{source} has nothing that is not in {collection.path} already")
    new_items = out.parent / f".{out.name}.new"
    if new_items.exists():  # left by a run that was killed while joining
        table = read_records(new, new_items / "records.parquet")
        origin = PreparationPlan(new, table, Embedder(backbone, None, table, new.name)).origin
        if _shard_facts(Collection.open(new_items)).origin != origin:
            shutil.rmtree(new_items)
    if not new_items.exists():
        prepare(
            new, backbone, new_items,
            workers=workers, progress=progress, keep_going=keep_going, shard=Shard(),
        )  # fmt: skip
    sources = f"{collection.manifest.source}; {source}"
    joined = join([collection, Collection.open(new_items)], out, name=out.name, source=sources)
    shutil.rmtree(new_items)
    return joined


class NewRecords:
    """A source of the records that a collection lacks."""

    def __init__(self, source: Source, collection: Collection) -> None:
        self.name, self.licence = source.name, source.licence
        self.root: Path | None = getattr(source, "root", None)
        self.follow_links = bool(getattr(source, "follow_links", False))
        self._source = source
        self._renamed: dict[str, str] = {}
        self._unnamed: list[Skipped] = []
        items = pq.read_table(collection.checked(ITEMS) / ITEMS, columns=["id", "image"])
        ids = np.array([int(item_id, 16) for item_id in items["id"].to_pylist()], np.uint64)
        self._images = pd.Series(pd.arrays.ArrowExtensionArray(items["image"]), index=ids)

    def __str__(self) -> str:
        return f"what is new in {self._source}"

    def __getstate__(self) -> dict[str, Any]:
        """Drop the old items: decoder processes need only the source."""
        return self.__dict__ | {"_images": None, "_unnamed": []}

    def records(self) -> Iterator[Record]:
        """Yield the records that the collection lacks."""
        self._unnamed = []
        for record in self._source.records():
            renamed = replace(record, key=f"{self.name}/{record.key}")
            image, other = (self._images.get(int(each.id, 16)) for each in (record, renamed))
            if record.image in (image, other):
                continue
            if image is None:
                yield record
            elif other is None:
                self._renamed[renamed.key] = record.key
                yield renamed
            else:
                reason = f"duplicate id: {record.id} is {image} already"
                self._unnamed.append(Skipped(record.key, record.image, reason))

    def skipped_rows(self) -> SkippedRows:
        """Return what the source skips, and records whose id is taken."""
        own = skipped_rows(self._source)
        rows = SkippedRows([*self._unnamed, *own])
        rows.count_rows(own)
        return rows

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open an image as the source does."""
        own = self._renamed.get(record.key, record.key)
        return self._source.open_image(replace(record, key=own), size)
