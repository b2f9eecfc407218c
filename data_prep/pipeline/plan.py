"""Plan of one preparation, or of one shard of it: source, rows, embedder and options.

Shards let several machines prepare one collection. The command line parses them, so this module
imports neither torch nor Arrow.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import PIL

from sieve.data_prep.records import Skipped, Source

if TYPE_CHECKING:
    from sieve.data_prep.pipeline.embed import Embedder
    from sieve.data_prep.pipeline.record_table import RecordTable
    from sieve.data_prep.precomputed import PrecomputedCodes

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
        """Parse `i/n`; raise ValueError if the text has another form or there is no such shard."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ValueError(f"expected a shard as i/n, such as 1/4; got {text[:40]!r}")
        return cls(int(found[1]), int(found[2]))

    def rows(self, n_rows: int) -> range:
        """Return this shard's rows out of all: whole chunks, so that batches do not change."""
        n_chunks = -(-n_rows // CHUNK_ROWS)
        ends = (-(-n_chunks * i // self.of) * CHUNK_ROWS for i in (self.index - 1, self.index))
        return range(*(min(end, n_rows) for end in ends))


@dataclass(frozen=True)
class PreparationPlan:
    """Source, rows and options of a preparation."""

    source: Source
    table: RecordTable
    embedder: Embedder
    shard: Shard | None = None
    """None to prepare the whole collection."""
    keep_going: bool = False
    codes: PrecomputedCodes | None = None
    """Codes in place of embeddings, which then have width 0."""

    @cached_property
    def rows(self) -> range:
        """Rows to prepare."""
        return (self.shard or Shard()).rows(len(self.table))

    @property
    def counted(self) -> list[Skipped]:
        """Records without a row that count as bad; for a shard only its own rows count."""
        return self.table.left_out if self.shard is None else []

    @property
    def total(self) -> int:
        """Number of records of which the share of bad ones is computed."""
        return len(self.rows) + len(self.counted)

    @property
    def chunks(self) -> list[range]:
        """Rows of each chunk."""
        return split_range(self.rows, CHUNK_ROWS)

    @cached_property
    def origin(self) -> dict[str, object]:
        """Everything that the collection's bytes depend on; equal for all shards of one."""
        source, precomputed = self.source, self.embedder.precomputed
        return {
            "source": f"{type(source).__name__}: {source}",
            "records": self.table.sha256,
            "backbone": self.embedder.identity.sha256,
            "computes": self.embedder.computes,
            "known": precomputed.sha256() if precomputed else "",
            **({"codes": self.codes.sha256()} if self.codes else {}),
            "part": CHUNK_ROWS,
            "splits": "drawn by content",
            "libraries": f"pillow {PIL.__version__}, numpy {np.__version__}",
        }

    @property
    def fingerprint(self) -> str:
        """Everything that the bytes of this plan's chunks depend on, as JSON."""
        rows = self.rows
        return json.dumps({**self.origin, "rows": f"{rows.start} to {rows.stop}"}, indent=1)


def split_range(rows: range, size: int) -> list[range]:
    """Split rows into ranges of one size, the last of which may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
