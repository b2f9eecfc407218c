"""The engine of one machine: postings in memory, see `sieve.model.exclusion`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Query, best, scores, search
from sieve.model.index.protocol import Found
from sieve.model.opened_files import checked_once


@dataclass(frozen=True)
class LocalIndex:
    """Searches codes that this process holds."""

    codes: SparseCodes
    mean_positive: np.ndarray
    """(m,) float32"""

    def search(self, query: Query, top: int) -> Found:
        """Find the best rows that share a dimension with the query; ties go to the smaller row."""
        with checked_once():
            hits = search(self.codes, query, top)
            if not hits.scores.all():
                total = scores(self.codes, query)
                total[total == 0] = -np.inf
                hits = best(total, top)
            return Found(hits.rows, hits.scores, self.codes.take(hits.rows))

    def code(self, row: int) -> np.ndarray:
        """One row's code with its zeros: (m,) float32."""
        return self.codes.dense(row)
