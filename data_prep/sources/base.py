"""The base class of sources: records, and the rows that are skipped on the way to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from sieve.data_prep.records import Record, SkippedRows


class BaseSource(ABC):
    """A source that collects skipped rows while it yields its records.

    Records are not stored: a file may have millions of rows.
    """

    @abstractmethod
    def _iter_records(self, skipped: SkippedRows) -> Iterator[Record]:
        """Yield all records, in an order that depends only on the source."""

    def records(self) -> Iterator[Record]:
        """Yield all records, in an order that depends only on the source."""
        skipped = SkippedRows()
        vars(self)["_skipped"] = skipped  # subclasses may be frozen dataclasses
        yield from self._iter_records(skipped)

    def skipped_rows(self) -> SkippedRows:
        """Return the skipped rows and files."""
        if "_skipped" not in vars(self):
            deque(self.records(), maxlen=0)
        return vars(self)["_skipped"]

    def __getstate__(self) -> dict[str, Any]:
        """Exclude cached values: decoder processes only open images."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}
