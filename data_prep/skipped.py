"""What was left out of a collection, and why: nothing disappears without a line in a file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from sieve.data_prep.cells import read_cell, safe_cell

COLUMNS = ("key", "image", "reason")


class Skipped(NamedTuple):
    """One record, or one row of a caption file, that is not in the collection."""

    key: str
    """The record's key, or the place of a row: `captions.csv:17`."""
    image: str
    reason: str


@runtime_checkable
class NamesSkippedRows(Protocol):
    """A source that leaves out rows which are no record of their own, such as empty captions."""

    def skipped_rows(self) -> list[Skipped]:
        """All of them, in the order of the file; asked for after the records."""
        ...


class Tally:
    """Counts what is left out by kind of reason, with an example of each.

    Attributes
    ----------
    total : int
    """

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        self.total = 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        for entry in entries:
            self.add(entry.key, entry.reason)

    def add(self, key: str, reason: str) -> None:
        """Count one more."""
        kind = reason.split(":")[0]
        self.total += 1
        self._counts[kind] += 1
        self._examples.setdefault(kind, key)

    def __str__(self) -> str:
        """Name the most frequent reasons, each with its count and an example, in one line."""
        most = self._counts.most_common(4)
        return ", ".join(f"{count} × {kind} ({self._examples[kind]})" for kind, count in most)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> int:
    """Write `skipped.csv`, every cell safe; returns how many rows it has."""
    count = 0
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in skipped:
            writer.writerow(map(safe_cell, entry))
            count += 1
    return count


def read_skipped(path: Path) -> Iterable[Skipped]:
    """Read `skipped.csv` row by row; ValueError where it is something else."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        next(rows, None)
        for row in rows:
            if len(row) != len(COLUMNS):
                raise ValueError(
                    f"{path} is damaged: line {rows.line_num} has {len(row)} columns, not "
                    f"{len(COLUMNS)}; prepare the collection again"
                )
            yield Skipped(*map(read_cell, row))
