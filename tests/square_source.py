"""A source of coloured squares, and readers of the prepared collection."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from sieve.data_prep.records import Record
from sieve.model.collection import Collection


class SquareSource:
    """A source of plain squares; the records in `bad` fail with the given message."""

    name = "drawn"
    licence = "CC0"

    def __init__(self, count: int, bad: dict[int, str] | None = None, size: int = 8) -> None:
        self.count = count
        self.bad = bad or {}
        self.size = size

    def __str__(self) -> str:
        return f"{self.count} squares"

    def records(self) -> Iterator[Record]:
        for index in range(self.count):
            captions = tuple(f"square {index} seen {n}" for n in range(index % 3))
            yield Record(f"s{index}", f"nowhere/{index}", captions, (f"l{index % 2}",), "select")

    def open_image(self, record: Record, size: int) -> Image.Image:  # noqa: ARG002
        index = int(record.key[1:])
        if index in self.bad:
            raise ValueError(self.bad[index])
        return Image.new("RGB", (self.size, self.size), (index % 256, 40, 90))


def skipped_rows(collection: Collection) -> list[list[str]]:
    with (collection.path / "skipped.csv").open(newline="") as stream:
        return list(csv.reader(stream))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
