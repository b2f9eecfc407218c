"""Captions as text: tidied, checked, and the plain text files that hold them beside images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sieve.data_prep.records import SPLITS

MAX_CAPTION_CHARACTERS = 5_000
"""Longer captions are left out: no backbone reads them, and they hint at a broken file."""

_SPLIT_ALIASES = {
    "val": "select", "valid": "select", "validation": "select", "dev": "select",
    "restval": "train", "training": "train",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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
class Described:
    """What is said of one image."""

    captions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    split: str = ""
    """Empty where nothing is said."""


def tidy(text: str) -> str:
    """One line without control characters; all else stays as it was written."""
    return " ".join(_CONTROL.sub(" ", text).split())


def caption_fault(caption: str) -> str:
    """Why a tidy caption is left out, or nothing."""
    if not any(map(str.isprintable, caption.replace(" ", ""))):
        return "empty caption"  # Zero-width characters alone are empty too
    if len(caption) > MAX_CAPTION_CHARACTERS:
        return f"huge caption: {len(caption):,} characters, over {MAX_CAPTION_CHARACTERS:,}"
    return ""


def split_named(said: str) -> str | None:
    """Sieve's word for a split, such as select for val; None where it means none."""
    said = said.strip().lower()
    split = _SPLIT_ALIASES.get(said, said)
    return split if split in SPLITS else None
