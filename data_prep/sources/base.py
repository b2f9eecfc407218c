"""Sources that note what they leave out on the way to their records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from sieve.data_prep.records import Record, SkippedRows


class BaseSource(ABC):
    """A source that notes what it leaves out while it finds its records.

    What it finds is let go when it has been read: a file of millions of rows is not kept.
    """

    @abstractmethod
    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        """Yield all records, in an order that depends on nothing but the source."""

    def records(self) -> Iterator[Record]:
        """Yield all records, in an order that depends on nothing but the source."""
        noted = SkippedRows()
        vars(self)["_noted"] = noted
        yield from self._iter_records(noted)

    def skipped_rows(self) -> SkippedRows:
        """Return the rows and files that are left out and are no records."""
        if "_noted" not in vars(self):
            deque(self.records(), maxlen=0)
        return vars(self)["_noted"]

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was noted: decoder processes only open images."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}
