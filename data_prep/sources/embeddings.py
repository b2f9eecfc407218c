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
from sieve.data_prep.captions.caption_rows import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    LABEL_SEPARATOR,
    CaptionRow,
    column_of,
    image_column_of,
)
from sieve.data_prep.captions.caption_table import CaptionsByImage, CaptionTableBuilder
from sieve.data_prep.captions.cell import CellError, as_text, captions_in
from sieve.data_prep.precomputed import ConcatRows, PrecomputedEmbeddings, RowArray
from sieve.data_prep.records import Record, Skipped, SkippedRows
from sieve.data_prep.sources.base import BaseSource
from sieve.data_prep.sources.embedding_files import (
    EmbeddingShard,
    open_shards,
    read_table,
    unused_files,
)
from sieve.data_prep.sources.local_images import find_images, open_or_draw
from sieve.model.backbone import Backbone
from sieve.model.backbone.clip import declared_width
from sieve.model.backbone.names import known_name, parse_name
from sieve.model.collection import BackboneIdentity

log = logging.getLogger(__name__)

SAME_IMAGE = 0.999
"""Rows of one name and at least this cosine are one image."""

_LENGTH_TOLERANCE = 0.01
"""Embeddings whose length differs more from 1 are said to be scaled."""
_NAMES = (*IMAGE_NAMES, "path", "key", "url")
_CAPTION_NAMES = tuple(dict.fromkeys(name.lower() for name in CAPTION_NAMES))


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


class Embeddings(BaseSource):
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
        for shard in self._shards:
            _check_rows(shard)
        self.has_texts = all(shard.texts is not None for shard in self._shards)
        self.keeps_captions = self.has_texts or keep_captions

    @property
    def root(self) -> Path:
        """Folder that the images' files are named relative to."""
        return self.images

    def __str__(self) -> str:
        return f"embeddings {self.folder}"

    @property
    def width(self) -> int:
        """d, the width of the embeddings."""
        return self._shards[0].images.shape[1]

    def precomputed(self) -> PrecomputedEmbeddings:
        """Give the embeddings of all records, and of their captions where they have some."""
        groups, image_rows = self._read()
        numbers = range(len(groups))
        texts = [line for number in numbers for line in groups.caption_lines(number)]
        images = [image_rows[key] for key in groups]
        parts = [shard.texts for shard in self._shards if shard.texts is not None]
        flat = [part.reshape(-1, part.shape[-1]) for part in parts]
        return PrecomputedEmbeddings(
            RowSubset(
                ConcatRows([shard.images for shard in self._shards]), np.array(images, np.int64)
            ),
            RowSubset(ConcatRows(flat), np.array(texts, np.int64)) if self.has_texts else None,
        )

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it is here and whole, else draw its caption."""
        return open_or_draw(self.images, record)

    @cached_property
    def _shards(self) -> list[EmbeddingShard]:
        return open_shards(self.folder)

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        groups, _ = self._read()
        skipped += groups.skipped
        skipped.count_rows(groups.skipped)
        for path in unused_files(self.folder):
            reason = "file beside embeddings: only arrays and one table with a row each are read"
            skipped.add(path.name, str(path), reason)
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
        lengths = np.linalg.norm(np.asarray(self._shards[0].images[:1000], np.float32), axis=1)
        typical = float(np.nanmedian(lengths))
        if abs(typical - 1) > _LENGTH_TOLERANCE:
            log.warning("embeddings are %.2f long, not 1; they are scaled to length 1", typical)
        if n_here < n_items:
            log.warning(
                "%s of %s images are in %s; the others are shown by their captions (--images says "
                "where they are)", f"{n_here:,}", f"{n_items:,}", self.images,
            )  # fmt: skip
        if n_mute:
            count = f"{n_mute:,} of them; --embed-captions embeds them"
            reason = f"caption without an embedding: {count}"
            skipped.append(Skipped("captions", str(self.folder), reason))
            log.warning(
                "left out %s captions without embeddings; --embed-captions embeds them",
                f"{n_mute:,}",
            )

    def _read(self) -> _Items:
        """Read all tables, and put rows of one image together."""
        shards = self._shards
        per_row = all(_texts_per_row(shard) == 1 for shard in shards)
        reading = CaptionTableBuilder("row" if per_row else "caption")
        images = ConcatRows([shard.images for shard in shards])
        image_rows: dict[str, int] = {}
        places = _Places(0, 0, 0)
        faulty: list[tuple[str, str, str]] = []
        for shard in shards:
            for row in _rows(shard, places):
                name = row.name
                first = image_rows.setdefault(name, row.image)
                if first != row.image and not _same(images, first, row.image):
                    name = f"{name}#{row.line}"
                    image_rows.setdefault(name, row.image)
                if row.fault:
                    faulty.append((f"row:{row.line}", name, f"caption not read: {row.fault}"))
                for at, caption in enumerate(row.captions or [""]):
                    line = row.line if shard.texts is None else row.text + at
                    reading.add(_row(line, name, caption, row.value))
            n_texts = 0 if shard.texts is None else int(np.prod(shard.texts.shape[:-1]))
            places = _Places(
                places.line + shard.n_rows, places.image + len(shard.images),
                places.text + n_texts,
            )  # fmt: skip
        groups = reading.build()
        for key, name, reason in faulty:
            groups.skipped.add_malformed(key, name, reason)
        return _Items(groups, image_rows)


class _Items(NamedTuple):
    groups: CaptionsByImage
    image_rows: dict[str, int]
    """Row of the arrays of images, by key."""


class _Places(NamedTuple):
    """Offsets of a shard among all rows of tables, images and texts."""

    line: int
    image: int
    text: int


class _TableRow(NamedTuple):
    """One row of a table, with the rows of the arrays that belong to it."""

    line: int
    name: str
    image: int
    text: int
    """Row of its first caption."""
    captions: list[str]
    fault: str
    value: Mapping[str, Any]


def _check_rows(shard: EmbeddingShard) -> None:
    """Refuse a table that cannot say what the rows of the arrays are of.

    Raises
    ------
    ValueError
        With both counts.
    """
    n_rows = shard.n_rows
    n = len(shard.images)
    n_texts = None if shard.texts is None else int(np.prod(shard.texts.shape[:-1]))
    if shard.owners is not None and (
        len(shard.owners) != n_texts or shard.owners.min() < 0 or shard.owners.max() >= n
    ):
        raise ValueError(
            f"the index beside {shard.name} has {len(shard.owners):,} entries up to "
            f"{shard.owners.max():,}; expected {n_texts or 0:,}, each a row of {n:,} images"
        )
    several = n_rows > n and n_texts in (None, n_rows)
    if n != n_rows and not several:
        _refuse_transposed(shard)
        raise ValueError(
            f"{shard.table} has {n_rows:,} rows, but its array of images {n:,}; they must belong "
            "together row by row"
        )


def _refuse_transposed(shard: EmbeddingShard) -> None:
    if shard.images.shape[1] == shard.n_rows:
        raise ValueError(
            f"{shard.name} has shape {shard.images.shape}, but {shard.table.name} "
            f"{shard.n_rows:,} rows: it seems to be transposed; save array.T, a row an image"
        )


def _texts_per_row(shard: EmbeddingShard) -> int:
    """Return k if each row of the table has k texts, 0 if the captions are counted."""
    if shard.texts is None or int(np.prod(shard.texts.shape[:-1])) == shard.n_rows:
        return 1
    return shard.texts.shape[1] if shard.texts.ndim == 3 else 0


def _rows(shard: EmbeddingShard, places: _Places) -> Iterator[_TableRow]:
    """Read a table, and find which rows of the arrays each of its rows is of.

    Raises
    ------
    ValueError
        If the counts of the table and the arrays disagree, or a row has another number of captions
        than texts.
    """
    n = len(shard.images)
    by_name = shard.n_rows != n
    per_row = _texts_per_row(shard)
    order: dict[str, int] = {}
    columns = None
    n_captions = row = 0
    for row, value in enumerate(read_table(shard.table)):
        columns = columns or _columns(value)
        line = places.line + row
        name = as_text(columns.image and value.get(columns.image)).strip() or f"row:{line}"
        if not by_name:
            image = row
        elif shard.owners is not None:
            image = int(shard.owners[row])
        else:
            image = order.setdefault(name, len(order))
        captions, fault = _captions(value, columns)
        text = row * per_row if per_row else n_captions
        if (
            shard.texts is not None
            and not fault
            and (len(captions) > 1 if per_row == 1 else per_row and len(captions) != per_row)
        ):
            raise ValueError(
                f"row {line} of {shard.table} has {len(captions)} captions, but the array of texts "
                f"{per_row} a row"
            )
        if shard.owners is not None and not by_name:
            own = shard.owners[text : text + (per_row or len(captions))]
            if (own != row).any():
                raise ValueError(
                    f"the index beside {shard.name} says that text {text} is of image "
                    f"{int(own[0])}, but {shard.table} that it is of row {row}"
                )
        n_captions += len(captions)
        yield _TableRow(
            line, name, places.image + image, places.text + text, captions, fault, value
        )
    if by_name and shard.owners is None and len(order) != n:
        _refuse_transposed(shard)
        raise ValueError(
            f"{shard.table} has {row + 1:,} rows, which name {len(order):,} images, but its array "
            f"of images {n:,}; expected a row an image, or a row a caption with the image's name"
        )
    if not per_row and shard.texts is not None and n_captions != len(shard.texts):
        raise ValueError(
            f"{shard.table} has {n_captions:,} captions, but its array of texts "
            f"{len(shard.texts):,} rows; one row a caption is expected, in the table's order"
        )


def _captions(value: Mapping[str, Any], columns: _Columns) -> tuple[list[str], str]:
    """Return the captions of a row, or why they cannot be read."""
    try:
        return captions_in(value.get(columns.caption)) if columns.caption else [], ""
    except CellError as error:
        return [], str(error)


class RowSubset:
    """Some rows of embeddings, read as one array.

    Parameters
    ----------
    rows : RowArray
    places : (p,) int64
        Mostly ascending, as rows that lie close together are read at once.
    """

    def __init__(self, rows: RowArray, places: np.ndarray) -> None:
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
    """Choose the columns of a table by their usual names, in any case."""
    return _Columns(image_column_of(_NAMES, value), column_of(_CAPTION_NAMES, list(value)))


def _row(line: int, name: str, caption: str, value: Mapping[str, Any]) -> CaptionRow:
    labels = value.get("labels")
    named = labels if isinstance(labels, list) else as_text(labels).split(LABEL_SEPARATOR)
    split = as_text(value.get("split"))  # other people's words for other things are passed over
    return CaptionRow(
        line, name, caption, split if split_named(split) else "", list(map(as_text, named))
    )


def _same(images: ConcatRows, one: int, other: int) -> bool:
    """Whether two rows are embeddings of one image."""
    a, b = (images[row : row + 1].astype(np.float32)[0] for row in (one, other))
    with np.errstate(all="ignore"):
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return cosine >= SAME_IMAGE
