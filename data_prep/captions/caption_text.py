"""Text of captions: normalise it, validate it, and read it from cells of any type.

Every source reads its cells here, so that a list never becomes its Python representation and a
missing value never becomes the caption "nan".
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sieve.data_prep.records import SPLITS, Record

MAX_CAPTION_CHARACTERS = 5_000
"""Longer captions are skipped: no backbone reads them, and they suggest a broken file."""
NULL_WORDS = frozenset(("nan", "null", "none", "nil", "n/a", "na", "#n/a", "<na>", "-", "--", "—"))
"""Lower-case markers of a missing value; a cell that holds only one of them has no caption."""
CAPTION_KEYS = ("raw", "text", "caption", "captions", "sentence", "sentences")
"""Keys of a dictionary that hold captions; other keys are ignored if one of these is present."""

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
    """Return the captions that a cell holds.

    Parameters
    ----------
    value : object
        - A text is one caption. A text that is a list or a dictionary, as JSON or as Python and
          NumPy print it, is read as that list or dictionary.
        - A list, tuple or array holds several captions: texts or dictionaries.
        - A dictionary holds captions under `raw`, `text`, `caption` or `sentences` (Karpathy).
        - None, NaN, an empty text and the words in `NULL_WORDS` are no caption.

    Returns
    -------
    list of str
        Each on one line without control characters, in order; empty if there is none.

    Raises
    ------
    CellError
        If the cell holds anything else, such as a number, or a dictionary of other keys.

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
        raise CellError(
            f"a dictionary without raw, text, caption or sentences; its keys are {keys}"
        )
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
