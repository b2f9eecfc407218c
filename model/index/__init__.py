"""Indexes that search a collection's codes: the protocol, and the index in this process.

`sieve.model.index.qdrant` searches codes in Qdrant, for collections too large for one machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Query, best, scores, search


class Found(NamedTuple):
    """Rows found by a search, best first, with the codes that explain their scores."""

    rows: np.ndarray
    """(h,) int64"""
    scores: np.ndarray
    """(h,) float32, none of them 0"""
    codes: SparseCodes
    """(h, m): the code of each row."""


class Index(Protocol):
    """Exact index of the codes of a collection's images.

    All implementations return the same rows with the same scores; only rows of equal score may be
    in a different order.
    """

    @property
    def mean_positive(self) -> np.ndarray:
        """Return each dimension's mean over the images that have it: (m,) float32."""
        ...

    def search(self, query: Query, top: int) -> Found:
        """Return the best rows, at most `top`, that share a dimension with the query.

        A row that shares none scores 0 and is never returned, even if there are fewer than `top`
        others. Rows with a negative score come last. Raises a ValueError if the query's width
        differs from the codes', or the server does not answer.
        """
        ...

    def code(self, row: int) -> np.ndarray:
        """Return the code of one row: (m,) float32."""
        ...


@dataclass(frozen=True)
class LocalIndex:
    """Index of codes that this process holds."""

    codes: SparseCodes
    mean_positive: np.ndarray
    """(m,) float32"""

    def search(self, query: Query, top: int) -> Found:
        """Return the best rows that share a dimension with the query; ties by row."""
        hits = search(self.codes, query, top)
        if not hits.scores.all():
            total = scores(self.codes, query)
            total[total == 0] = -np.inf
            hits = best(total, top)
        return Found(hits.rows, hits.scores, self.codes.take(hits.rows))

    def code(self, row: int) -> np.ndarray:
        """Return the code of one row: (m,) float32."""
        return self.codes.dense(row)
