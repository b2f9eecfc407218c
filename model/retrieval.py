"""Retrieving with some dimensions off, and telling what that changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.duplicates import Copies
from sieve.model.exclusion import Query, best, contributions, off_weights
from sieve.model.index import Index
from sieve.model.results import (
    Contribution,
    Copy,
    EncodedQuery,
    OffDimension,
    Result,
    SearchOutcome,
)

Names = Callable[[int], str]
"""Gives a dimension's name."""


class _Hit(NamedTuple):
    """A row with its score."""

    row: int
    score: float


class _Ranked(NamedTuple):
    """A row with its score, and where its code stands among those found."""

    row: int
    score: float
    codes: SparseCodes
    place: int


Hit = TypeVar("Hit", _Hit, _Ranked)


@dataclass(frozen=True)
class Retriever:
    """Searches the codes of a collection, and says of every result what earned it."""

    collection: Collection
    checkpoint: Checkpoint
    index: Index
    copies: Callable[[], Copies]
    """Reads which items show the same picture; called only by searches that fold them."""

    def search(
        self,
        query: EncodedQuery,
        off: tuple[int, ...],
        strictness: float,
        never: bool,
        top: int,
        names: Names,
        itself: int | None = None,
        fold: bool = True,
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
        fold : bool
            Show items of the same picture as one result.

        Raises
        ------
        ValueError
            If the strictness is out of range.
        """
        asked = self.question(query, off, strictness, never)
        copies = self.copies() if fold else None
        is_on = np.setdiff1d(np.flatnonzero(query.code), off)
        started = time.perf_counter()
        after = self._ranked(asked, top, itself, copies) if len(is_on) or not off else []
        seconds = time.perf_counter() - started
        before = self._ranked(Query(query.code), top, itself, copies) if off else after
        named = tuple(
            OffDimension(j, names(j), w) for j, w in zip(asked.off, asked.weights, strict=True)
        )
        results, left = self._compared(asked, names, before, after, copies)
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
        self, query: EncodedQuery, top: int, itself: int | None = None, fold: bool = True
    ) -> tuple[Result, ...]:
        """Retrieve with the backbone alone, "A without B" as its literal text, to compare."""
        copies = self.copies() if fold else None
        total = self.collection.image_embeddings @ query.embedding.astype(np.float16)
        total = total.astype(np.float32)

        def find(top: int) -> list[_Hit]:
            hits = best(total, top)
            return list(map(_Hit, hits.rows.tolist(), hits.scores.tolist()))

        kept = self._distinct(find, top, itself, copies)
        return tuple(
            self._shown(hit.row, hit.score, rank, copies=copies) for rank, hit in enumerate(kept, 1)
        )

    def _ranked(
        self, query: Query, top: int, itself: int | None, copies: Copies | None
    ) -> list[_Ranked]:
        def find(top: int) -> list[_Ranked]:
            found = self.index.search(query, top)
            pairs = enumerate(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
            return [_Ranked(row, score, found.codes, place) for place, (row, score) in pairs]

        found = self._distinct(find, top, itself, copies)
        if not query.never:
            return found
        # With much left out, what shares nothing with the query would fill the places.
        return [one for one in found if _shares(query, one)]

    def _distinct(
        self, find: Callable[[int], list[Hit]], top: int, itself: int | None, copies: Copies | None
    ) -> list[Hit]:
        """Find the best items without the one searched with, each picture once if folded."""
        wanted = top + (itself is not None)
        while True:
            found = find(wanted)
            seen = set() if itself is None else {_picture(itself, copies)}
            kept = []
            for one in found:
                picture = _picture(one.row, copies)
                if picture not in seen:
                    kept.append(one)
                    if copies:
                        seen.add(picture)
            if len(kept) >= top or len(found) < wanted or not copies:
                return kept[:top]
            wanted *= 2

    def _compared(
        self,
        asked: Query,
        names: Names,
        before: list[_Ranked],
        after: list[_Ranked],
        copies: Copies | None,
    ) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
        """Results, each with its rank before, and those that were among the top before."""
        rank_before = {_picture(one.row, copies): rank for rank, one in enumerate(before, 1)}
        kept = {_picture(one.row, copies) for one in after}
        results = tuple(
            self._shown(
                one.row,
                one.score,
                rank,
                rank_before.get(_picture(one.row, copies)),
                self._parts(asked, names, one),
                copies,
            )
            for rank, one in enumerate(after, 1)
        )
        gone = [
            (rank, one)
            for rank, one in enumerate(before, 1)
            if _picture(one.row, copies) not in kept
        ]
        left = []
        for rank, one in gone:
            parts = self._parts(asked, names, one)
            left.append(
                self._shown(one.row, sum(part.value for part in parts), 0, rank, parts, copies)
            )
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
        copies: Copies | None = None,
    ) -> Result:
        others = copies.of(row) if copies else ()
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
            file=self.collection.file_names[row],
            copies=tuple(self._copy(other) for other in others),
        )

    def _copy(self, row: int) -> Copy:
        return Copy(self.collection.items["id"].iloc[row], self.collection.file_names[row])


def _picture(row: int, copies: Copies | None) -> int:
    """Return what identifies a row's picture: the row itself if copies are not folded."""
    return copies.group(row) if copies else row


def _shares(query: Query, one: _Ranked) -> bool:
    """Whether a row has a dimension of the query that is on."""
    return bool((contributions(one.codes, query, one.place).values > 0).any())
