"""Shards: one preparation on many machines, each of which makes one part of the collection."""

from __future__ import annotations

import re
from dataclasses import dataclass

CHUNK_ROWS = 256
"""Rows of a part: what a killed run loses at most, and where shards are cut."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `of`; the first is 1."""

    index: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise ValueError(
                f"shard {self.index}/{self.of} does not exist; of four there are 1/4 to 4/4"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`.

        Raises
        ------
        ValueError
            If it is something else.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ValueError(f"a shard is i/n, such as 1/4; got {text[:40]!r}")
        return cls(int(found[1]), int(found[2]))

    @property
    def is_first(self) -> bool:
        """Whether what stands before all rows belongs here."""
        return self.index == 1

    @property
    def is_last(self) -> bool:
        """Whether what stands behind all rows belongs here."""
        return self.index == self.of

    def rows(self, n_rows: int) -> range:
        """Rows of this shard among all: whole parts, so that batches are those of one long run."""
        n_parts = -(-n_rows // CHUNK_ROWS)
        first, end = (-(-n_parts * i // self.of) * CHUNK_ROWS for i in (self.index - 1, self.index))
        return range(min(first, n_rows), min(end, n_rows))
