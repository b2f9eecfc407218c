"""External embeddings as a collection, without running a backbone.

Table rows that name one image and have the same embedding become one item with several captions.
Images that are not available locally are shown as placeholders with their captions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sieve.data_prep.captions.caption_rows import (
    CAPTION_NAMES,
    IMAGE_NAMES,
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
"""Rows with one name and at least this cosine similarity are one image."""

_LENGTH_TOLERANCE = 0.01
"""A warning is logged if the length of embeddings differs from 1 by more than this."""
_NAMES = (*IMAGE_NAMES, "path", "key", "url")
_CAPTION_NAMES = tuple(dict.fromkeys(name.lower() for name in CAPTION_NAMES))


def open_identity(name: str, width: int, device: str = "auto") -> Backbone | BackboneIdentity:
    """Open the backbone that made embeddings, by name.

    Parameters
    ----------
    name : str
        As for `Backbone.load`; any other name is recorded unchanged.
    width : int
        Width of the embeddings.
    device : str

    Returns
    -------
    Backbone or BackboneIdentity
        The identity has only a name, if the backbone cannot be opened.

    Raises
    ------
    ValueError
        If a backbone of that name has another width, or open_clip knows it by another name.
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
            "the weights of backbone %s are not available (%s); only its name is recorded, and "
            "text queries use the embeddings of captions", name, reason,
        )  # fmt: skip
        return BackboneIdentity.unknown(name, width)
    if backbone.width != width:
        raise ValueError(_other_width(name, backbone.width, width))
    return backbone


def _other_width(name: str, expected: int, width: int) -> str:
    return (
        f"the embeddings are {width} wide, but those of backbone {name} are {expected}; name "
        "the backbone that made them with --backbone"
    )


class Embeddings(BaseSource):
    """Rows of embedding files, grouped by image.

    Parameters
    ----------
    folder : Path
        See `sieve.data_prep.sources.embedding_files`.
    images : Path, optional
        Folder of the images, whose paths are matched to the end of the table's image names; by
        default `folder`. Nothing outside it is read.
    keep_captions : bool
        Include captions without embeddings, for the backbone to embed.
    name : str
        The collection's name; by default the folder's.
    licence : str

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, if files are missing or do not match.
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
        """Folder that image paths are relative to."""
        return self.images

    def __str__(self) -> str:
        return f"embeddings {self.folder}"

    @property
    def width(self) -> int:
        """Return d, the width of the embeddings."""
        return self._shards[0].images.shape[1]

    def precomputed(self) -> PrecomputedEmbeddings:
        """Return the embeddings of all records, and of their captions if available."""
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
        """Open the record's image if it is local and readable, else draw its caption."""
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
        n_local = n_not_embedded = 0
        paths = find_images(self.images, groups)
        for number, key in enumerate(groups):
            description = groups.describe(number)
            path = paths.get(key)
            n_local += path is not None
            n_not_embedded += not self.keeps_captions and len(description.captions)
            yield Record(
                key,
                str(path or key),
                tuple(description.captions) if self.keeps_captions else (),
                tuple(description.labels),
                description.split,
            )
        self._log_summary(n_local, len(groups), n_not_embedded, skipped)

    def _log_summary(
        self, n_local: int, n_items: int, n_not_embedded: int, skipped: list[Skipped]
    ) -> None:
        """Log which images are not available and which captions are skipped."""
        lengths = np.linalg.norm(np.asarray(self._shards[0].images[:1000], np.float32), axis=1)
        typical = float(np.nanmedian(lengths))
        if abs(typical - 1) > _LENGTH_TOLERANCE:
            log.warning("embeddings have length %.2f, not 1; they are normalised", typical)
        if n_local < n_items:
            log.warning(
                "%s of %s images are in %s; the others are shown as captions; give the folder "
                "of images with --images", f"{n_local:,}", f"{n_items:,}", self.images,
            )  # fmt: skip
        if n_not_embedded:
            count = f"{n_not_embedded:,} of them; --embed-captions embeds them"
            reason = f"caption without an embedding: {count}"
            skipped.append(Skipped("captions", str(self.folder), reason))
            log.warning(
                "skipped %s captions without embeddings; --embed-captions embeds them",
                f"{n_not_embedded:,}",
            )

    def _read(self) -> _Items:
        """Read all tables, and group rows by image."""
        shards = self._shards
        per_row = all(_texts_per_row(shard) == 1 for shard in shards)
        builder = CaptionTableBuilder("row" if per_row else "caption")
        images = ConcatRows([shard.images for shard in shards])
        image_rows: dict[str, int] = {}
        offsets = _Offsets(0, 0, 0)
        faulty: list[tuple[str, str, str]] = []
        for shard in shards:
            for row in _rows(shard, offsets):
                name = row.name
                first = image_rows.setdefault(name, row.image)
                if first != row.image and not _same(images, first, row.image):
                    name = f"{name}#{row.line}"
                    image_rows.setdefault(name, row.image)
                if row.fault:
                    faulty.append((f"row:{row.line}", name, f"caption not read: {row.fault}"))
                for at, caption in enumerate(row.captions or [""]):
                    line = row.line if shard.texts is None else row.text + at
                    builder.add(CaptionRow.lenient(line, name, caption, row.value))
            n_texts = 0 if shard.texts is None else int(np.prod(shard.texts.shape[:-1]))
            offsets = _Offsets(
                offsets.line + shard.n_rows, offsets.image + len(shard.images),
                offsets.text + n_texts,
            )  # fmt: skip
        groups = builder.build()
        for key, name, reason in faulty:
            groups.skipped.add_malformed(key, name, reason)
        return _Items(groups, image_rows)


class _Items(NamedTuple):
    groups: CaptionsByImage
    image_rows: dict[str, int]
    """Row of the arrays of images, by key."""


class _Offsets(NamedTuple):
    """Offsets of a shard in the rows of all tables, images and texts."""

    line: int
    image: int
    text: int


class _TableRow(NamedTuple):
    """One row of a table, with the corresponding rows of the arrays."""

    line: int
    name: str
    image: int
    text: int
    """Row of the first caption."""
    captions: list[str]
    fault: str
    value: Mapping[str, Any]


def _check_rows(shard: EmbeddingShard) -> None:
    """Raise an error if the rows of the table and of the arrays cannot correspond."""
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
        _check_transposed(shard)
        raise ValueError(
            f"{shard.table} has {n_rows:,} rows, but its array of images has {n:,}; expected "
            "one row of the array for each row of the table"
        )


def _check_transposed(shard: EmbeddingShard) -> None:
    if shard.images.shape[1] == shard.n_rows:
        raise ValueError(
            f"{shard.name} has shape {shard.images.shape}, but {shard.table.name} "
            f"{shard.n_rows:,} rows: it seems to be transposed; save array.T, one row per image"
        )


def _texts_per_row(shard: EmbeddingShard) -> int:
    """Return k if each row of the table has k texts; 0 if texts correspond to counted captions."""
    if shard.texts is None or int(np.prod(shard.texts.shape[:-1])) == shard.n_rows:
        return 1
    return shard.texts.shape[1] if shard.texts.ndim == 3 else 0


def _rows(shard: EmbeddingShard, offsets: _Offsets) -> Iterator[_TableRow]:
    """Read a table, with the rows of the arrays that correspond to each of its rows.

    Raises
    ------
    ValueError
        If the counts of the table and the arrays disagree, or the captions and texts of a row.
    """
    n = len(shard.images)
    by_name = shard.n_rows != n
    per_row = _texts_per_row(shard)
    order: dict[str, int] = {}
    columns = None
    n_captions = row = 0
    for row, value in enumerate(read_table(shard.table)):
        columns = columns or _columns(value)
        line = offsets.line + row
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
                f"has {per_row} per row"
            )
        if shard.owners is not None and not by_name:
            own = shard.owners[text : text + (per_row or len(captions))]
            if (own != row).any():
                raise ValueError(
                    f"the index beside {shard.name} assigns text {text} to image "
                    f"{int(own[0])}, but {shard.table} assigns it to row {row}"
                )
        n_captions += len(captions)
        yield _TableRow(
            line, name, offsets.image + image, offsets.text + text, captions, fault, value
        )
    if by_name and shard.owners is None and len(order) != n:
        _check_transposed(shard)
        raise ValueError(
            f"{shard.table} has {row + 1:,} rows, which name {len(order):,} images, but its array "
            f"of images has {n:,} rows; expected one row per image, or one per caption with the "
            "image's name"
        )
    if not per_row and shard.texts is not None and n_captions != len(shard.texts):
        raise ValueError(
            f"{shard.table} has {n_captions:,} captions, but its array of texts has "
            f"{len(shard.texts):,} rows; expected one row per caption, in table order"
        )


def _captions(value: Mapping[str, Any], columns: _Columns) -> tuple[list[str], str]:
    """Return the captions of a row, and the reason if they cannot be read."""
    try:
        return captions_in(value.get(columns.caption)) if columns.caption else [], ""
    except CellError as error:
        return [], str(error)


class RowSubset:
    """Some rows of embeddings, read as one array.

    Parameters
    ----------
    rows : RowArray
    indices : (p,) int64
        Mostly ascending, because neighbouring rows are read together.
    """

    def __init__(self, rows: RowArray, indices: np.ndarray) -> None:
        self._rows, self._indices = rows, indices
        self.shape = (len(indices), rows.shape[1])

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return the rows of a slice: (r, d)."""
        indices = self._indices[rows]
        if not len(indices):
            return self._rows[0:0]
        first, last = int(indices.min()), int(indices.max()) + 1
        if last - first <= _MAX_OVERHEAD * len(indices):
            return self._rows[first:last][indices - first]
        return np.concatenate([self._rows[index : index + 1] for index in indices.tolist()])


_MAX_OVERHEAD = 16
"""Reading one range up to this many times too large is faster than reading single rows."""


class _Columns(NamedTuple):
    image: str | None
    caption: str | None


def _columns(value: Mapping[str, Any]) -> _Columns:
    """Find the columns of a table by their common names, in any case."""
    return _Columns(image_column_of(_NAMES, value), column_of(_CAPTION_NAMES, list(value)))


def _same(images: ConcatRows, one: int, other: int) -> bool:
    """Return whether two rows are embeddings of one image."""
    a, b = (images[row : row + 1].astype(np.float32)[0] for row in (one, other))
    with np.errstate(all="ignore"):
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return cosine >= SAME_IMAGE
