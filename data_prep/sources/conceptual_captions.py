"""Conceptual Captions: Google's table of captions and URLs, with the images downloaded from it.

The official table has no header: a caption, a tab, a URL (the reverse in CC12M); its labelled part
also has labels. Tables with a header, such as LAION's, name their columns. Downloaders name images
by a hash of the URL, by a column, or by the row number, counted from 0 or 1; row numbers are used
only if one way to count fits all files. img2dataset's output is read without the table: see
`sieve.data_prep.sources.img2dataset`.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sieve.data_prep.captions.caption_text import (
    CAPTION_NAMES,
    IMAGE_NAMES,
    URL_NAMES,
    CellError,
    captions_in,
    column_of,
    columns_of_names,
    read_split,
    tidy,
)
from sieve.data_prep.captions.formats import numbered_lines
from sieve.data_prep.images import readable_extensions
from sieve.data_prep.records import Record, SkippedRows
from sieve.data_prep.sources import BaseSource, require_folder, usable_captions
from sieve.data_prep.sources.img2dataset import NOT_DOWNLOADED, Img2Dataset, url_table_advice
from sieve.data_prep.sources.local_images import walk

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 16
"""Longer rows are cut, and are then usually malformed."""

_TABLE_SUFFIXES = (".tsv", ".txt", ".csv")
_URL = re.compile(r"(?i)https?://\S")
_ROW_AND_HASH = re.compile(r"\d+_(\d+)")
_FILE_NAMES = (*IMAGE_NAMES, "key", "sample_id", "id", "name", "hash", "md5")
"""Names of columns that may hold file names, in any case."""
_OFFICIAL = ("caption", "url", "labels without a header")
_LABELS_AT, _LABELLED_WIDTH = 2, 5  # caption, URL, labels, their machine ids, their confidences


def conceptual_captions(
    path: Path, images: Path | None = None, *, first_row: int | None = None, name: str, licence: str
) -> ConceptualCaptions | Img2Dataset:
    """Open the official table, or img2dataset's output, whichever is at a path.

    `images` is the folder of the images, if they are not beside the table; see `ConceptualCaptions`
    for the other parameters. Raise FileNotFoundError or ValueError if there is neither.
    """
    tables = sorted(path.glob("*.tsv")) if path.is_dir() else []
    if path.is_file() and path.suffix.lower() in _TABLE_SUFFIXES:
        tables = [path]
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables[:5])
        raise ValueError(f"{path} holds several tables ({names}); give one of them, and --images")
    if tables:
        root = images or tables[0].parent
        return ConceptualCaptions(
            tables[0], root=root, first_row=first_row, name=name, licence=licence
        )
    if images is not None:
        raise ValueError(f"--images requires the official table, but {path} is not one")
    return Img2Dataset(path, name=name, licence=licence)


@dataclass(frozen=True)
class ConceptualCaptions(BaseSource):
    """The rows of the official table whose images are in `root` or its subfolders.

    The URL is an image's key. Raise FileNotFoundError if the folder is missing.
    """

    table: Path
    _: KW_ONLY
    first_row: int | None = None
    """Number of the first row in file names; by default 0 or 1, if only one fits all files."""
    name: str = "conceptual-captions"

    def __post_init__(self) -> None:
        require_folder(self.root, "check --images")
        vars(self).update(root=self.root.resolve())

    def __str__(self) -> str:
        return f"Conceptual Captions {self.table.resolve()} with images {self.root}"

    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        walked = walk(self.root, extensionless=True, follow_links=None)
        skipped += walked.skipped
        files: dict[str, list[str]] = {}
        for key, path in walked.files.items():
            files.setdefault(_plain_name(key), []).append(path)
        unused = set(walked.files.values())
        del walked  # of millions of files
        naming = self._naming(files)
        n_found = 0
        for row in _rows(self.table, skipped):
            paths = files.get(naming.name_of(row), [])
            if len(paths) > 1 and not naming.is_hash:
                raise ValueError(
                    f"{row.place} matches {paths[0]} and {paths[1]} in {self.root}: both fit "
                    f"{naming.description}; rename or remove one of them"
                )
            if not paths:
                skipped.add(row.place, row.url, f"{NOT_DOWNLOADED}: no such file")
                continue
            unused.discard(paths[0])
            n_found += 1
            captions = usable_captions(row.captions or [""], row.place, row.url, skipped)
            labels = row.cells.get(_OFFICIAL[2], "").split(",")
            named = tuple(dict.fromkeys(filter(None, map(tidy, labels))))
            yield Record(row.url, str(self.root / paths[0]), captions, named, row.split)
        if n_found < skipped.n_rows:
            found = f"{n_found:,} of {skipped.n_rows:,} rows have an image in {self.root}"
            named = f"named by {naming.description}"
            log.warning("%s, %s; skipped.csv lists the others", found, named)
        elif not naming.is_hash:
            log.warning("images in %s are named by %s", self.root, naming.description)
        for path in sorted(unused):
            skipped.add(path, str(self.root / path), "image without a row in the table")

    def _naming(self, files: Mapping[str, list[str]]) -> _Naming:
        ways = _ways(_header(self.table))
        fitting = [0] * len(ways)
        rows = SkippedRows()
        contents = array("q")
        for row in _rows(self.table, rows):
            contents.append(hash((row.url, *row.captions)))
            for at, way in enumerate(ways):
                fitting[at] += way.name_of(row) in files
        n_fitting, best = max(zip(fitting, ways, strict=True), key=itemgetter(0))
        numbers = [int(name) for name in files if name.isdecimal() and len(name) < 10]
        n_by_number = sum(0 <= number <= rows.n_rows for number in numbers)
        if n_fitting and n_fitting >= n_by_number:
            return best
        by_number = self._naming_by_number(numbers, rows.n_rows)
        if by_number is None:
            if advice := "" if files else url_table_advice(self.table):
                raise ValueError(f"there are no images in {self.root}: {advice}")
            tried = ", ".join([*(way.description for way in ways), "number of the row"])
            raise ValueError(
                f"none of the {rows.n_rows:,} rows of {self.table} has an image in {self.root}; "
                f"tried {tried}; check --images"
            )
        if n_fitting and self.first_row is None:
            raise ValueError(
                f"{n_fitting:,} files in {self.root} fit {best.description} and "
                f"{n_by_number:,} the {by_number.description}, so it is not clear which row each "
                "belongs to; remove the column, or specify --first-row 0 or --first-row 1"
            )
        n_repeated = len(contents) - len(np.unique(np.array(contents)))
        if n_repeated and len(numbers) < rows.n_rows and self.first_row is None:
            # A downloader may have counted repeated rows once.
            raise ValueError(
                f"{n_repeated:,} rows of {self.table} are repeated and images are missing, so it "
                f"is not clear whether the {by_number.description} counts them; remove them, or "
                "confirm with --first-row"
            )
        return by_number

    def _naming_by_number(self, numbers: Sequence[int], n_rows: int) -> _Naming | None:
        """Return the naming by row number, if any; raise ValueError if it is ambiguous."""
        firsts = (0, 1) if self.first_row is None else (self.first_row,)
        fits = {n: sum(n <= number < n + n_rows for number in numbers) for n in firsts}
        if not any(fits.values()):
            return None
        whole = [first for first, count in fits.items() if count == len(numbers)]
        if len(whole) == 1 or self.first_row is not None:
            first = whole[0] if whole else firsts[0]
            others = "".join(f", from {n} {count:,}" for n, count in fits.items() if n != first)
            fit = f"{fits[first]:,} files fit{others}"
            description = f"number of the row, counted from {first} ({fit})"
            return _Naming(description, lambda row: str(row.number + first))
        counts = " and ".join(f"from {first} {count:,}" for first, count in fits.items())
        raise ValueError(
            f"{self.root} holds {len(numbers):,} files named by a number, and {self.table} "
            f"{n_rows:,} rows: counted {counts} of the files fit, so it is not clear which row "
            "each belongs to; specify --first-row 0 or --first-row 1"
        )


class _Row(NamedTuple):
    place: str
    number: int
    """Counted from 0, without a header."""
    captions: list[str]
    url: str
    split: str
    cells: Mapping[str, str]
    """By column; the official table's are `_OFFICIAL`."""


class _Naming(NamedTuple):
    """One way in which images are named."""

    description: str
    """For messages."""
    name_of: Callable[[_Row], str]
    is_hash: bool = False
    """Whether equal names imply the same URL."""


def _ways(header: Sequence[str]) -> list[_Naming]:
    """Return all known ways except row numbers; names are compared after `_plain_name`."""

    def by_hash(name: str) -> _Naming:
        digest = getattr(hashlib, name)
        return _Naming(f"{name} of the URL", lambda row: digest(row.url.encode()).hexdigest(), True)

    def by_column(name: str) -> _Naming:
        return _Naming(f"column {name}", lambda row: _plain_name(row.cells[name].strip()))

    crc = _Naming("CRC-32 of the URL", lambda row: str(zlib.crc32(row.url.encode())), True)
    columns = columns_of_names(_FILE_NAMES, header)
    return [crc, *map(by_hash, ("md5", "sha1", "sha256")), *map(by_column, columns)]


def _plain_name(key: str) -> str:
    """Remove the folder, the extension, a row before a hash, and leading zeros from a file name."""
    name = key.rpartition("/")[2]
    stem, _, extension = name.rpartition(".")
    stem = stem if f".{extension.lower()}" in readable_extensions() else name
    if both := _ROW_AND_HASH.fullmatch(stem):
        return both[1]
    return stem.lstrip("0") or "0" if stem.isdigit() else stem


def _header(path: Path) -> list[str]:
    """Return the column names in the first line; empty if there is no header."""
    with path.open("rb") as stream:
        line = next(iter(numbered_lines(stream, MAX_LINE_BYTES)), (1, b""))[1]
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    cells = [cell.strip().strip('"') for cell in text.split(_delimiter(text))]
    is_row = any(_URL.match(cell) for cell in cells)
    return cells if not is_row and column_of((*URL_NAMES, *CAPTION_NAMES), cells) else []


def _delimiter(line: str) -> str:
    return "\t" if "\t" in line else ","


def _rows(path: Path, skipped: SkippedRows) -> Iterator[_Row]:
    """Yield all rows that have a URL; skip a header and malformed rows."""
    header = _header(path)
    roles = (URL_NAMES, CAPTION_NAMES, ("split",))
    columns = [column_of(names, header or _OFFICIAL) or "" for names in roles]
    number = 0
    with path.open("rb") as stream:
        for line, data in numbered_lines(stream, MAX_LINE_BYTES):
            if not data.strip() or (header and line == 1):
                continue
            place = f"{path.name}:{line}"
            text = data.decode("utf-8-sig", "replace").rstrip("\r\n")
            skipped.n_rows += 1
            try:
                cells = _cells(text, header) if header else _official_cells(text)
                url, caption, split = (cells.get(column, "").strip() for column in columns)
                if not _URL.match(url):
                    raise CellError("no URL in this row")
                captions, split = captions_in(caption), read_split(split, place)
                yield _Row(place, number, captions, url, split, cells)
            except CellError as error:
                skipped.add_malformed(place, tidy(text)[-200:], str(error))
            number += 1


def _official_cells(text: str) -> dict[str, str]:
    """Split a line of the official table; raise CellError if it is malformed."""
    cells = text.split("\t")
    at = next((i for i, cell in enumerate(cells[:2]) if _URL.match(cell)), None)
    if at is None or len(cells) < 2:
        raise CellError("no caption and URL in this row")
    labels = cells[_LABELS_AT] if len(cells) == _LABELLED_WIDTH else ""
    return dict(zip(_OFFICIAL, (cells[1 - at], cells[at], labels), strict=True))


def _cells(text: str, header: Sequence[str]) -> dict[str, str]:
    """Split a line of a table with a header; raise CellError if the number of fields differs."""
    delimiter = _delimiter(text)
    cells: list[str] = []
    with suppress(csv.Error):
        cells = next(csv.reader([text], delimiter=delimiter, strict=True), [])
    cells = cells if len(cells) == len(header) else text.split(delimiter)
    if len(cells) != len(header):
        raise CellError(f"wrong number of fields: {len(cells)}, the header has {len(header)}")
    return dict(zip(header, cells, strict=True))
