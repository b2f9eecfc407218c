"""What a search asks of the codes, whichever engine holds them.

The engine of one machine: postings in memory, see `sieve.model.exclusion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Query, best, scores, search
from sieve.model.files import checked_once


class Found(NamedTuple):
    """Best rows of a search, best first, with what their contributions are counted from."""

    rows: np.ndarray
    """(h,) int64"""
    scores: np.ndarray
    """(h,) float32, none of them 0"""
    codes: SparseCodes
    """(h, m): the code of each row found."""


class Index(Protocol):
    """Codes of a collection's images, searched exactly.

    Every engine finds the same rows with the same scores; only rows of equal score may come in
    another order.
    """

    @property
    def mean_positive(self) -> np.ndarray:
        """Mean of each dimension over the images that have it: (m,) float32."""
        ...

    def search(self, query: Query, top: int) -> Found:
        """Find the best rows that share a dimension with the query.

        A row that shares none has a score of 0: it is no result, also where fewer are found. What
        is pushed away below 0 comes last.

        Parameters
        ----------
        query : Query
        top : int
            At most so many.

        Raises
        ------
        ValueError
            If the query is of another width, or the engine does not answer.
        """
        ...

    def code(self, row: int) -> np.ndarray:
        """One row's code with its zeros: (m,) float32."""
        ...


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
