"""What one preparation, or one shard of it, is about: whose rows, embedded by what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import PIL

from sieve.data_prep.pipeline.embed import Embedder
from sieve.data_prep.pipeline.record_table import RecordTable
from sieve.data_prep.pipeline.shard import CHUNK_ROWS, Shard
from sieve.data_prep.precomputed import PrecomputedCodes
from sieve.data_prep.records import Skipped, Source


@dataclass(frozen=True)
class PreparationPlan:
    """A preparation."""

    source: Source
    table: RecordTable
    embedder: Embedder
    shard: Shard | None = None
    """None where it makes the whole collection."""
    keep_going: bool = False
    codes: PrecomputedCodes | None = None
    """Codes that take the place of embeddings, which then have no width."""

    @property
    def rows(self) -> range:
        """Rows that are to be prepared."""
        return (self.shard or Shard()).rows(len(self.table))

    @property
    def left_out(self) -> list[Skipped]:
        """Records that have no row; the first shard names them."""
        return self.table.left_out if self.shard is None or self.shard.is_first else []

    @property
    def counted(self) -> list[Skipped]:
        """Records without a row that count as bad: a shard is judged by its own rows alone."""
        return self.left_out if self.shard is None else []

    @property
    def total(self) -> int:
        """How many records there are to judge."""
        return len(self.rows) + len(self.counted)

    @property
    def parts(self) -> list[range]:
        """The rows in parts, in which they are kept."""
        rows = self.rows
        starts = range(rows.start, rows.stop, CHUNK_ROWS)
        return [range(start, min(start + CHUNK_ROWS, rows.stop)) for start in starts]

    @cached_property
    def origin(self) -> dict[str, object]:
        """What the collection's bytes depend on; all shards of one have it in common."""
        source = self.source
        return {
            "source": f"{type(source).__name__}: {source}",
            "records": self.table.sha256,
            "backbone": self.embedder.identity.sha256,
            "computes": self.embedder.computes,
            "known": self.embedder.known.sha256() if self.embedder.known else "",
            **({"codes": self.codes.sha256()} if self.codes else {}),
            "part": CHUNK_ROWS,
            "splits": "drawn by content",
            "libraries": f"pillow {PIL.__version__}, numpy {np.__version__}",
        }

    @cached_property
    def fingerprint(self) -> str:
        """What its parts depend on."""
        rows = self.rows
        return json.dumps({**self.origin, "rows": f"{rows.start} to {rows.stop}"}, indent=1)
