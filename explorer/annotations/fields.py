"""What can be kept of one dimension: short, clean, plain text, however people write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sieve.data_prep.captions import tidy
from sieve.explorer.json_validation import short_repr

MAX_NAME = 80
MAX_NOTE = 10_000
MAX_TAG = 40
MAX_TAGS = 20
FIELDS = ("name", "note", "tags", "starred")
"""Of each the value is kept as text; empty where nothing was said."""

# They turn round the text around them, which a person's name must not do.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_STARRED = {"": "", "0": "", "false": "", "no": "", "1": "1", "true": "1", "yes": "1"}


@dataclass(frozen=True)
class Field:
    """One field of one dimension as it is kept."""

    value: str = ""
    version: int = 0
    """Grows with every change; 0 where nothing was ever said."""
    changed: str = ""
    """When, in UTC as ISO 8601."""


Annotation = Mapping[str, Field]
"""The fields of a dimension of which something was ever said, by name."""


def read_field(field: str, value: Any) -> str:
    """Read what a person gave for a field as the text that is kept.

    Parameters
    ----------
    field : str
        One of `FIELDS`.
    value : object
        Text; for starred also true or false, for tags also a list.

    Raises
    ------
    ValueError
        In one line, if it is something else or too long.
    """
    if field not in FIELDS:
        raise ValueError(f"there is no field {short_repr(field)}; there are: {', '.join(FIELDS)}")
    if field == "starred" and isinstance(value, bool):
        return "1" if value else ""
    if field == "tags" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{field} must be text; got {short_repr(value)}")
    return _READERS[field](value)


def told_time(when: datetime) -> str:
    """Write a time in UTC as it is kept: to the millisecond, so that times compare as text."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean_line(text: str) -> str:
    """Make one line of a text, without characters that control; nothing where none can be seen."""
    line = tidy(_TURNING.sub("", text))
    return line if any(sign.isprintable() and not sign.isspace() for sign in line) else ""


def check_length(what: str, text: str, most: int) -> str:
    """Return a text that is not too long; ValueError in one line."""
    if len(text) > most:
        raise ValueError(f"{what} has {len(text):,} characters; at most {most:,} are kept")
    return text


def split_tags(value: str) -> list[str]:
    """Tell the tags of a kept text."""
    return value.split(", ") if value else []


def _name(text: str) -> str:
    return check_length("a name", clean_line(text), MAX_NAME)


def _note(text: str) -> str:
    lines = [_tidy_note_line(line) for line in re.split("\r\n|\r|\n", _TURNING.sub("", text))]
    return check_length("a note", "\n".join(lines).strip("\n"), MAX_NOTE)


def _tidy_note_line(line: str) -> str:
    """Tidy a line of a note; spaces before it stay, as lists are made of them."""
    bare = line.replace("\t", "    ")
    indent = len(bare) - len(bare.lstrip(" "))
    tidied = tidy(bare)
    return " " * min(indent, 16) + tidied if tidied else ""


def _tags(text: str) -> str:
    found: dict[str, str] = {}
    for part in re.split("[,;\n]", text):
        tag = check_length("a tag", clean_line(part), MAX_TAG)
        if tag:
            found.setdefault(tag.casefold(), tag)
    if len(found) > MAX_TAGS:
        raise ValueError(f"a dimension has at most {MAX_TAGS} tags; got {len(found):,}")
    return ", ".join(found[key] for key in sorted(found))


def _starred(text: str) -> str:
    known = _STARRED.get(text.strip().lower())
    if known is None:
        raise ValueError(f"starred is true or false; got {short_repr(text)}")
    return known


_READERS: dict[str, Callable[[str], str]] = {
    "name": _name,
    "note": _note,
    "tags": _tags,
    "starred": _starred,
}
