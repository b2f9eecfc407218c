"""Joining collections of one backbone: shards to the whole, new items to an older version.

Nothing is embedded, and nothing that is joined is changed: rows are copied in order, thumbnails are
linked where the disk allows it.

More items for a collection: a new version of it, in which only what is new was embedded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.pipeline.embed import Embedder
from sieve.data_prep.pipeline.near_duplicates import write_duplicates
from sieve.data_prep.pipeline.plan import PreparationPlan
from sieve.data_prep.pipeline.record_table import read_records
from sieve.data_prep.pipeline.shard import Shard
from sieve.data_prep.pipeline.write import ITEMS_SCHEMA, CollectionWriter, ItemBlock
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
from sieve.model.collection import ITEMS, Collection, thumbnail_path
from sieve.model.collection_writer import write_manifest
from sieve.model.files import new_folder

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


def _rows_of(part: Collection) -> Iterator[ItemBlock]:
    """Read a collection a few thousand items at a time."""
    first = first_text = 0
    for batch in pq.ParquetFile(part.checked(layout.ITEMS) / layout.ITEMS).iter_batches(_ROWS):
        items = pa.Table.from_batches([batch]).select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)
        end = first + len(items)
        text_end = int(np.searchsorted(part.caption_item, end))
        images = read_rows(part.image_embeddings, first, end)
        yield ItemBlock(items, images, read_rows(part.text_embeddings, first_text, text_end))
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
    """Make a new version of a collection, with the items of a source that it lacks.

    The old version stays as it is. A record is there already where one of its id has the same
    image; where one of its id has another (`a.jpg` of another folder), its key gets the source's
    name before it. A run that was killed goes on when it is asked for again.

    Parameters
    ----------
    collection : Collection
    source : Source
    backbone : Backbone
        The collection's own.
    out : Path
        Folder of the new version; must not exist yet.
    workers, progress, keep_going
        See `prepare`.

    Raises
    ------
    FileExistsError
        If `out` exists.
    ValueError
        If the backbone is another, or the source has nothing new.
    """
    if backbone.sha256 != collection.backbone.sha256:
        raise ValueError(
            f"{collection.path} was prepared with {collection.backbone}, not with backbone "
            f"{backbone.name} ({backbone.sha256[:12]}); give its own --backbone"
        )
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another name or remove it first")
    new = _New(source, collection)
    if not any(True for _ in new.records()):
        raise ValueError(f"{source} has nothing that is not in {collection.path} already")
    draft = out.parent / f".{out.name}.new"
    if draft.exists() and not _is_of(draft, new, backbone):
        shutil.rmtree(draft)
    if not draft.exists():
        prepare(
            new,
            backbone,
            draft,
            workers=workers,
            progress=progress,
            keep_going=keep_going,
            shard=Shard(),
        )
    told = f"{collection.manifest['source']}; {source}"
    joined = join([collection, Collection.open(draft)], out, name=out.name, source=told)
    shutil.rmtree(draft)
    return joined


def _is_of(draft: Path, new: _New, backbone: Backbone) -> bool:
    """Whether a run that was killed while it joined has prepared these very items."""
    table = read_records(new)
    origin = PreparationPlan(new, table, Embedder(backbone, None, table, new.name)).origin
    return Collection.open(draft).manifest["shard"]["origin"] == origin


class _New:
    """Records of a source that a collection lacks."""

    def __init__(self, source: Source, collection: Collection) -> None:
        self.name, self.licence = source.name, source.licence
        self.root: Path | None = getattr(source, "root", None)
        self.follow_links = bool(getattr(source, "follow_links", False))
        self._source = source
        self._renamed: dict[str, str] = {}
        self._unnamed: list[Skipped] = []
        there = pq.read_table(collection.checked(ITEMS) / ITEMS, columns=["id", "image"])
        ids = np.array([int(item_id, 16) for item_id in there["id"].to_pylist()], np.uint64)
        self._order = np.argsort(ids)
        self._ids, self._images = ids[self._order], there["image"]

    def __str__(self) -> str:
        return f"what is new in {self._source}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the old items behind: decoder processes need only the source."""
        heavy = ("_ids", "_images", "_order", "_unnamed")
        return {key: value for key, value in self.__dict__.items() if key not in heavy}

    def records(self) -> Iterator[Record]:
        """All records that are not there yet."""
        self._unnamed = []
        for record in self._source.records():
            wanted = [record, replace(record, key=f"{self.name}/{record.key}")]
            images = [self._image_of(each) for each in wanted]
            if record.image in images:
                continue
            free = [each for each, image in zip(wanted, images, strict=True) if image is None]
            if not free:
                reason = f"duplicate id: {record.id} is {images[0]} already"
                self._unnamed.append(Skipped(record.key, record.image, reason))
                continue
            if free[0] is not record:
                self._renamed[free[0].key] = record.key
            yield free[0]

    def skipped_rows(self) -> SkippedRows:
        """Return what the source leaves out, and what has an id that is taken."""
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

    def _image_of(self, record: Record) -> str | None:
        """Image of the old item with a record's id."""
        wanted = np.uint64(int(record.id, 16))
        place = int(np.searchsorted(self._ids, wanted))
        if place == len(self._ids) or self._ids[place] != wanted:
            return None
        return self._images[int(self._order[place])].as_py()
