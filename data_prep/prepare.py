"""Records to a collection: thumbnails, frozen embeddings and their table, in one pass.

A record that cannot be used is left out by name. The folder appears under its name only when it is
whole: a run that fails or is stopped leaves nothing there.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from data_prep.decoding import Opened, open_images
from data_prep.known import KnownEmbeddings
from data_prep.records import Record, Source
from data_prep.skipped import NamesSkippedRows, Skipped, summary, write_skipped
from model import collection as layout
from model.backbone import Backbone
from model.collection import BackboneIdentity, Collection, write_manifest
from model.home import new_folder

MAX_BAD_SHARE = 0.05
"""More bad records than this stop a preparation, unless it is told to keep going."""

_ITEMS_SCHEMA = pa.schema(
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


def prepare(
    source: Source,
    backbone: Backbone | BackboneIdentity,
    out: Path,
    *,
    known: KnownEmbeddings | None = None,
    workers: int | None = None,
    progress: bool = True,
    keep_going: bool = False,
) -> Collection:
    """Make a collection of a source's records.

    Parameters
    ----------
    source : Source
    backbone : Backbone or BackboneIdentity
        Embeds what is not known already; where all is known, its identity is enough.
    out : Path
        The collection's folder; must not exist yet.
    known : KnownEmbeddings, optional
        Embeddings that need not be made, in the order of all the source's records.
    workers : int, optional
        Decoder processes; by default one a core, none for a small source. The collection does not
        depend on it.
    progress : bool
        Show a progress bar with rate and time left.
    keep_going : bool
        Leave out bad records even where they are more than 5 %.

    Raises
    ------
    FileExistsError
        If `out` exists.
    OSError
        If the disk is full or cannot be written to; nothing is left behind.
    ValueError
        If no record can be used, more than 5 % are bad, `known` does not fit the source, an
        embedding is not finite, or only a backbone's identity is given where one has to run.
    """
    try:
        with new_folder(out) as folder:
            found = _find(source)
            embed = _Embedding(backbone, known, found, source.name)
            transform = None if known else cast(Backbone, backbone).transform
            opened = open_images(source, found.records, folder, transform, workers)
            bar = tqdm(
                total=len(found.records), desc=source.name, unit="image", disable=not progress
            )
            with closing(opened), bar:
                parts = (embed(batch) for batch in _counted(opened, found, keep_going, bar))
                _write(folder, source, backbone, found, _join(parts, backbone.width))
    except FileExistsError:
        raise
    except OSError as error:
        raise _plain(error, out.parent) from error
    return Collection.open(out)


class _Found(NamedTuple):
    """What a source holds."""

    records: list[Record]
    places: list[int]
    """Place of each record among all that the source yields."""
    starts: np.ndarray
    """(r + 1,) int64: the first caption of each record that the source yields, then their sum."""
    rows: list[Skipped]
    """Rows that are no records of their own, such as empty captions."""
    bad: list[Skipped]
    """Records that cannot be used; grows while images are opened."""


class _Part(NamedTuple):
    """Usable records with their embeddings."""

    opened: list[Opened]
    image_embeddings: np.ndarray
    """(b, d) float16"""
    text_embeddings: np.ndarray
    """(c, d) float16: of the captions of all b, in their order"""


def _find(source: Source) -> _Found:
    first_of: dict[str, Record] = {}
    places: list[int] = []
    counts = [0]
    bad: list[Skipped] = []
    for place, record in enumerate(source.records()):
        counts.append(len(record.captions))
        first = first_of.setdefault(record.id, record)
        if first is record:
            places.append(place)
        else:
            reason = f"duplicate id: {record.id} is {first.key} already"
            bad.append(Skipped(record.key, record.image, reason))
    if not first_of:
        raise ValueError(f"{source.name} has no images: there is nothing to prepare")
    rows = source.skipped_rows() if isinstance(source, NamesSkippedRows) else []
    return _Found(list(first_of.values()), places, np.cumsum(counts), rows, bad)


def _counted(
    batches: Iterable[list[Opened]], found: _Found, keep_going: bool, bar: tqdm
) -> Iterator[list[Opened]]:
    """Pass on what is usable, note what is not, and stop where that is too much."""
    total = len(found.records) + len(found.bad)
    seen = len(found.bad)
    for batch in batches:
        for entry in batch:
            if entry.reason:
                record = found.records[entry.row]
                found.bad.append(Skipped(record.key, record.image, entry.reason))
        seen += len(batch)
        if len(found.bad) > MAX_BAD_SHARE * total and not keep_going:
            raise ValueError(
                f"{len(found.bad)} of the first {seen} records cannot be used, more than "
                f"{MAX_BAD_SHARE:.0%} of all {total}: {summary(found.bad)}; "
                "mend them, or leave them out with --keep-going"
            )
        yield [entry for entry in batch if not entry.reason]
        bar.update(len(batch))
    if len(found.bad) == total:
        raise ValueError(f"none of the {total} records can be used: {summary(found.bad)}")


class _Embedding:
    """Embeddings of usable records: looked up where they are known, made where not."""

    def __init__(
        self,
        backbone: Backbone | BackboneIdentity,
        known: KnownEmbeddings | None,
        found: _Found,
        source: str,
    ) -> None:
        self._backbone, self._known, self._found = backbone, known, found
        if known is not None:
            known.check(len(found.starts) - 1, int(found.starts[-1]), backbone.width, source)
        if not isinstance(backbone, Backbone) and (known is None or known.texts is None):
            raise ValueError(
                f"not all embeddings of {source} are known: {backbone} has to be opened for them"
            )

    def __call__(self, opened: list[Opened]) -> _Part:
        name = self._backbone.name
        rows = [entry.row for entry in opened]
        return _Part(
            [entry._replace(pixels=None) for entry in opened],
            _unit(self._images(opened, rows), name),
            _unit(self._texts(rows), name),
        )

    def _images(self, opened: list[Opened], rows: list[int]) -> np.ndarray:
        empty = [np.empty((0, self._backbone.width), np.float32)]
        if self._known is not None:
            places = [self._found.places[row] for row in rows]
            return np.concatenate(empty + [self._known.images[p : p + 1] for p in places])
        if not opened:
            return empty[0]
        assert isinstance(self._backbone, Backbone)
        pixels = np.stack([entry.pixels for entry in opened if entry.pixels is not None])
        return self._backbone.encode_pixels(torch.from_numpy(pixels))  # (b, 3, H, W)

    def _texts(self, rows: list[int]) -> np.ndarray:
        if self._known is not None and self._known.texts is not None:
            starts, texts = self._found.starts, self._known.texts
            places = [self._found.places[row] for row in rows]
            own = [texts[starts[place] : starts[place + 1]] for place in places]
            return np.concatenate([np.empty((0, self._backbone.width), np.float32), *own])
        assert isinstance(self._backbone, Backbone)
        records = self._found.records
        return self._backbone.encode_texts([text for row in rows for text in records[row].captions])


def _unit(embeddings: np.ndarray, name: str) -> np.ndarray:
    """Scale rows to length 1: (r, d) float16."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError(
            f"an embedding of backbone {name} is NaN, infinite or zero; its weights are damaged: "
            "fetch them again, or choose another --backbone"
        )
    return (embeddings / lengths).astype(np.float16)


def _join(parts: Iterable[_Part], width: int) -> _Part:
    opened: list[Opened] = []
    images = [np.empty((0, width), np.float16)]
    texts = [np.empty((0, width), np.float16)]
    for part in parts:
        opened += part.opened
        images.append(part.image_embeddings)
        texts.append(part.text_embeddings)
    return _Part(opened, np.concatenate(images), np.concatenate(texts))


def _write(
    folder: Path,
    source: Source,
    backbone: Backbone | BackboneIdentity,
    found: _Found,
    whole: _Part,
) -> None:
    kept = [found.records[entry.row] for entry in whole.opened]
    columns = {
        "id": [record.id for record in kept],
        "image": [record.image for record in kept],
        "captions": [list(record.captions) for record in kept],
        "labels": [list(record.labels) for record in kept],
        "split": [record.split for record in kept],
        "width": [entry.width for entry in whole.opened],
        "height": [entry.height for entry in whole.opened],
    }
    pq.write_table(pa.table(columns, _ITEMS_SCHEMA), folder / layout.ITEMS, compression="zstd")
    owners = np.repeat(np.arange(len(kept)), [len(record.captions) for record in kept])
    np.save(folder / layout.CAPTION_ITEM, owners.astype(np.int32))
    np.save(folder / layout.IMAGE_EMBEDDINGS, whole.image_embeddings)
    np.save(folder / layout.TEXT_EMBEDDINGS, whole.text_embeddings)
    write_skipped(folder / layout.SKIPPED, [*found.bad, *found.rows])
    write_manifest(
        folder,
        name=source.name,
        backbone=BackboneIdentity(backbone.name, backbone.sha256, backbone.width),
        source=str(source),
        licence=source.licence,
        counts={
            "items": len(kept),
            "captions": len(owners),
            "skipped": len(found.bad) + len(found.rows),
        },
    )


def _plain(error: OSError, parent: Path) -> OSError:
    """Say what an OSError means; those of NumPy and Arrow often carry no number."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    if not full and error.errno is None and parent.is_dir():
        full = shutil.disk_usage(parent).free < 1 << 20
    if not full:
        return error
    return OSError(
        f"the disk that holds {parent} is full; free some space and run again "
        "(nothing was left behind)"
    )
