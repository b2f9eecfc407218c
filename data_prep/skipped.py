"""Records, rows and files that are not in a collection, with the reason for each."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from sieve.data_prep.cells import read_cell, safe_cell

COLUMNS = ("key", "image", "reason")
_SEVERAL = re.compile(r"[^:]+: (\d[\d,]{0,14}) of them(?:;.*)?")


MAX_BAD_SHARE = 0.05
"""A larger share of bad records, or of malformed rows, stops a preparation."""


class Skipped(NamedTuple):
    """One record, file or row of a caption file that is not in the collection."""

    key: str
    """The record's key, or the place of a row: `captions.csv:17`."""
    image: str
    reason: str
    """`KIND: details; what to do`; entries are counted by kind, the part before the colon. Details
    such as `512 of them` state how many an entry stands for."""


class SkippedRows(list[Skipped]):
    """Records that a source skips while it reads, with a count of the rows that were read.

    Attributes
    ----------
    n_rows : int
        Rows that were read, the good ones too.
    malformed : Tally
        Rows that could not be parsed: more than 5 % of them stop a preparation. A row without a
        caption or with a repeated one is skipped but not malformed.
    """

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        super().__init__(entries)
        self.n_rows = 0
        self.malformed = Tally()

    def add(self, key: str, image: str, reason: str) -> None:
        """Note a row or file that is left out."""
        self.append(Skipped(key, image, reason))

    def add_malformed(self, key: str, image: str, reason: str) -> None:
        """Note a row that could not be parsed; it is counted in `n_rows` by its reader."""
        self.append(Skipped(key, image, reason))
        self.malformed.add(key, reason)

    def count_rows(self, other: SkippedRows) -> None:
        """Add the counts of rows of another source or file, but not its entries."""
        self.n_rows += other.n_rows
        self.malformed.update(other.malformed)

    def check(self) -> None:
        """Raise ValueError if more than 5 % of the rows are malformed."""
        if self.malformed.total > MAX_BAD_SHARE * self.n_rows:
            raise ValueError(
                f"{self.malformed.total:,} of {self.n_rows:,} rows cannot be read, more than "
                f"{MAX_BAD_SHARE:.0%}: {self.malformed.explain()}; correct them, or leave them "
                "out with --keep-going"
            )


@runtime_checkable
class NamesSkippedRows(Protocol):
    """A source that leaves out rows and files which are no records, such as empty captions."""

    def skipped_rows(self) -> Sequence[Skipped]:
        """Return all of them, in the order of the file; called after the records were read."""
        ...


class Tally:
    """Count entries by the kind of their reason, with an example of each.

    Attributes
    ----------
    total : int
    """

    def __init__(self, entries: Iterable[Skipped] = ()) -> None:
        self.total = 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        for entry in entries:
            self.add(entry.key, entry.reason)

    def add(self, key: str, reason: str) -> None:
        """Count one more, or as many as the reason states."""
        kind = reason.split(":")[0]
        several = _SEVERAL.fullmatch(reason)
        count = int(several[1].replace(",", "")) if several else 1
        self.total += count
        self._counts[kind] += count
        self._examples.setdefault(kind, key)
        self._reasons.setdefault(kind, reason)

    def update(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.total += other.total
        self._counts.update(other._counts)
        self._examples = {**other._examples, **self._examples}
        self._reasons = {**other._reasons, **self._reasons}

    def most_common(self, n: int | None = None) -> list[tuple[str, int]]:
        """Return kinds with their counts, the most frequent first."""
        return self._counts.most_common(n)

    def describe(self, n: int | None = None) -> str:
        """Return the kinds, each with its count and an example, on one line."""
        most = self._counts.most_common(n)
        return ", ".join(f"{count:,} × {kind} ({self._examples[kind]})" for kind, count in most)

    def explain(self, n: int = 4) -> str:
        """Return the most frequent kinds, each with its count, an example and the whole reason."""
        most = self._counts.most_common(n)
        return "; ".join(
            f"{count:,} × {self._reasons[kind]} ({self._examples[kind]})" for kind, count in most
        )

    def __str__(self) -> str:
        """Return the four most frequent kinds."""
        return self.describe(4)


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
