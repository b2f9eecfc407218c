"""Shards, which let several machines prepare one collection."""

from __future__ import annotations

import re
from dataclasses import dataclass

CHUNK_ROWS = 256
"""Rows of a chunk: the most that a killed run loses, and the unit in which shards are cut."""


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `of`, counted from 1."""

    index: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.of:
            raise ValueError(
                f"shard {self.index}/{self.of} does not exist; in i/n, i must be from 1 to n"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `i/n`.

        Raises
        ------
        ValueError
            If the text has another form, or the shard does not exist.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ValueError(f"expected a shard as i/n, such as 1/4; got {text[:40]!r}")
        return cls(int(found[1]), int(found[2]))

    @property
    def is_first(self) -> bool:
        """Whether this shard holds what precedes all rows."""
        return self.index == 1

    @property
    def is_last(self) -> bool:
        """Whether this shard holds what follows all rows."""
        return self.index == self.of

    def rows(self, n_rows: int) -> range:
        """Return this shard's rows out of all: whole chunks, so that batches do not change."""
        n_chunks = -(-n_rows // CHUNK_ROWS)
        first, end = (
            -(-n_chunks * i // self.of) * CHUNK_ROWS for i in (self.index - 1, self.index)
        )
        return range(min(first, n_rows), min(end, n_rows))
