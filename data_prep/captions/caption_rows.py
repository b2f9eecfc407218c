"""Rows of a caption table: the columns that hold each part, and the rows read with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sieve.data_prep.captions.caption_text import Columns, split_named
from sieve.data_prep.captions.cell import (
    NULL_WORDS,
    CellError,
    as_text,
    captions_in,
    is_missing,
    text_in,
)

LABEL_SEPARATOR = ";"

IMAGE_NAMES = (
    "image", "image_name", "file_name", "filename", "image_path", "filepath",
    "image_file", "path", "file", "img", "img_path",
)  # fmt: skip
CAPTION_NAMES = (
    "caption", "captions", "comment", "sentence", "sentences", "text", "TEXT",
    "title", "prompt", "description", "raw",
)  # fmt: skip
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

    image: str
    captions: tuple[str, ...]
    """Several for `caption_1`, `caption_2`, …"""
    split: str | None
    labels: str | None
    other_images: tuple[str, ...] = ()
    """Further columns that may name the image, unless the user named one."""


def plain_name(name: object) -> str:
    """Return a column name in lower case, with underscores for blanks, dots and hyphens."""
    return re.sub(r"[ .-]+", "_", str(name).strip().lower())


def find_columns(names: Sequence[str], columns: Columns, path: Path) -> ColumnRoles:
    """Find the columns of a table by the given names, else by common ones, ignoring case.

    Raises
    ------
    ValueError
        If a column is missing, or several columns may hold captions.
    """
    by_plain_name: dict[str, str] = {}
    for name in names:
        by_plain_name.setdefault(plain_name(name), name)

    def find(given: str | None, common: Sequence[str]) -> str | None:
        if given is not None and given in names:
            return given
        wanted = common if given is None else [given]
        matches = (by_plain_name.get(plain_name(name)) for name in wanted)
        return next((name for name in matches if name is not None), None)

    def missing(wanted: str) -> ValueError:
        present = ", ".join(" ".join(str(name).split())[:40] for name in names[:20]) or "none"
        return ValueError(
            f"{path} has no column {wanted!r}; its columns are: {present}. Expected columns such "
            "as image,caption; name others with --image-column and --caption-column"
        )

    image = find(columns.image, IMAGE_NAMES)
    if image is None:
        raise missing(columns.image or IMAGE_NAMES[0])
    captions = _caption_columns(columns, [name for name in names if name != image], find, path)
    if not captions:
        raise missing(columns.caption or CAPTION_NAMES[0])
    split, labels = find(columns.split, ("split",)), find(columns.labels, ("labels",))
    for given, column in ((columns.split, split), (columns.labels, labels)):
        if given is not None and column is None:
            raise missing(given)
    common = [by_plain_name[name] for name in IMAGE_NAMES if name in by_plain_name]
    others = tuple(dict.fromkeys(common)) if columns.image is None else ()
    taken = {image, *captions, split, labels}
    return ColumnRoles(image, captions, split, labels, tuple(n for n in others if n not in taken))


def _caption_columns(
    columns: Columns,
    names: Sequence[str],
    find: Callable[[str | None, Sequence[str]], str | None],
    path: Path,
) -> tuple[str, ...]:
    """Return the column of captions, or several numbered ones."""
    if columns.caption is not None:
        one = find(columns.caption, ())
        return () if one is None else (one,)
    if one := find(None, CAPTION_NAMES[:2]):
        return (one,)
    numbered = [name for name in names if _NUMBERED_CAPTION.fullmatch(str(name).strip())]
    common = {plain_name(name) for name in CAPTION_NAMES}
    others = [name for name in names if plain_name(name) in common]
    if numbered and not others:
        return tuple(numbered)
    if len(others) + len(numbered) > 1:
        options = " or ".join(repr(name) for name in [*others, *numbered][:3])
        raise ValueError(
            f"{path} has several columns that may hold captions: {options}; name one with "
            "--caption-column"
        )
    return tuple(others)


def rows_of(
    line: int, value: Mapping[str, Any], roles: ColumnRoles, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Yield one row per caption, or one without a caption; report a row that cannot be read."""
    image = ""
    try:
        image = without_number(_image_in(value, roles))
        split = text_in(None if roles.split is None else value.get(roles.split))
        labels = _labels_in(None if roles.labels is None else value.get(roles.labels))
    except CellError as error:
        report(line, image, f"row cannot be read: {error}")
        return
    try:
        captions = [text for name in roles.captions for text in captions_in(value.get(name))]
    except CellError as error:
        report(line, image, f"caption cannot be read: {error}")
        return
    for caption in captions or [""]:
        yield CaptionRow(line, image, caption, "" if split.lower() in NULL_WORDS else split, labels)


def _image_in(value: Mapping[str, Any], roles: ColumnRoles) -> str:
    """Return the name of an image, from the first of its columns that holds file names.

    Raises
    ------
    CellError
        If two columns name different files.
    """
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
    if isinstance(value, str):
        value = value.split(LABEL_SEPARATOR)
    if not isinstance(value, list | tuple):
        value = [value]
    return [text for text in map(text_in, value) if text.strip().lower() not in {"", *NULL_WORDS}]


def image_column_of(names: Sequence[str], value: Mapping[str, Any]) -> str | None:
    """Return the column that names the image in a table's first row; None if there is none.

    If there are several, return the first that holds a file name: another may hold numbers.
    """
    lower = {column.strip().lower(): column for column in reversed(list(value))}
    found = [lower[name] for name in names if name in lower]
    files = [column for column in found if IMAGE_SUFFIX.search(as_text(value[column]).strip())]
    return next(iter([*files, *found]), None)


def without_number(name: str) -> str:
    """Remove the number of a caption after a file name: `a.jpg#0`."""
    found = _CAPTION_NUMBER.fullmatch(name)
    return found["name"] if found else name


def column_of(fields: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the column for the first field that is present, ignoring case; None if none is."""
    lower = {column.strip().lower(): column for column in reversed(columns)}
    return next((lower[field] for field in fields if field in lower), None)
