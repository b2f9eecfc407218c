"""More items for a collection: a new version of it, in which only what is new was embedded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.joining import join
from sieve.data_prep.pipeline.embedding import Embedder
from sieve.data_prep.pipeline.job import Job
from sieve.data_prep.pipeline.record_table import gather
from sieve.data_prep.pipeline.sharding import Shard
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record, Source
from sieve.data_prep.skipped import NamesSkippedRows, Skipped, SkippedRows
from sieve.model.backbone import Backbone
from sieve.model.collection import ITEMS, Collection


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
    table = gather(new)
    origin = Job(new, table, Embedder(backbone, None, table, new.name)).origin
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
        if isinstance(self._source, NamesSkippedRows):
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
