"""Captions as text: their normalisation and validation, names of splits, names of columns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sieve.data_prep.records import SPLITS

MAX_CAPTION_CHARACTERS = 5_000
"""Longer captions are skipped: no backbone reads them, and they suggest a broken file."""

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
class ImageDescription:
    """The captions, labels and split of one image."""

    captions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    split: str = ""
    """Empty if none is given."""


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
