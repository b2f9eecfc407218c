"""Conceptual Captions: Google's table of captions and URLs, with what was downloaded of it.

The table has no head: a caption, a tab, a URL (in CC12M the other way round); the labelled part of
it also has labels. Downloaders name images by a hash of the URL or by the row, most often without
an extension; which way is seen by what fits the most rows. Without that table, img2dataset's own
output says all: see `sieve.data_prep.sources.img2dataset`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sieve.data_prep.captions import caption_fault, tidy
from sieve.data_prep.captions.formats import numbered_lines
from sieve.data_prep.images import readable_extensions
from sieve.data_prep.records import DRAWN, Record
from sieve.data_prep.skipped import Skipped
from sieve.data_prep.sources.image_files import open_inside, walk
from sieve.data_prep.sources.img2dataset import Img2Dataset
from sieve.data_prep.sources.noting import NotesSkipped
from sieve.data_prep.sources.shards import NOT_DOWNLOADED

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 16
"""Longer rows are cut, and then mostly are none."""

_TABLE_SUFFIXES = (".tsv", ".txt", ".csv")
_URL = re.compile(r"(?i)https?://\S")
_ROW_AND_HASH = re.compile(r"\d+_(\d+)")
_LABELS_AT, _LABELLED_WIDTH = 2, 5  # caption, URL, labels, their machine ids, their confidences


def conceptual_captions(
    path: Path, images: Path | None = None, *, first_row: int = 0, name: str, licence: str
) -> ConceptualCaptions | Img2Dataset:
    """Tell by what is at a path which of the two it is.

    Parameters
    ----------
    path : Path
        The table, a folder with it and the images, or img2dataset's output.
    images : Path, optional
        Folder of the images, where they are not beside the table.
    first_row : int
        See `ConceptualCaptions`.
    name, licence : str

    Raises
    ------
    FileNotFoundError, ValueError
        In one line, where there is neither.
    """
    tables = [path] if path.is_file() and path.suffix.lower() in _TABLE_SUFFIXES else []
    if path.is_dir():
        tables = sorted(path.glob("*.tsv"))
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables[:5])
        raise ValueError(f"{path} holds several tables ({names}); give one of them, and --images")
    if tables:
        beside = images or tables[0].parent
        return ConceptualCaptions(tables[0], beside, first_row, name=name, licence=licence)
    if images is not None:
        raise ValueError(f"--images goes with the official table, but {path} is none")
    return Img2Dataset(path, name=name, licence=licence)


@dataclass(frozen=True)
class ConceptualCaptions(NotesSkipped):
    """The rows of the official table whose images are on this disk; the URL is an image's key.

    Parameters
    ----------
    table : Path
    images : Path
        Folder of the images, with subfolders.
    first_row : int
        What file names that count rows call the first one.
    name : str
    licence : str

    Raises
    ------
    FileNotFoundError
        If the table or the folder is missing.
    """

    table: Path
    images: Path
    first_row: int = 0
    name: str = "conceptual-captions"
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if not self.table.is_file():
            raise FileNotFoundError(f"there is no table {self.table}; give the official TSV")
        if not self.images.is_dir():
            raise FileNotFoundError(f"there is no folder {self.images}; check --images")
        object.__setattr__(self, "images", self.images.resolve())

    def __str__(self) -> str:
        return f"Conceptual Captions {self.table.resolve()} with images {self.images}"

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        """Open the record's image; see `sieve.data_prep.images.load_image`."""
        return open_inside(self.images, Path(record.image))

    def _find(self, skipped: list[Skipped]) -> Iterator[Record]:
        """All rows with an image, in the table's order."""
        walked, linked, _ = walk(self.images, extensionless=True)
        skipped += linked
        files = {_plain_name(key): path for key, path in walked.items()}
        del walked  # of millions of files
        naming = self._naming(files)
        for row in _rows(self.table, skipped):
            path = files.get(naming.name_of(row))
            caption = tidy(row.caption)
            if path is None:
                skipped.append(Skipped(row.place, row.url, f"{NOT_DOWNLOADED}: no such file"))
                continue
            if fault := caption_fault(caption):
                skipped.append(Skipped(row.place, row.url, fault))
            yield Record(
                key=row.url,
                image=str(self.images / path),
                captions=() if fault else (caption,),
                labels=row.labels,
                split=DRAWN,
            )

    def _naming(self, files: Mapping[str, str]) -> _Naming:
        """Find out how the files are named: the way that fits the most rows."""
        ways = _ways(self.first_row)
        fitting = [0] * len(ways)
        n_rows = 0
        for row in _rows(self.table, []):
            n_rows += 1
            for at, way in enumerate(ways):
                fitting[at] += way.name_of(row) in files
        best = max(range(len(ways)), key=fitting.__getitem__)
        if not fitting[best]:
            raise ValueError(
                f"none of the {n_rows:,} rows of {self.table} has an image in {self.images}; files "
                f"were sought by {', '.join(way.told for way in ways)}; check --images"
            )
        if fitting[best] < n_rows:
            log.warning(
                "%s of %s rows have an image in %s, named by %s; skipped.csv names the others",
                *(f"{fitting[best]:,}", f"{n_rows:,}", self.images, ways[best].told),
            )
        return ways[best]


class _Row(NamedTuple):
    """One row of the table."""

    place: str
    number: int
    """Counted from 0, without a head."""
    caption: str
    url: str
    labels: tuple[str, ...]


class _Naming(NamedTuple):
    """One way to name images."""

    told: str
    """In words."""
    name_of: Callable[[_Row], str]


def _ways(first_row: int) -> list[_Naming]:
    """All known ways; names are compared as `_plain_name` gives them."""
    hashes = {name: getattr(hashlib, name) for name in ("md5", "sha1", "sha256")}
    return [
        _Naming("CRC-32 of the URL", lambda row: str(zlib.crc32(row.url.encode()))),
        *(
            _Naming(f"{name} of the URL", lambda row, h=h: h(row.url.encode()).hexdigest())
            for name, h in hashes.items()
        ),
        _Naming(f"row from {first_row}", lambda row: str(row.number + first_row)),
    ]


def _plain_name(key: str) -> str:
    """Name of a file without folder, extension, a row before a hash, and zeros before a number."""
    name = key.rpartition("/")[2]
    stem, _, extension = name.rpartition(".")
    stem = stem if f".{extension.lower()}" in readable_extensions() else name
    if both := _ROW_AND_HASH.fullmatch(stem):
        return both[1]
    return stem.lstrip("0") or "0" if stem.isdigit() else stem


def _rows(path: Path, skipped: list[Skipped]) -> Iterator[_Row]:
    """All rows that have a URL; a first line without one names the columns."""
    number = 0
    with path.open("rb") as stream:
        for line, data in numbered_lines(stream, MAX_LINE_BYTES):
            cells = data.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
            at = next((i for i, cell in enumerate(cells[:2]) if _URL.match(cell)), None)
            if at is None or len(cells) < 2:
                if data.strip() and line > 1:
                    reason = "no caption and URL in this row"
                    skipped.append(Skipped(f"{path.name}:{line}", tidy(cells[-1])[:200], reason))
                    number += 1
                continue
            labels = cells[_LABELS_AT] if len(cells) == _LABELLED_WIDTH else ""
            named = tuple(dict.fromkeys(filter(None, map(tidy, labels.split(",")))))
            yield _Row(f"{path.name}:{line}", number, cells[1 - at], cells[at].strip(), named)
            number += 1
