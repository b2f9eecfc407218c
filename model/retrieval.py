"""Retrieving with some dimensions off, and telling what that changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.exclusion import Query, best, contributions, off_weights
from sieve.model.index import Index
from sieve.model.results import Contribution, EncodedQuery, OffDimension, Result, SearchOutcome

Names = Callable[[int], str]
"""Gives a dimension's name."""


class _Ranked(NamedTuple):
    """A row with its score, and where its code stands among those found."""

    row: int
    score: float
    codes: SparseCodes
    place: int


@dataclass(frozen=True)
class Retriever:
    """Searches the codes of a collection, and says of every result what earned it."""

    collection: Collection
    checkpoint: Checkpoint
    index: Index

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
        is_on = np.setdiff1d(np.flatnonzero(query.code), off)
        started = time.perf_counter()
        after = self._ranked(asked, top, itself) if len(is_on) or not off else []
        seconds = time.perf_counter() - started
        before = self._ranked(Query(query.code), top, itself) if off else after
        named = tuple(
            OffDimension(j, names(j), w) for j, w in zip(asked.off, asked.weights, strict=True)
        )
        results, left = self._compared(asked, names, before, after)
        return SearchOutcome(named, results, left, seconds, bool(off) and not len(is_on))

    def question(
        self, query: EncodedQuery, off: tuple[int, ...], strictness: float, never: bool
    ) -> Query:
        """Make what is scored of a query and what is off; parameters as for `search`."""
        weights = off_weights(
            query.code, query.without_code, np.array(off, np.int64), self.index.mean_positive
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
        return tuple(self._shown(row, score, rank) for rank, (row, score) in enumerate(kept, 1))

    def _ranked(self, query: Query, top: int, itself: int | None) -> list[_Ranked]:
        found = self.index.search(query, top + (itself is not None))
        pairs = enumerate(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
        ranked = [_Ranked(row, score, found.codes, place) for place, (row, score) in pairs]
        found_rows = [one for one in ranked if one.row != itself][:top]
        if not query.never:
            return found_rows
        # With much left out, what shares nothing with the query would fill the places.
        return [one for one in found_rows if _shares(query, one)]

    def _compared(
        self, asked: Query, names: Names, before: list[_Ranked], after: list[_Ranked]
    ) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
        """Results, each with its rank before, and those that were among the top before."""
        rank_before = {one.row: rank for rank, one in enumerate(before, 1)}
        kept = {one.row for one in after}
        results = tuple(
            self._shown(
                one.row, one.score, rank, rank_before.get(one.row), self._parts(asked, names, one)
            )
            for rank, one in enumerate(after, 1)
        )
        gone = [(rank, one) for rank, one in enumerate(before, 1) if one.row not in kept]
        left = []
        for rank, one in gone:
            parts = self._parts(asked, names, one)
            left.append(self._shown(one.row, sum(part.value for part in parts), 0, rank, parts))
        return tuple(results), tuple(left)

    def _parts(self, query: Query, names: Names, one: _Ranked) -> tuple[Contribution, ...]:
        found = contributions(one.codes, query, one.place)
        return tuple(
            Contribution(j, names(j), value)
            for j, value in zip(found.dimensions.tolist(), found.values.tolist(), strict=True)
        )

    def _shown(
        self,
        row: int,
        score: float,
        rank: int,
        before: int | None = None,
        parts: tuple[Contribution, ...] = (),
    ) -> Result:
        item = self.collection.items.iloc[row]
        return Result(
            id=item["id"],
            row=row,
            score=score,
            captions=tuple(item["captions"]),
            labels=tuple(item["labels"]),
            contributions=parts,
            rank=rank,
            rank_before=before,
        )


def _shares(query: Query, one: _Ranked) -> bool:
    """Whether a row has a dimension of the query that is on."""
    return bool((contributions(one.codes, query, one.place).values > 0).any())
