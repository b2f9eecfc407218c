"""External embeddings as a collection, without running a backbone.

Table rows that name one image and have the same embedding become one item with several captions.
Images that are not available locally are shown as placeholders with their captions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sieve.data_prep.captions.caption_table import CaptionsByImage, CaptionTableBuilder
from sieve.data_prep.captions.caption_text import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    CaptionRow,
    CellError,
    as_text,
    captions_in,
    column_of,
    image_column_of,
)
from sieve.data_prep.precomputed import ConcatRows, PrecomputedEmbeddings, RowArray
from sieve.data_prep.records import Record, SkippedRows
from sieve.data_prep.sources import ExternalSource, require_folder
from sieve.data_prep.sources.embedding_files import (
    EmbeddingShard,
    open_shards,
    read_table,
    unused_files,
)
from sieve.model.backbone.clip import Backbone, declared_width
from sieve.model.backbone.names import known_name, parse_name
from sieve.model.collection import BackboneIdentity
from sieve.model.text_encoder import unavailable_reason

log = logging.getLogger(__name__)

SAME_IMAGE = 0.999
"""Rows with one name and at least this cosine similarity are one image."""

_LENGTH_TOLERANCE = 0.01
"""A warning is logged if the length of embeddings differs from 1 by more than this."""
_MAX_OVERHEAD = 16
"""Reading one range up to this many times too large is faster than reading single rows."""


def open_identity(name: str, width: int, device: str = "auto") -> Backbone | BackboneIdentity:
    """Open the backbone that made embeddings of a width, by a name as for `Backbone.load`.

    A backbone that cannot be opened becomes an identity with this name. Raise ValueError if a
    backbone of that name has another width, or open_clip knows it by another name.
    """
    try:
        name = parse_name(name).text
    except ValueError:
        if known_name(name):
            raise
        name = name.removeprefix("open_clip:")
    expected = declared_width(name)
    if expected in (None, width):
        try:
            backbone = Backbone.load(name, device)
        except (ValueError, OSError) as error:
            log.warning(
                "the weights of backbone %s are not available (%s); only its name is recorded, and "
                "text queries use the embeddings of captions", name, unavailable_reason(error),
            )  # fmt: skip
            return BackboneIdentity.unknown(name, width)
        if (expected := backbone.width) == width:
            return backbone
    raise ValueError(
        f"the embeddings are {width} wide, but those of backbone {name} are {expected}; name "
        "the backbone that made them with --backbone"
    )


@dataclass(frozen=True)
class Embeddings(ExternalSource):
    """Rows of embedding files, grouped by image; by default the name is the folder's.

    Raise FileNotFoundError or ValueError in one line if files are missing or do not match.
    """

    folder: Path
    """See `sieve.data_prep.sources.embedding_files`."""
    images: Path | None = None
    """Folder of the images, whose paths are matched to the end of the table's image names; by
    default `folder`. Nothing outside it is read, unless `follow_links`."""
    _: KW_ONLY
    keep_captions: bool = False
    """Whether to include captions without embeddings, for the backbone to embed."""
    follow_links: bool | None = False
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        if self.images is not None:
            require_folder(self.images, "check --images")
        folder = self.folder.resolve()
        root = (self.images or folder).resolve()
        vars(self).update(folder=folder, root=root, name=self.name or folder.name)
        if all(shard.texts is not None for shard in self._shards):
            vars(self).update(keep_captions=True)

    def __str__(self) -> str:
        return f"embeddings {self.folder}"

    @property
    def width(self) -> int:
        """Return d, the width of the embeddings."""
        return self._shards[0].images.shape[1]

    def precomputed(self) -> PrecomputedEmbeddings:
        """Return the embeddings of all records, and of their captions if available."""
        items, image_rows = self._read()
        images = ConcatRows([shard.images for shard in self._shards])
        chosen = RowSubset(images, np.array([image_rows[key] for key in items], np.int64))
        texts = [shard.texts for shard in self._shards if shard.texts is not None]
        if len(texts) < len(self._shards):
            return PrecomputedEmbeddings(chosen)
        rows = [line for number in range(len(items)) for line in items.caption_lines(number)]
        flat = ConcatRows([part.reshape(-1, part.shape[-1]) for part in texts])
        return PrecomputedEmbeddings(chosen, RowSubset(flat, np.array(rows, np.int64)))

    @cached_property
    def _shards(self) -> list[EmbeddingShard]:
        return open_shards(self.folder)

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        items, _ = self._read()
        skipped += items.skipped
        skipped.count_rows(items.skipped)
        for path in unused_files(self.folder):
            reason = "file beside embeddings: only arrays and one table with a row each are read"
            skipped.add(path.name, str(path), reason)
        n_dropped = 0
        for record in self._records_of(items, {}):
            if not self.keep_captions:
                n_dropped += len(record.captions)
                record = replace(record, captions=())
            yield record
        lengths = np.linalg.norm(np.asarray(self._shards[0].images[:1000], np.float32), axis=1)
        typical = float(np.nanmedian(lengths))
        if abs(typical - 1) > _LENGTH_TOLERANCE:
            log.warning("embeddings have length %.2f, not 1; they are normalised", typical)
        if n_dropped:
            advice = "--embed-captions embeds them"
            reason = f"caption without an embedding: {n_dropped:,} of them; {advice}"
            skipped.add("captions", str(self.folder), reason)
            log.warning("skipped %s captions without embeddings; %s", f"{n_dropped:,}", advice)

    def _read(self) -> tuple[CaptionsByImage, dict[str, int]]:
        """Read all tables, and group rows by image; also return the row of each image, by key."""
        shards = self._shards
        per_row = all(shard.texts_per_row == 1 for shard in shards)
        builder = CaptionTableBuilder("row" if per_row else "caption")
        images = ConcatRows([shard.images for shard in shards])
        image_rows: dict[str, int] = {}
        faults: list[tuple[str, str, str]] = []
        first_line = first_image = first_text = 0
        for shard in shards:
            for row in _rows(shard, first_line):
                name, image = row.name, first_image + row.image
                first = image_rows.setdefault(name, image)
                if first != image and not _same_image(images, first, image):
                    name = f"{name}#{row.line}"
                    image_rows.setdefault(name, image)
                if row.fault:
                    faults.append((f"row:{row.line}", name, f"caption not read: {row.fault}"))
                for at, caption in enumerate(row.captions or [""]):
                    line = row.line if shard.texts is None else first_text + row.text + at
                    builder.add(CaptionRow.lenient(line, name, caption, row.value))
            first_line += shard.n_rows
            first_image += len(shard.images)
            first_text += shard.n_texts
        items = builder.build()
        for fault in faults:
            items.skipped.add_malformed(*fault)
        return items, image_rows


class _TableRow(NamedTuple):
    """One row of a table, with the corresponding rows of the arrays of its shard."""

    line: int
    """Number of the row in all tables."""
    name: str
    image: int
    text: int
    """Row of the first caption."""
    captions: list[str]
    fault: str
    """Reason why the captions cannot be read; empty if they can."""
    value: Mapping[str, Any]


def _rows(shard: EmbeddingShard, first_line: int) -> Iterator[_TableRow]:
    """Read a table, with the rows of the arrays that correspond to each of its rows."""
    n, per_row, owners = len(shard.images), shard.texts_per_row, shard.owners
    by_name = shard.n_rows != n
    order: dict[str, int] = {}
    image_column = caption_column = None
    n_captions = 0
    for row, value in enumerate(read_table(shard.table)):
        if row == 0:
            image_column = image_column_of((*IMAGE_NAMES, "key", "url"), value)
            caption_column = column_of(CAPTION_NAMES, list(value))
        line = first_line + row
        name = as_text(image_column and value.get(image_column)).strip() or f"row:{line}"
        image = row
        if by_name:
            image = order.setdefault(name, len(order)) if owners is None else int(owners[row])
        captions, fault = [], ""
        try:
            captions = captions_in(value.get(caption_column)) if caption_column else []
        except CellError as error:
            fault = str(error)
        text = row * per_row if per_row else n_captions
        differs = len(captions) > 1 if per_row == 1 else per_row and len(captions) != per_row
        if shard.texts is not None and not fault and differs:
            raise ValueError(
                f"row {line} of {shard.table} has {len(captions)} captions, but the array of texts "
                f"has {per_row} per row"
            )
        if owners is not None and not by_name:
            own = owners[text : text + (per_row or len(captions))]
            if (own != row).any():
                raise ValueError(
                    f"the index beside {shard.name} assigns text {text} to image "
                    f"{int(own[0])}, but {shard.table} assigns it to row {row}"
                )
        n_captions += len(captions)
        yield _TableRow(line, name, image, text, captions, fault, value)
    if by_name and owners is None and len(order) != n:
        raise shard.disagreement(
            f"{shard.n_rows:,} rows, which name {len(order):,} images, but its array of images has "
            f"{n:,} rows; expected one row per image, or one per caption with the image's name"
        )
    if not per_row and n_captions != shard.n_texts:
        raise ValueError(
            f"{shard.table} has {n_captions:,} captions, but its array of texts has "
            f"{shard.n_texts:,} rows; expected one row per caption, in table order"
        )


def _same_image(images: ConcatRows, one: int, other: int) -> bool:
    a, b = (images[row : row + 1].astype(np.float32)[0] for row in (one, other))
    with np.errstate(all="ignore"):
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) >= SAME_IMAGE


class RowSubset:
    """The rows of an array at some indices, (p,) int64, which are best mostly ascending."""

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
