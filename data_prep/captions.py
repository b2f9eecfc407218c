"""Caption files: CSV with a row a caption, as people keep them beside their images."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

from data_prep.records import SPLITS
from data_prep.skipped import Skipped

MAX_CAPTION_CHARACTERS = 5_000
"""Longer captions are left out: no backbone reads them, and they hint at a broken file."""
MAX_NAME_CHARACTERS = 1_000
LABEL_SEPARATOR = ";"

_SPLIT_ALIASES = {"val": "select", "valid": "select", "validation": "select", "dev": "select"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """Which columns of a caption file say what."""

    image: str = "image"
    caption: str = "caption"
    split: str | None = None
    """By default `split`, where the file has such a column."""
    labels: str | None = None
    """By default `labels`, where the file has such a column."""


@dataclass
class Described:
    """What a caption file says of one image."""

    captions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    split: str = ""
    """Empty where the file does not say."""

    def add(self, other: Described) -> None:
        """Take in what is said of the same image under another name."""
        self.captions += [text for text in other.captions if text not in self.captions]
        self.labels += [label for label in other.labels if label not in self.labels]
        self.split = self.split or other.split


class CaptionFile(NamedTuple):
    """A caption file, read."""

    images: dict[str, Described]
    """By the image's name as it stands in the file, in the file's order."""
    skipped: list[Skipped]
    """Rows that were left out."""


def tidy(text: str) -> str:
    """One line without control characters; all else stays as it was written."""
    return " ".join(_CONTROL.sub(" ", text).split())


def read_captions(path: Path, columns: Columns | None = None) -> CaptionFile:
    """Read a caption file.

    Several rows may describe one image; a caption that repeats is kept once. Labels are separated
    by semicolons.

    Parameters
    ----------
    path : Path
        UTF-8 with or without a byte-order mark; the first row names the columns.
    columns : Columns, optional

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not UTF-8, lacks a column, or has an unknown split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no caption file {path}; check --captions")
    skipped: list[Skipped] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = _rows(stream, path.name, skipped)
            _, header = next(rows, ("", []))
            table = _Table(_places(header, columns or Columns(), path), skipped)
            for where, row in rows:
                table.add(where, row)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    return CaptionFile(table.images, skipped)


def _rows(stream: TextIO, name: str, skipped: list[Skipped]) -> Iterator[tuple[str, list[str]]]:
    """All rows with their place; what is no row at all is left out by name."""
    reader = csv.reader(stream)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # most often an unclosed quote that swallows the file
            skipped.append(Skipped(f"{name}:{reader.line_num}", "", f"not a CSV row: {error}"))
            continue
        if row:
            yield f"{name}:{reader.line_num}", row


class _Places(NamedTuple):
    """Index of each column in a row; None where there is no such column."""

    image: int
    caption: int
    split: int | None
    labels: int | None


def _places(header: list[str], columns: Columns, path: Path) -> _Places:
    names = [name.strip() for name in header]
    required = [columns.image, columns.caption, columns.split, columns.labels]
    missing = [name for name in required if name is not None and name not in names]
    if missing:
        found = ", ".join(tidy(name)[:40] for name in names[:20]) or "none"
        raise ValueError(
            f"{path} has no column {missing[0]!r}; its columns are: {found}. Expected a first row "
            f"such as {columns.image},{columns.caption}; name others with --image-column and "
            "--caption-column"
        )

    def optional(name: str) -> int | None:
        return names.index(name) if name in names else None

    return _Places(
        names.index(columns.image),
        names.index(columns.caption),
        optional(columns.split or "split"),
        optional(columns.labels or "labels"),
    )


class _Table:
    """Rows put together by image."""

    def __init__(self, places: _Places, skipped: list[Skipped]) -> None:
        self.images: dict[str, Described] = {}
        self._places = places
        self._skipped = skipped

    def add(self, where: str, row: list[str]) -> None:
        """Take in one row."""
        wanted = max(self._places.image, self._places.caption) + 1
        name = row[self._places.image].strip() if len(row) > self._places.image else ""
        if len(row) < wanted:
            self._skip(where, name, f"too few fields: {len(row)}, expected {wanted}")
        elif not name:
            self._skip(where, name, "no image name")
        elif len(name) > MAX_NAME_CHARACTERS:
            self._skip(where, name, "huge image name")
        else:
            image = self.images.setdefault(name, Described())
            self._add_split(where, name, image, self._cell(row, self._places.split))
            for label in self._cell(row, self._places.labels).split(LABEL_SEPARATOR):
                if tidy(label) and tidy(label) not in image.labels:
                    image.labels.append(tidy(label))
            self._add_caption(where, name, image, tidy(row[self._places.caption]))

    def _add_caption(self, where: str, name: str, image: Described, caption: str) -> None:
        if not caption:
            self._skip(where, name, "empty caption")
        elif len(caption) > MAX_CAPTION_CHARACTERS:
            size = f"{len(caption):,} characters, over {MAX_CAPTION_CHARACTERS:,}"
            self._skip(where, name, f"huge caption: {size}")
        elif caption in image.captions:
            self._skip(where, name, "duplicate caption")
        else:
            image.captions.append(caption)

    def _add_split(self, where: str, name: str, image: Described, cell: str) -> None:
        said = cell.strip().lower()
        split = _SPLIT_ALIASES.get(said, said)
        if split and split not in SPLITS:
            raise ValueError(
                f"{where} has split {tidy(said)[:40]!r}; expected {', '.join(SPLITS)} (or val, "
                "dev), or nothing to have it drawn"
            )
        if image.split and split and split != image.split:
            self._skip(where, name, f"split {split} contradicts {image.split} before, which counts")
        image.split = image.split or split

    def _skip(self, where: str, name: str, reason: str) -> None:
        self._skipped.append(Skipped(where, tidy(name)[:200], reason))

    @staticmethod
    def _cell(row: list[str], place: int | None) -> str:
        return row[place] if place is not None and place < len(row) else ""
