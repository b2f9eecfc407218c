"""What every source of images yields: records, and a way to open their images.

A source is small and picklable, so that decoder processes can hold a copy. `prepare` turns its
records into a collection; nothing else in the house knows a dataset's file format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

SPLITS = ("train", "select", "test")
DRAWN = ""
"""Split of a record whose source names none: it is drawn by the picture, see `data_prep.splits`."""


@dataclass(frozen=True)
class Record:
    """One image, with what is known about it before any model sees it."""

    key: str
    """Stable key in the source, of which the id is made: a relative path or the source's own id."""
    image: str
    """Where the original is: a path, or `scene:SEED:INDEX` for a scene that is drawn anew."""
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in (*SPLITS, DRAWN):
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the key."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]


class Source(Protocol):
    """A collection's origin. Instances are picklable and hold no open files."""

    name: str
    licence: str

    def records(self) -> Iterator[Record]:
        """All records, in an order that depends on nothing but the source."""
        ...

    def open_image(self, record: Record, size: int) -> Image.Image:
        """Open the record's image in RGB, upright.

        Parameters
        ----------
        record : Record
        size : int
            Wanted length of the long side in pixels; a hint for sources that draw.

        Raises
        ------
        ValueError
            With a one-line reason where the image cannot be used.
        """
        ...


def roots_of(source: Source) -> tuple[str, ...]:
    """Return the folder that a source's files are named relative to, if its files lie in one."""
    root: Path | None = getattr(source, "root", None)
    return () if root is None else (str(root),)
