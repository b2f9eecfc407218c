"""What was left out of a collection, and why: nothing disappears without a line in a file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

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
        """All of them, in the order of the file."""
        ...


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> int:
    """Write `skipped.csv`; returns how many rows it has."""
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        rows = list(skipped)
        writer.writerows(rows)
    return len(rows)


def summary(skipped: Iterable[Skipped]) -> str:
    """Reasons with their count and an example each, the most frequent first, in one line."""
    examples: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for entry in skipped:
        kind = entry.reason.split(":")[0]
        counts[kind] += 1
        examples.setdefault(kind, entry.key)
    parts = [f"{count} × {kind} ({examples[kind]})" for kind, count in counts.most_common(4)]
    return ", ".join(parts)
