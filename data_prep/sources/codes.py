"""Sparse codes that were made elsewhere, as a collection: SpLiCE's, VDR's, a sparse autoencoder's.

Row i of the images' codes is of the item that the table names i-th; row j of the texts' codes is of
its j-th caption. No backbone runs. Images are shown where they are on this machine; where not, a
tile shows the caption.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sieve.data_prep.captions import split_named, tidy
from sieve.data_prep.captions.cell import captions_in
from sieve.data_prep.captions.formats import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    LABEL_SEPARATOR,
    Row,
    as_text,
    image_column_of,
)
from sieve.data_prep.captions.table import CaptionReading, CaptionsByImage
from sieve.data_prep.known_codes import KnownCodes
from sieve.data_prep.records import Record
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.code_files import (
    CODE_SUFFIXES,
    read_codes_file,
    read_names,
    read_word_list,
)
from sieve.data_prep.sources.embedding_files import TABLES, read_table
from sieve.data_prep.sources.found_images import find_images, open_or_draw
from sieve.data_prep.sources.noting import NotesSkipped
from sieve.data_prep.sources.url_tables import column_of
from sieve.model.codes import SparseCodes
from sieve.model.external_sae import external_sae_fault
from sieve.model.text_encoder import check_entry

log = logging.getLogger(__name__)

_NAMES = (*IMAGE_NAMES, "path", "url")


@dataclass(frozen=True)
class CodeFiles:
    """Where things are, by default under their usual names in one folder."""

    images: Path
    table: Path
    names: Path | None = None
    texts: Path | None = None
    words: Path | None = None
    word_list: Path | None = None

    @classmethod
    def find(cls, folder: Path, **given: Path | None) -> CodeFiles:
        """Look for what is not given.

        Parameters
        ----------
        folder : Path
        given : Path or None
            Fields; a relative path is sought in the folder where it is not found from here.

        Raises
        ------
        FileNotFoundError
            If there is no folder, no codes of images, or no table.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; give the folder of the codes")
        usual = {
            "images": tuple(f"image_codes{suffix}" for suffix in CODE_SUFFIXES),
            "table": tuple(f"items{suffix}" for suffix in TABLES),
            "names": ("names.json", "names.csv", "names.txt"),
            "texts": tuple(f"text_codes{suffix}" for suffix in CODE_SUFFIXES),
            "words": tuple(f"word_codes{suffix}" for suffix in CODE_SUFFIXES),
            "word_list": ("words.txt",),
        }
        found: dict[str, Path | None] = {}
        for field, names in usual.items():
            named = given.get(field)
            options = [named, folder / named] if named else [folder / name for name in names]
            found[field] = next((path for path in options if path.is_file()), None)
            if found[field] is None and (named or field in ("images", "table")):
                wanted = str(named or " or ".join(names))
                raise FileNotFoundError(
                    external_sae_fault(folder)
                    or f"there is no {wanted} in {folder}; data_prep/README.md tells the layout"
                )
        if (found["words"] is None) != (found["word_list"] is None):
            raise FileNotFoundError(
                f"{folder} holds {'words' if found['words'] is None else 'codes of words'} alone; "
                "word_codes.npz and words.txt belong together"
            )
        return cls(**found)  # type: ignore[arg-type]


class Codes(NotesSkipped):
    """Rows of codes, with the items and captions that they are of.

    Parameters
    ----------
    files : CodeFiles
    images : Path, optional
        Folder in which the table's image names are sought, by as much of their end as fits; by
        default that of the codes. Nothing outside it is read.
    text_encoder : str
        `package.module:function` that makes codes of texts: kept, not loaded.
    name : str
        The collection's.
    licence : str

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, where a file is missing, is not what it should be, or does not fit the others.
    """

    def __init__(
        self,
        files: CodeFiles,
        images: Path | None = None,
        *,
        text_encoder: str = "",
        name: str = "",
        licence: str = "not stated",
    ) -> None:
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"there is no folder {images}; check --images")
        if text_encoder:
            check_entry(text_encoder)
        self.files = files
        self.images = (images or files.images.parent).resolve()
        self.name = name or files.images.parent.resolve().name
        self.licence = licence
        self.text_encoder = text_encoder

    @property
    def root(self) -> Path:
        """Folder that the images' files are named relative to."""
        return self.images

    def __str__(self) -> str:
        return f"codes {self.files.images.resolve()}"

    def known(self) -> KnownCodes:
        """Read and check all codes, names and words."""
        files, images = self.files, self._image_codes
        table = self._read()
        texts = None
        if files.texts is not None:
            codes = read_codes_file(files.texts, images.m)
            if codes.n != table.n_captions:
                raise ValueError(
                    f"{files.texts} has {codes.n:,} rows, but {files.table} {table.n_captions:,} "
                    "captions; one row a caption is expected, in the table's order"
                )
            numbers = range(len(table.groups))
            lines = [line for number in numbers for line in table.groups.caption_lines(number)]
            texts = codes.take(np.array(lines, np.int64))
        words, word_codes = (), None
        if files.words is not None and files.word_list is not None:
            word_codes = read_codes_file(files.words, images.m)
            words = tuple(read_word_list(files.word_list, word_codes.n))
        names = read_names(files.names, images.m) if files.names else {}
        self._tell(images, names)
        return KnownCodes(images, texts, names, words, word_codes, self.text_encoder)

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image where it is here and whole, else draw its caption."""
        return open_or_draw(self.images, record)

    @cached_property
    def _image_codes(self) -> SparseCodes:
        return read_codes_file(self.files.images)

    def _tell(self, images: SparseCodes, names: Mapping[int, str]) -> None:
        if not self.files.names:
            log.warning("no names: dimensions are called by their number (names.txt, .csv, .json)")
        elif len(names) < images.m:
            log.warning("%s of %s dimensions have no name", images.m - len(names), images.m)
        empty = int((np.diff(images.by_row.indptr) == 0).sum())
        if empty:
            log.warning("%s of %s items have no dimension at all and are never found",
                        f"{empty:,}", f"{images.n:,}")  # fmt: skip
        if not self.files.words and not self.text_encoder:
            log.warning(
                "no codes of words (word_codes.npz, words.txt): it can be searched by items alone"
            )

    def _find(self, skipped: list[Skipped]) -> Iterator[Record]:
        table = self._read()
        skipped += table.groups.skipped
        n_here, n_items = 0, len(table.groups)
        found = find_images(self.images, dict.fromkeys(table.images.values()))
        for number, key in enumerate(table.groups):
            said = table.groups.describe(number)
            image = table.images.get(key, key)
            path = found.get(image)
            n_here += path is not None
            shown = str(path or image)
            yield Record(key, shown, tuple(said.captions), tuple(said.labels), said.split)
        if n_here < n_items:
            log.warning(
                "%s of %s images are in %s; the others are shown by their captions (--images says "
                "where they are)", f"{n_here:,}", f"{n_items:,}", self.images,
            )  # fmt: skip

    def _read(self) -> _Items:
        """Go over the table, and put rows of one item together."""
        path = self.files.table
        reading = CaptionReading("caption")
        images: dict[str, str] = {}
        columns = None
        n_captions = number = 0
        for number, value in enumerate(read_table(path), 1):
            columns = columns or _columns(value)
            image = as_text(columns.image and value.get(columns.image)).strip()
            key = tidy(as_text(columns.key and value.get(columns.key))) or image or f"row:{number}"
            images.setdefault(key, image or key)
            captions = captions_in(value.get(columns.caption)) if columns.caption else []
            # Captions are numbered as they come, so that codes of texts can be looked up.
            for caption in captions or [""]:
                reading.add(_row(n_captions, key, caption, value))
                n_captions += bool(caption)
        groups = reading.whole()
        if len(groups) != self._image_codes.n:
            raise ValueError(
                f"{self.files.images} has {self._image_codes.n:,} rows, but {path} names "
                f"{len(groups):,} items in {number:,} rows; one row of codes an item is expected, "
                "in the order in which they are first named"
            )
        return _Items(groups, images, n_captions)


class _Items(NamedTuple):
    """What the table says."""

    groups: CaptionsByImage
    images: dict[str, str]
    """Name of each item's image, by key."""
    n_captions: int
    """All that are there, those that are left out too."""


class _Columns(NamedTuple):
    key: str | None
    image: str | None
    caption: str | None


def _columns(value: Mapping[str, Any]) -> _Columns:
    """Choose the columns of a table by their usual names."""
    found = list(value)
    captions = tuple(map(str.lower, CAPTION_NAMES))
    image = image_column_of(_NAMES, value)
    return _Columns(column_of(("id", "key"), found), image, column_of(captions, found))


def _row(line: int, key: str, caption: str, value: Mapping[str, Any]) -> Row:
    labels = value.get("labels")
    named = labels if isinstance(labels, list) else as_text(labels).split(LABEL_SEPARATOR)
    split = as_text(value.get("split"))  # other people's words for other things are passed over
    return Row(line, key, caption, split if split_named(split) else "", list(map(as_text, named)))
