"""Merge the shards of one preparation, and add new items to a collection.

Both join collections of one backbone into a new one and leave the old ones unchanged: rows are
copied in order, and thumbnails are hard-linked if the disk supports it. Only new items are
embedded.
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

from sieve.data_prep.pipeline.embed import Embedder
from sieve.data_prep.pipeline.near_duplicates import write_duplicates
from sieve.data_prep.pipeline.plan import PreparationPlan, Shard
from sieve.data_prep.pipeline.record_table import read_records
from sieve.data_prep.pipeline.write import ITEMS_SCHEMA, ItemBlock, write_items
from sieve.data_prep.precomputed import read_rows
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import (
    Record,
    ReportsSkippedRows,
    Skipped,
    SkippedRows,
    Source,
    read_skipped,
    write_skipped,
)
from sieve.data_prep.thumbnails import thumbnail_file
from sieve.model import collection as layout
from sieve.model.backbone import Backbone
from sieve.model.collection import ITEMS, Collection, ShardFacts, thumbnail_path, write_manifest
from sieve.model.files import atomic_folder

_ROWS = 4_096


def merge(parts: Sequence[Path], out: Path, name: str = "") -> Collection:
    """Merge all shards of one preparation into the collection that a single run would write.

    Parameters
    ----------
    parts : sequence of Path
        Folders of the shards, in any order.
    out : Path
        Folder of the collection; must not exist.
    name : str
        Name of the collection; by default the first shard's.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If a shard is missing, is given twice, or belongs to another preparation; or if no shard has
        an item.
    """
    shards = _shards_in_order([Collection.open(part) for part in parts])
    if not any(part.n_items for part in shards):
        raise ValueError(f"none of the {len(parts)} shards has an item: there is nothing to merge")
    first = shards[0]
    return join(shards, out, name=name or first.name, source=first.manifest.source)


def join(parts: Sequence[Collection], out: Path, *, name: str, source: str) -> Collection:
    """Concatenate collections of one backbone, whose ids must be distinct, into a new one.

    The licence lists each distinct licence of the parts.

    Raises
    ------
    FileExistsError
        If `out` exists.
    """
    with atomic_folder(out) as folder:
        counts = {
            "items": sum(part.n_items for part in parts),
            "captions": sum(part.n_captions for part in parts),
        }
        blocks = (block for part in parts for block in _blocks(part, folder))
        width = parts[0].backbone.width
        write_items(folder, blocks, counts["items"], counts["captions"], width)
        skipped = chain.from_iterable(
            read_skipped(part.checked(layout.SKIPPED) / layout.SKIPPED) for part in parts
        )
        counts["skipped"] = write_skipped(folder / layout.SKIPPED, skipped)
        counts["duplicates"] = write_duplicates(folder)
        roots = dict.fromkeys(root for part in parts for root in part.manifest.roots)
        licences = dict.fromkeys(part.manifest.licence for part in parts)
        write_manifest(
            folder,
            name=name,
            backbone=parts[0].backbone,
            source=source,
            licence="; ".join(licences),
            counts=counts,
            roots=tuple(roots),
            follow_links=any(part.manifest.follow_links for part in parts),
        )
    return Collection.open(out)


def _shards_in_order(parts: Sequence[Collection]) -> list[Collection]:
    """Sort the parts; check that they are all shards of one preparation, each once."""
    if not parts:
        raise ValueError("there is nothing to merge; give the folders of all shards")
    shards = sorted(((_shard_of(part), part) for part in parts), key=lambda pair: pair[0].index)
    n_shards, first = shards[0][0].of, shards[0][1]
    for shard, part in shards:
        theirs, ours = _shard_facts(part).origin, _shard_facts(first).origin
        differing = [field for field in ours if theirs.get(field) != ours[field]]
        if shard.of != n_shards:
            differing.append("number of shards")
        if differing:
            raise ValueError(
                f"{part.path} and {first.path} are not from the same preparation: they differ in "
                f"{differing[0]}"
            )
    found = Counter(shard.index for shard, _ in shards)
    missing = [f"{index}/{n_shards}" for index in range(1, n_shards + 1) if index not in found]
    if missing:
        names = ", ".join(missing[:10])
        raise ValueError(f"shards are missing: {names}; prepare them with --shard, then merge all")
    index, times = found.most_common(1)[0]
    if times > 1:
        raise ValueError(f"shard {index}/{n_shards} is given twice; give each shard once")
    return [part for _, part in shards]


def _shard_of(part: Collection) -> Shard:
    return Shard.parse(_shard_facts(part).part)


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
    for batch in pq.ParquetFile(part.checked(layout.ITEMS) / layout.ITEMS).iter_batches(_ROWS):
        items = pa.Table.from_batches([batch]).select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)
        end = first + len(items)
        text_end = int(np.searchsorted(part.caption_item, end))
        images = read_rows(part.image_embeddings, first, end)
        for item_id in items["id"].to_pylist():
            _link_thumbnail(part.path, folder, item_id)
        yield ItemBlock(items, images, read_rows(part.text_embeddings, first_text, text_end))
        first, first_text = end, text_end


def _link_thumbnail(source: Path, target: Path, item_id: str) -> None:
    path = thumbnail_path(item_id)
    try:
        thumbnail_file(source, item_id)
    except ValueError as error:
        raise ValueError(f"{source / path}: {error}; prepare that part again") from None
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source / path, target / path)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source / path, target / path)


def add(
    collection: Collection,
    source: Source,
    backbone: Backbone,
    out: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    keep_going: bool = False,
) -> Collection:
    """Write a new version of a collection with the items of a source that it lacks.

    The old version is unchanged. A record is in the collection already if an item has its id and
    its image. If an item has its id but another image (`a.jpg` of another folder), the record's key
    is prefixed with the source's name. A killed run resumes when it is called again.

    Parameters
    ----------
    out : Path
        Folder of the new version; must not exist.
    workers, progress, keep_going
        See `prepare`.

    Raises
    ------
    FileExistsError
        If `out` exists.
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
    if new_items.exists() and not _is_same_preparation(new_items, new, backbone):
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


def _is_same_preparation(folder: Path, new: NewRecords, backbone: Backbone) -> bool:
    """Whether a run that was killed while joining has already prepared these items."""
    table = read_records(new, folder / "records.parquet")
    origin = PreparationPlan(new, table, Embedder(backbone, None, table, new.name)).origin
    return _shard_facts(Collection.open(folder)).origin == origin


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
        self._images: pd.Series = pd.Series(
            pd.arrays.ArrowExtensionArray(items["image"]), index=ids
        )

    def __str__(self) -> str:
        return f"what is new in {self._source}"

    def __getstate__(self) -> dict[str, Any]:
        """Drop the old items: decoder processes need only the source."""
        return self.__dict__ | {"_images": None, "_unnamed": []}

    def records(self) -> Iterator[Record]:
        """Yield the records that the collection lacks."""
        self._unnamed = []
        for record in self._source.records():
            candidates = [record, replace(record, key=f"{self.name}/{record.key}")]
            images = [self._images.get(int(each.id, 16)) for each in candidates]
            if record.image in images:
                continue
            free = [each for each, image in zip(candidates, images, strict=True) if image is None]
            if not free:
                reason = f"duplicate id: {record.id} is {images[0]} already"
                self._unnamed.append(Skipped(record.key, record.image, reason))
                continue
            if free[0] is not record:
                self._renamed[free[0].key] = record.key
            yield free[0]

    def skipped_rows(self) -> SkippedRows:
        """Return what the source skips, and records whose id is taken."""
        rows = SkippedRows(self._unnamed)
        if isinstance(self._source, ReportsSkippedRows):
            own = self._source.skipped_rows()
            rows += own
            if isinstance(own, SkippedRows):
                rows.count_rows(own)
        return rows

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open an image as the source does."""
        own = self._renamed.get(record.key, record.key)
        return self._source.open_image(replace(record, key=own), size)
