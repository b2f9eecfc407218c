"""Text of captions: normalise it, validate it, and read it from the cells and columns of tables.

Every source reads its cells here, so that a list never becomes its Python representation and a
missing value never becomes the caption "nan".
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sieve.data_prep.records import SPLITS, Record

MAX_CAPTION_CHARACTERS = 5_000
"""Longer captions are skipped: no backbone reads them, and they suggest a broken file."""
NULL_WORDS = frozenset(("nan", "null", "none", "nil", "n/a", "na", "#n/a", "<na>", "-", "--", "—"))
"""Lower-case markers of a missing value; a cell that holds only one of them has no caption."""
CAPTION_KEYS = ("raw", "text", "caption", "captions", "sentence", "sentences")
"""Keys of a dictionary that hold captions; other keys are ignored if one of these is present."""

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

_MAX_DEPTH, _MAX_LIST_TEXT = 4, 1_000_000
_SPLIT_ALIASES = {
    "val": "select", "valid": "select", "validation": "select", "dev": "select",
    "restval": "train", "training": "train",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ITEM = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|None\b|nan\b)"""
# As Python and pandas write a list of strings; NumPy writes no commas.
_STRINGS = re.compile(rf"\[\s*{_ITEM}(?:(?:\s*,\s*|\s+){_ITEM})*\s*(?:,\s*)?\]", re.S)
_STRING = re.compile(_ITEM, re.S)
_STARTS_LIKE_DATA = re.compile(r"""[\[{]\s*["'{]""")


class CellError(ValueError):
    """A cell cannot be read; the message describes its content in a few words."""


@dataclass(frozen=True)
class Columns:
    """Names of a caption file's columns, and its encoding."""

    image: str | None = None
    """By default `image`, `file_name`, `filename`, `filepath` or another usual name."""
    caption: str | None = None
    """By default `caption`, `captions`, `comment`, `sentence`, `text`, `title` or `prompt`."""
    split: str | None = None
    """By default `split`, if the file has such a column."""
    labels: str | None = None
    """By default `labels`, if the file has such a column."""
    encoding: str | None = None
    """Encoding of a text table; by default UTF-8, or as the byte-order mark states."""


@dataclass
class ImageDescription:
    """The captions, labels and split of one image."""

    captions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    split: str = ""
    """Empty if none is given."""

    def record(self, key: str, image: str, split: str = "") -> Record:
        """Return the record of the image; `split` is used if none is given."""
        return Record(key, image, tuple(self.captions), tuple(self.labels), self.split or split)


def tidy(text: str) -> str:
    """Return a text on one line without control characters; all else is unchanged."""
    return " ".join(_CONTROL.sub(" ", text).split())


def caption_fault(caption: str) -> str:
    """Return the reason to skip a tidy caption; empty if it is usable."""
    if not any(map(str.isprintable, caption.replace(" ", ""))):
        return "empty caption"  # only zero-width characters
    if len(caption) > MAX_CAPTION_CHARACTERS:
        return f"huge caption: {len(caption):,} characters, over {MAX_CAPTION_CHARACTERS:,}"
    return ""


def split_named(name: str) -> str | None:
    """Return Sieve's name of a split, such as select for val; None if it names no split."""
    name = name.strip().lower()
    split = _SPLIT_ALIASES.get(name, name)
    return split if split in SPLITS else None


def captions_in(value: Any) -> list[str]:
    """Return the captions that a cell holds, in order, each on one line without control characters.

    - A text is one caption. A text that is a list or a dictionary, as JSON or as Python and NumPy
      print it, is read as that list or dictionary.
    - A list, tuple or array holds several captions: texts or dictionaries.
    - A dictionary holds captions under `raw`, `text`, `caption` or `sentences` (Karpathy).
    - None, NaN, an empty text and the words in `NULL_WORDS` are no caption.
    - Anything else, such as a number or a dictionary of other keys, raises CellError.

    Examples
    --------
    >>> captions_in([{"raw": "a dog", "tokens": ["a", "dog"]}, {"raw": "a hound"}])
    ['a dog', 'a hound']
    >>> captions_in("NULL")
    []
    """
    if isinstance(value, str):
        value = _parse_structure(value)
    return list(_captions(value, depth=0))


def text_in(value: Any) -> str:
    """Return a cell that holds one text; empty if it is missing. Raise CellError for a list."""
    value = _plain(value)
    if is_missing(value):
        return ""
    if isinstance(value, str | bool | int | float):
        return str(value)
    raise CellError(f"expected a text, found {_kind(value)}")


def read_split(value: Any, place: str) -> str:
    """Read a cell as the name of a split; empty if it is missing.

    Raise ValueError if it names no known split; `place` states its file and row.
    """
    name = text_in(value).strip()
    split = split_named(name)
    if name and split is None:
        raise ValueError(
            f"{place} has split {tidy(name)[:40]!r}; expected {', '.join(SPLITS)} (or val, "
            "validation, dev, restval), or an empty value to split by image hash"
        )
    return split or ""


def as_text(value: Any) -> str:
    """Read a cell of a typed table as text; empty for null and NaN."""
    return "" if value is None or value != value else str(value)


def is_missing(value: Any) -> bool:
    """Return whether a cell is None, NaN or an empty text; ignore `NULL_WORDS`."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def _captions(value: Any, depth: int) -> Iterator[str]:
    value = _plain(value)
    if is_missing(value) or value == {}:
        return
    if isinstance(value, str):
        caption = tidy(value)
        if caption and caption.lower() not in NULL_WORDS:
            yield caption
    elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
        yield from _captions(_caption_field(value), depth + 1)
    elif isinstance(value, Sequence) and depth < _MAX_DEPTH:
        for part in map(_plain, value):
            if isinstance(part, list | tuple):
                raise CellError("a list within a list; expected a list of texts")
            yield from _captions(part, depth + 1)
    else:
        raise CellError(f"expected a caption, found {_kind(value)}")


def _caption_field(value: Mapping[Any, Any]) -> Any:
    """Return the field of a dictionary that holds its captions."""
    named = {key: part for key, part in value.items() if str(key).lower() in CAPTION_KEYS}
    if not named:
        keys = ", ".join(str(key)[:20] for key in list(value)[:5]) or "none"
        expected = "without raw, text, caption or sentences"
        raise CellError(f"a dictionary {expected}; its keys are {keys}")
    present = {key: part for key, part in named.items() if not is_missing(_plain(part))}
    if len({repr(part) for part in present.values()}) > 1:
        keys = " and ".join(map(str, list(present)[:2]))
        raise CellError(f"a dictionary with different captions under {keys}")
    return next(iter(present.values()), None)


def _parse_structure(text: str) -> Any:
    """Parse a text that is a printed list or dictionary; return any other text unchanged."""
    body = text.strip()
    like_data = _STARTS_LIKE_DATA.match(body)
    if not (like_data or body[:1] + body[-1:] in ("[]", "{}")):
        return text
    for read in (json.loads, _parse_printed) if len(body) <= _MAX_LIST_TEXT else ():
        try:
            parsed = read(body)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(parsed, list | tuple | dict):
            return parsed
    if like_data:
        raise CellError("a text that begins like a list but is not one")
    return text


def _parse_printed(body: str) -> Any:
    """Parse a list or dictionary as Python or NumPy prints it."""
    if _STRINGS.fullmatch(body):  # read one by one: Python joins strings without a comma
        parts = _STRING.findall(body)
        return [ast.literal_eval(part) if part[0] in "\"'" else None for part in parts]
    if body[0] == "[" and _STRING.match(body[1:].lstrip()):
        raise ValueError("not a list of strings")
    return ast.literal_eval(body)


def _plain(value: Any) -> Any:
    """Convert NumPy's arrays and scalars, and bytes of UTF-8, to Python's own types."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise CellError("bytes that are not UTF-8 text") from None
    return value.tolist() if hasattr(value, "tolist") else value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return f"true or false ({value})"
    if isinstance(value, int | float):
        return f"the number {value}"
    names = {"dict": "a dictionary", "list": "a list", "tuple": "a list"}
    return names.get(type(value).__name__, type(value).__name__)


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
    line: int, value: Mapping[Any, Any], roles: ColumnRoles, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Yield one row per caption, or one without a caption; report a row that cannot be read."""
    image, part = "", "row"
    try:
        image = without_number(_image_in(value, roles))
        split, labels = text_in(value.get(roles.split)), _labels_in(value.get(roles.labels))
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
