"""Retrieving with some dimensions off, and telling what that changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.checkpoint import Checkpoint
from model.collection import Collection
from model.dimensions import Derived
from model.exclusion import Query, best, contributions, off_weights, search
from model.results import Contribution, EncodedQuery, OffDimension, Result, SearchOutcome

Names = Callable[[int], str]
"""Gives a dimension's name."""


@dataclass(frozen=True)
class Retriever:
    """Searches the codes of a collection, and says of every result what earned it."""

    collection: Collection
    checkpoint: Checkpoint
    derived: Derived

    def search(
        self,
        query: EncodedQuery,
        off: tuple[int, ...],
        strictness: float,
        never: bool,
        top: int,
        names: Names,
        itself: int | None = None,
    ) -> SearchOutcome:
        """Retrieve with some dimensions off.

        Parameters
        ----------
        query : EncodedQuery
        off : tuple of int
            The complete set of dimensions that are off, each once.
        strictness : float
            s in [0, 1].
        never : bool
            Also remove what has an off dimension.
        top : int
        names : callable
            Gives a dimension's name.
        itself : int, optional
            Row of the item that is searched with, which is no result.

        Raises
        ------
        ValueError
            If the strictness is out of range.
        """
        asked = self.question(query, off, strictness, never)
        started = time.perf_counter()
        after = self._ranked(asked, top, itself)
        seconds = time.perf_counter() - started
        before = self._ranked(Query(query.code), top, itself) if off else after
        named = tuple(
            OffDimension(j, names(j), w) for j, w in zip(asked.off, asked.weights, strict=True)
        )
        return SearchOutcome(named, *self._compared(asked, names, before, after), seconds)

    def question(
        self, query: EncodedQuery, off: tuple[int, ...], strictness: float, never: bool
    ) -> Query:
        """Make what is scored of a query and what is off; parameters as for `search`."""
        weights = off_weights(
            query.code, query.without_code, np.array(off, np.int64), self.derived.mean_positive
        )
        return Query(
            query.code,
            off,
            tuple(map(float, weights)),
            strictness,
            never,
            self.checkpoint.calibration,
        )

    def search_dense(
        self, query: EncodedQuery, top: int, itself: int | None = None
    ) -> tuple[Result, ...]:
        """Retrieve with the backbone alone, "A without B" as its literal text, to compare."""
        total = self.collection.image_embeddings @ query.embedding.astype(np.float16)
        hits = best(total.astype(np.float32), top + (itself is not None))
        pairs = zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)
        kept = [(row, score) for row, score in pairs if row != itself][:top]
        return tuple(
            self._result(None, None, row, score, rank, None)
            for rank, (row, score) in enumerate(kept, 1)
        )

    def _ranked(self, query: Query, top: int, itself: int | None) -> list[tuple[int, float]]:
        hits = search(self.derived.image_codes, query, top + (itself is not None))
        pairs = zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)
        # A score of 0 shares nothing with the query: showing it would be noise, not a result.
        return [(r, s) for r, s in pairs if r != itself and s != 0][:top]

    def _compared(
        self,
        asked: Query,
        names: Names,
        before: list[tuple[int, float]],
        after: list[tuple[int, float]],
    ) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
        """Results, each with its rank before, and those that were among the top before."""
        rank_before = {row: rank for rank, (row, _) in enumerate(before, 1)}
        kept = {row for row, _ in after}
        results = tuple(
            self._result(asked, names, row, score, rank, rank_before.get(row))
            for rank, (row, score) in enumerate(after, 1)
        )
        left = tuple(
            self._result(asked, names, row, None, 0, rank)
            for rank, (row, _) in enumerate(before, 1)
            if row not in kept
        )
        return results, left

    def _result(
        self,
        query: Query | None,
        names: Names | None,
        row: int,
        score: float | None,
        rank: int,
        before: int | None,
    ) -> Result:
        item = self.collection.items.iloc[row]
        parts: tuple[Contribution, ...] = ()
        if query is not None and names is not None:
            found = contributions(self.derived.image_codes, query, row)
            parts = tuple(
                Contribution(j, names(j), value)
                for j, value in zip(found.dimensions.tolist(), found.values.tolist(), strict=True)
            )
        return Result(
            id=item["id"],
            row=row,
            score=sum(part.value for part in parts) if score is None else score,
            captions=tuple(item["captions"]),
            labels=tuple(item["labels"]),
            contributions=parts,
            rank=rank,
            rank_before=before,
        )
