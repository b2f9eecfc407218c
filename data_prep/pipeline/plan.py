"""Plan of one preparation, or of one shard of it: source, rows, embedder and options."""

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
    """Source, rows and options of a preparation."""

    source: Source
    table: RecordTable
    embedder: Embedder
    shard: Shard | None = None
    """None to prepare the whole collection."""
    keep_going: bool = False
    codes: PrecomputedCodes | None = None
    """Codes in place of embeddings, which then have width 0."""

    @property
    def rows(self) -> range:
        """Rows to prepare."""
        return (self.shard or Shard()).rows(len(self.table))

    @property
    def left_out(self) -> list[Skipped]:
        """Records without a row; they belong to the first shard."""
        return self.table.left_out if self.shard is None or self.shard.is_first else []

    @property
    def counted(self) -> list[Skipped]:
        """Records without a row that count as bad; for a shard only its own rows count."""
        return self.left_out if self.shard is None else []

    @property
    def total(self) -> int:
        """Number of records of which the share of bad ones is computed."""
        return len(self.rows) + len(self.counted)

    @property
    def chunks(self) -> list[range]:
        """Rows of each chunk."""
        rows = self.rows
        starts = range(rows.start, rows.stop, CHUNK_ROWS)
        return [range(start, min(start + CHUNK_ROWS, rows.stop)) for start in starts]

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

    @cached_property
    def fingerprint(self) -> str:
        """Everything that the bytes of this plan's chunks depend on, as JSON."""
        rows = self.rows
        return json.dumps({**self.origin, "rows": f"{rows.start} to {rows.stop}"}, indent=1)
