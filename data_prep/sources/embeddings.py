"""Embeddings that were made elsewhere, as a collection: no backbone runs.

Rows of the table that name one image and have one embedding are one item with several captions.
Images are shown where they are on this machine; where not, a tile shows the caption.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sieve.data_prep.captions import split_named
from sieve.data_prep.captions.formats import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    LABEL_SEPARATOR,
    Row,
    as_text,
)
from sieve.data_prep.captions.table import CaptionReading, CaptionsByImage
from sieve.data_prep.known import Joined, KnownEmbeddings, Rows
from sieve.data_prep.records import Record
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.embedding_files import Shard, open_shards, read_table
from sieve.data_prep.sources.found_images import find_images, open_or_draw
from sieve.data_prep.sources.noting import NotesSkipped
from sieve.model.backbone import Backbone
from sieve.model.backbone.names import known_name, parse_name
from sieve.model.backbone.source import declared_width
from sieve.model.collection import BackboneIdentity

log = logging.getLogger(__name__)

SAME_IMAGE = 0.999
"""Rows of one name and at least this cosine are one image."""

_NAMES = (*IMAGE_NAMES, "path", "key", "url")


def open_identity(name: str, width: int, device: str = "auto") -> Backbone | BackboneIdentity:
    """Find out which backbone made embeddings, by the name that a person gives.

    Parameters
    ----------
    name : str
        As for `Backbone.load`; another name is kept as it is.
    width : int
        Of the embeddings.
    device : str

    Returns
    -------
    Backbone or BackboneIdentity
        The latter, unknown but for its name, where it cannot be opened here.

    Raises
    ------
    ValueError
        If a backbone of that name gives embeddings of another width, or open_clip calls it by
        another name.
    """
    try:
        name = parse_name(name).text
    except ValueError:
        if known_name(name):
            raise
        name = name.removeprefix("open_clip:")
    declared = declared_width(name)
    if declared not in (None, width):
        raise ValueError(_other_width(name, declared, width))
    try:
        backbone = Backbone.load(name, device)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        log.warning(
            "the weights of backbone %s are unknown here (%s); its name is kept, and texts will be "
            "read from the captions' embeddings", name, reason,
        )  # fmt: skip
        return BackboneIdentity.unknown(name, width)
    if backbone.width != width:
        raise ValueError(_other_width(name, backbone.width, width))
    return backbone


def _other_width(name: str, expected: int, width: int) -> str:
    return (
        f"the embeddings are {width} wide, but those of backbone {name} are {expected}; name the "
        "one that made them with --backbone"
    )


class Embeddings(NotesSkipped):
    """Rows of embedding files, put together by image.

    Parameters
    ----------
    folder : Path
        See `sieve.data_prep.sources.embedding_files`.
    images : Path, optional
        Folder in which the table's image names are sought, by as much of their end as fits; by
        default `folder`. Nothing outside it is read.
    keep_captions : bool
        Keep captions without embeddings, for the backbone to embed.
    name : str
        The collection's name; by default the folder's.
    licence : str

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, where files are missing or do not fit together.
    """

    def __init__(
        self,
        folder: Path,
        images: Path | None = None,
        *,
        keep_captions: bool = False,
        name: str = "",
        licence: str = "not stated",
    ) -> None:
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"there is no folder {images}; check --images")
        self.folder = folder.resolve()
        self.images = (images or folder).resolve()
        self.name = name or self.folder.name
        self.licence = licence
        self.has_texts = all(shard.texts is not None for shard in self._shards)
        self.keeps_captions = self.has_texts or keep_captions

    def __str__(self) -> str:
        return f"embeddings {self.folder}"

    @property
    def width(self) -> int:
        """d, the width of the embeddings."""
        return self._shards[0].images.shape[1]

    def known(self) -> KnownEmbeddings:
        """Give the embeddings of all records, and of their captions where they have some."""
        groups = self._read()
        numbers = range(len(groups))
        texts = [line for number in numbers for line in groups.caption_lines(number)]
        images = [groups.lines(number)[0] for number in numbers]
        parts = [shard.texts for shard in self._shards if shard.texts is not None]
        return KnownEmbeddings(
            Picked(Joined([shard.images for shard in self._shards]), np.array(images, np.int64)),
            Picked(Joined(parts), np.array(texts, np.int64)) if self.has_texts else None,
        )

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it is here and whole, else draw its caption."""
        return open_or_draw(self.images, record)

    @cached_property
    def _shards(self) -> list[Shard]:
        return open_shards(self.folder)

    def _find(self, skipped: list[Skipped]) -> Iterator[Record]:
        groups = self._read()
        skipped += groups.skipped
        n_here = n_mute = 0
        found = find_images(self.images, groups)
        for number, key in enumerate(groups):
            said = groups.describe(number)
            path = found.get(key)
            n_here += path is not None
            n_mute += not self.keeps_captions and len(said.captions)
            yield Record(
                key,
                str(path or key),
                tuple(said.captions) if self.keeps_captions else (),
                tuple(said.labels),
                said.split,
            )
        self._tell(n_here, len(groups), n_mute, skipped)

    def _tell(self, n_here: int, n_items: int, n_mute: int, skipped: list[Skipped]) -> None:
        """Say in a line each what cannot be shown, and what is left out."""
        if n_here < n_items:
            log.warning(
                "%s of %s images are in %s; the others are shown by their captions (--images says "
                "where they are)", f"{n_here:,}", f"{n_items:,}", self.images,
            )  # fmt: skip
        if n_mute:
            reason = f"{n_mute:,} captions without embeddings; --embed-captions embeds them"
            skipped.append(Skipped("captions", str(self.folder), reason))
            log.warning("left out %s", reason)

    def _read(self) -> CaptionsByImage:
        """Go over all tables, and put rows of one image together."""
        reading = CaptionReading("row")
        firsts: dict[str, int] = {}
        images = Joined([shard.images for shard in self._shards])
        start = 0
        for shard in self._shards:
            columns = None
            count = 0
            for count, value in enumerate(read_table(shard.table), 1):  # noqa: B007
                columns = columns or _columns(value)
                line = start + count - 1
                name = as_text(columns.image and value.get(columns.image)).strip() or f"row:{line}"
                first = firsts.setdefault(name, line)
                if first < line < images.shape[0] and not _same(images, first, line):
                    name = f"{name}#{line}"
                    firsts.setdefault(name, line)
                reading.add(_row(line, name, value, columns))
            if count != len(shard.images):
                raise ValueError(
                    f"{shard.table} has {count:,} rows, but its array of images "
                    f"{len(shard.images):,}; they must belong together row by row"
                )
            start += count
        return reading.whole()


class Picked:
    """Some rows of embeddings, read as one array.

    Parameters
    ----------
    rows : Rows
    places : (p,) int64
        Mostly ascending, as rows that lie close together are read at once.
    """

    def __init__(self, rows: Rows, places: np.ndarray) -> None:
        self._rows, self._places = rows, places
        self.shape = (len(places), rows.shape[1])

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Give the rows of a slice: (r, d)."""
        places = self._places[rows]
        if not len(places):
            return self._rows[0:0]
        first, last = int(places.min()), int(places.max()) + 1
        if last - first <= _NEAR * len(places):
            return self._rows[first:last][places - first]
        return np.concatenate([self._rows[place : place + 1] for place in places.tolist()])


_NEAR = 16
"""Reading so many times the rows that are wanted is faster than reading them one by one."""


class _Columns(NamedTuple):
    image: str | None
    caption: str | None


def _columns(value: Mapping[str, Any]) -> _Columns:
    """Choose the columns of a table by their usual names."""
    image, caption = (
        next((name for name in names if name in value), None) for names in (_NAMES, CAPTION_NAMES)
    )
    return _Columns(image, caption)


def _row(line: int, name: str, value: Mapping[str, Any], columns: _Columns) -> Row:
    labels = value.get("labels")
    named = labels if isinstance(labels, list) else as_text(labels).split(LABEL_SEPARATOR)
    caption = as_text(value.get(columns.caption)) if columns.caption else ""
    split = as_text(value.get("split"))  # other people's words for other things are passed over
    return Row(line, name, caption, split if split_named(split) else "", list(map(as_text, named)))


def _same(images: Joined, one: int, other: int) -> bool:
    """Whether two rows are embeddings of one image."""
    a, b = (images[row : row + 1].astype(np.float32)[0] for row in (one, other))
    with np.errstate(all="ignore"):
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return cosine >= SAME_IMAGE
