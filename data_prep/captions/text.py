"""Captions as text: tidied, checked, and the plain text files that hold them beside images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sieve.data_prep.records import SPLITS
from sieve.data_prep.skipped import Skipped

MAX_CAPTION_CHARACTERS = 5_000
"""Longer captions are left out: no backbone reads them, and they hint at a broken file."""
MAX_SIDE_BYTES = 1 << 20
"""Larger text files beside images are no captions."""

_SPLIT_ALIASES = {
    "val": "select", "valid": "select", "validation": "select", "dev": "select",
    "restval": "train", "training": "train",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """Which columns of a caption file say what."""

    image: str | None = None
    """By default `image`, `image_name`, `file_name`, `filename`, `image_path` or `filepath`."""
    caption: str | None = None
    """By default `caption`, `captions`, `comment`, `sentence` or `text`."""
    split: str | None = None
    """By default `split`, where the file has such a column."""
    labels: str | None = None
    """By default `labels`, where the file has such a column."""


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
    if not caption:
        return "empty caption"
    if len(caption) > MAX_CAPTION_CHARACTERS:
        return f"huge caption: {len(caption):,} characters, over {MAX_CAPTION_CHARACTERS:,}"
    return ""


def split_named(said: str) -> str | None:
    """Sieve's word for a split, such as select for val; None where it means none."""
    said = said.strip().lower()
    split = _SPLIT_ALIASES.get(said, said)
    return split if split in SPLITS else None


class SideCaptions(NamedTuple):
    """Captions of a text file beside an image."""

    captions: list[str]
    skipped: list[Skipped]


def read_side_file(path: Path, key: str) -> SideCaptions:
    """Read the text file beside an image: a caption a line.

    Parameters
    ----------
    path : Path
    key : str
        How the file is called where a line of it is left out.
    """
    try:
        size = path.stat().st_size
        if size > MAX_SIDE_BYTES:
            reason = f"huge caption file: {size:,} bytes, over {MAX_SIDE_BYTES:,}"
            return SideCaptions([], [Skipped(key, str(path), reason)])
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(f"caption file cannot be read: {error}".split())
        return SideCaptions([], [Skipped(key, str(path), reason)])
    captions: dict[str, None] = {}
    skipped: list[Skipped] = []
    for number, caption in enumerate(map(tidy, lines), 1):
        fault = "duplicate caption" if caption in captions else caption and caption_fault(caption)
        if fault:
            skipped.append(Skipped(f"{key}:{number}", str(path), fault))
        elif caption:
            captions[caption] = None
    return SideCaptions(list(captions), skipped)
