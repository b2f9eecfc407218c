"""Rows of a caption table: the columns that hold each part, and the rows read with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sieve.data_prep.captions.caption_text import (
    NULL_WORDS,
    CellError,
    Columns,
    as_text,
    captions_in,
    is_missing,
    split_named,
    text_in,
)

LABEL_SEPARATOR = ";"

IMAGE_NAMES = (
    "image", "image_name", "file_name", "filename", "image_path", "filepath",
    "image_file", "path", "file", "img", "img_path",
)  # fmt: skip
CAPTION_NAMES = (
    "caption", "captions", "txt", "text", "title", "prompt", "sentences", "sentence", "raw",
    "description", "comment",
)  # fmt: skip
URL_NAMES = ("url", "image_url", "img_url", "image_link", "link")
"""Usual names of columns and JSON fields, in order of priority, as `plain_name` writes them."""
IMAGE_SUFFIX = re.compile(r"(?i)\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf]|jp2|ppm)$")

_NUMBERED_CAPTION = re.compile(r"(?i)(caption|comment|sentence|text)s?[ _-]?\d{1,2}$")
# Flickr8k, Flickr30k and Multi30k write a number after the file name for each of its captions.
_CAPTION_NUMBER = re.compile(r"(?i)(?P<name>.+\.[a-z0-9]{1,5})\s*#(?:[a-z]{1,8}#)?\d{1,3}#?$", re.S)

ReportMalformed = Callable[[int, str, str], None]
"""Receives a malformed row: its line, its image and the reason."""


class CaptionRow(NamedTuple):
    """One caption of one image, or an image without a caption."""

    line: int
    """Line of a text file, counted from 1; number of a row, an entry or an annotation elsewhere."""
    image: str
    caption: str
    split: str = ""
    labels: Sequence[str] = ()

    @classmethod
    def lenient(cls, line: int, image: str, caption: str, value: Mapping[str, Any]) -> CaptionRow:
        """Read labels and split from the columns of these names; ignore an unknown split."""
        labels = value.get("labels")
        names = labels if isinstance(labels, list) else as_text(labels).split(LABEL_SEPARATOR)
        split = as_text(value.get("split"))
        split = split if split_named(split) else ""
        return cls(line, image, caption, split, list(map(as_text, names)))


class ColumnRoles(NamedTuple):
    """The column that holds each part of a row; None if there is none."""

    image: str = "image"
    captions: tuple[str, ...] = ("caption",)
    """Several for `caption_1`, `caption_2`, …"""
    split: str | None = None
    labels: str | None = None
    other_images: tuple[str, ...] = ()
    """Further columns that may name the image, unless the user named one."""


def plain_name(name: object) -> str:
    """Return a column name in lower case, with underscores for blanks, dots and hyphens."""
    return re.sub(r"[ .-]+", "_", str(name).strip().lower())


def column_of(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the column of the first name that is present, in any spelling; None if none is."""
    return next(iter(columns_of_names(names, columns)), None)


def columns_of_names(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the columns of all names that are present, in the order of the names."""
    by_name = {plain_name(column): column for column in reversed(columns)}
    return [by_name[name] for name in map(plain_name, names) if name in by_name]


def image_column_of(names: Sequence[str], value: Mapping[str, Any]) -> str | None:
    """Return the column that names the image in the first row, with a file name if several do."""
    found = columns_of_names(names, list(value))
    files = [column for column in found if IMAGE_SUFFIX.search(as_text(value[column]).strip())]
    return next(iter([*files, *found]), None)


def find_columns(names: Sequence[str], columns: Columns, path: Path) -> ColumnRoles:
    """Find columns by the given names, else by common ones; raise ValueError if that fails."""

    def find(given: str | None, common: Sequence[str], among: Sequence[str] = names) -> str:
        found = given if given in among else column_of([given] if given else common, among)
        if found is not None:
            return found
        present = ", ".join(" ".join(str(name).split())[:40] for name in names[:20]) or "none"
        raise ValueError(
            f"{path} has no column {given or common[0]!r}; its columns are: {present}. Expected "
            "columns such as image,caption; name others with --image-column and --caption-column"
        )

    image = find(columns.image, IMAGE_NAMES)
    rest = [name for name in names if name != image]
    captions = () if columns.caption else _common_captions(rest, path)
    captions = captions or (find(columns.caption, CAPTION_NAMES, rest),)
    split = find(columns.split, ()) if columns.split else column_of(["split"], names)
    labels = find(columns.labels, ()) if columns.labels else column_of(["labels"], names)
    taken = {image, *captions, split, labels}
    others = columns_of_names(IMAGE_NAMES, names) if columns.image is None else []
    other_images = tuple(name for name in others if name not in taken)
    return ColumnRoles(image, captions, split, labels, other_images)


def _common_captions(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the column of captions, or several numbered ones; empty if there is none."""
    if one := column_of(CAPTION_NAMES[:2], names):
        return (one,)
    numbered = [name for name in names if _NUMBERED_CAPTION.fullmatch(str(name).strip())]
    others = [name for name in names if plain_name(name) in CAPTION_NAMES]
    if others and len(others) + len(numbered) > 1:
        options = " or ".join(repr(name) for name in [*others, *numbered][:3])
        raise ValueError(
            f"{path} has several columns that may hold captions: {options}; name one with "
            "--caption-column"
        )
    return tuple(others or numbered)


def rows_of(
    line: int, value: Mapping[str, Any], roles: ColumnRoles, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Yield one row per caption, or one without a caption; report a row that cannot be read."""
    image, part = "", "row"
    try:
        image = without_number(_image_in(value, roles))
        split = text_in(None if roles.split is None else value.get(roles.split))
        labels = _labels_in(None if roles.labels is None else value.get(roles.labels))
        part = "caption"
        captions = [text for name in roles.captions for text in captions_in(value.get(name))]
    except CellError as error:
        report(line, image, f"{part} cannot be read: {error}")
        return
    for caption in captions or [""]:
        yield CaptionRow(line, image, caption, "" if split.lower() in NULL_WORDS else split, labels)


def _image_in(value: Mapping[str, Any], roles: ColumnRoles) -> str:
    """Return the name of an image, from the first of its columns that holds file names."""
    first = _name_in(value.get(roles.image))
    others = {column: _name_in(value.get(column)) for column in roles.other_images}
    files = {column: name for column, name in others.items() if IMAGE_SUFFIX.search(name.strip())}
    if not IMAGE_SUFFIX.search(without_number(first.strip())):  # it may be a number
        return next(iter(files.values()), first)
    for column, name in files.items():
        if _base_name(name) != _base_name(first):
            raise CellError(
                f"ambiguous image name, {first[:100]} in {roles.image} and {name[:100]} in "
                f"{column}; name the column with --image-column"
            )
    return first


def _base_name(name: str) -> str:
    return without_number(name.strip()).replace("\\", "/").rpartition("/")[2].casefold()


def _name_in(value: Any) -> str:
    """Return a text, or the path in Hugging Face's `{"bytes", "path"}`, as an image name."""
    if isinstance(value, dict):
        value = value.get("path")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    name = text_in(value)
    return name if name.strip() else ""


def _labels_in(value: Any) -> list[str]:
    if is_missing(value):
        return []
    if not isinstance(value, list):
        value = value.split(LABEL_SEPARATOR) if isinstance(value, str) else [value]
    return [text for text in map(text_in, value) if text.strip().lower() not in {"", *NULL_WORDS}]


def without_number(name: str) -> str:
    """Remove the number of a caption after a file name: `a.jpg#0`."""
    found = _CAPTION_NUMBER.fullmatch(name)
    return found["name"] if found else name
