"""Fields of an annotation, and their validation and normalisation to plain text."""

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
"""Each value is stored as text; an empty text is no value."""

# Bidirectional control characters would reverse the text around a name.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_STARRED = {"": "", "0": "", "false": "", "no": "", "1": "1", "true": "1", "yes": "1"}


@dataclass(frozen=True)
class Field:
    """One stored field of one dimension."""

    value: str = ""
    version: int = 0
    """Incremented by every change; 0 if the field was never written."""
    changed: str = ""
    """Time of the last change, in UTC as ISO 8601."""


Annotation = Mapping[str, Field]
"""The fields of a dimension that were ever written, by name."""


def read_field(field: str, value: Any) -> str:
    """Validate a value of a field and return the text to store.

    Parameters
    ----------
    field : str
        One of `FIELDS`.
    value : object
        A string; for `starred` also a bool, for `tags` also a list of strings.

    Raises
    ------
    ValueError
        If the field is unknown, or the value has the wrong type or is too long.
    """
    if field not in FIELDS:
        raise ValueError(f"unknown field {short_repr(field)}; fields are: {', '.join(FIELDS)}")
    if field == "starred" and isinstance(value, bool):
        return "1" if value else ""
    if field == "tags" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{field} must be text; got {short_repr(value)}")
    return _READERS[field](value)


def format_time(when: datetime) -> str:
    """Return a UTC time as ISO 8601 text in milliseconds; such texts sort by time."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean_line(text: str) -> str:
    """Return a text as one line without control characters; empty if no character is visible."""
    line = tidy(_BIDI_CONTROLS.sub("", text))
    return line if any(sign.isprintable() and not sign.isspace() for sign in line) else ""


def check_length(what: str, text: str, most: int) -> str:
    """Return a text unchanged; raise a ValueError if it is too long."""
    if len(text) > most:
        raise ValueError(f"{what} has {len(text):,} characters; at most {most:,} are allowed")
    return text


def split_tags(value: str) -> list[str]:
    """Return the tags of a stored value."""
    return value.split(", ") if value else []


def _name(text: str) -> str:
    return check_length("a name", clean_line(text), MAX_NAME)


def _note(text: str) -> str:
    lines = [_tidy_note_line(line) for line in re.split("\r\n|\r|\n", _BIDI_CONTROLS.sub("", text))]
    return check_length("a note", "\n".join(lines).strip("\n"), MAX_NOTE)


def _tidy_note_line(line: str) -> str:
    """Tidy a line of a note, but keep its indentation, which lists use."""
    bare = line.replace("\t", "    ")
    indent = len(bare) - len(bare.lstrip(" "))
    tidied = tidy(bare)
    return " " * min(indent, 16) + tidied if tidied else ""


def _tags(text: str) -> str:
    tags: dict[str, str] = {}
    for part in re.split("[,;\n]", text):
        tag = check_length("a tag", clean_line(part), MAX_TAG)
        if tag:
            tags.setdefault(tag.casefold(), tag)
    if len(tags) > MAX_TAGS:
        raise ValueError(f"a dimension has at most {MAX_TAGS} tags; got {len(tags):,}")
    return ", ".join(tags[key] for key in sorted(tags))


def _starred(text: str) -> str:
    known = _STARRED.get(text.strip().lower())
    if known is None:
        raise ValueError(f"starred must be true or false; got {short_repr(text)}")
    return known


_READERS: dict[str, Callable[[str], str]] = {
    "name": _name,
    "note": _note,
    "tags": _tags,
    "starred": _starred,
}
