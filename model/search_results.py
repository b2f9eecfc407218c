"""Results that an engine builds from the hits of its index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimensions.concepts import DimensionNames
from sieve.model.dimensions.presence import Basis, ExcludedConcepts, Presence
from sieve.model.duplicates import Copies
from sieve.model.encoded_query import by_concept
from sieve.model.exclusion import Query, best, contributions
from sieve.model.index import Index


class Contribution(NamedTuple):
    """One dimension's part of a score; not positive if the dimension is off."""

    dimension: int
    name: str
    value: float
    concept: int
    """Leading dimension of its concept."""
    concept_name: str


@dataclass(frozen=True)
class ConceptContribution:
    """The sum of the contributions of a concept's dimensions to a score."""

    concept: int
    """Its leading dimension, which may not contribute itself."""
    name: str
    value: float
    dimensions: tuple[int, ...]
    """Dimensions that contribute."""


class OffDimension(NamedTuple):
    """A dimension that is off, with its weight."""

    dimension: int
    name: str
    weight: float
    concept: int
    """Leading dimension of its concept."""
    concept_name: str


class ConceptPresence(NamedTuple):
    """How probable it is that an image has a concept or phrase that is off."""

    name: str
    dimensions: tuple[int, ...]
    probability: float | None
    """None if a dimension is active, but nothing is known about its probability."""


class ExcludedConcept(NamedTuple):
    """A concept or phrase that is off."""

    name: str
    dimensions: tuple[int, ...]
    basis: Basis
    """Source of its probability: see `sieve.model.dimensions.presence`."""


class Copy(NamedTuple):
    """An item that shows the same picture as a result."""

    id: str
    file: str


@dataclass(frozen=True)
class Result:
    """One retrieved item."""

    id: str
    row: int
    score: float
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    contributions: tuple[Contribution, ...]
    """The largest first; their sum is the score."""
    rank: int
    """1 for the best; 0 for an item that left the results."""
    rank_before: int | None
    """Rank with all dimensions on; None if it was not among the top."""
    file: str
    """Name of the original file in the source: see `Collection.file_names`."""
    copies: tuple[Copy, ...] = ()
    """Other items that show the same picture and are folded into this result."""
    presence: tuple[ConceptPresence, ...] = ()
    """Probability that the image has each excluded concept or phrase, the highest first."""

    @property
    def concepts(self) -> tuple[ConceptContribution, ...]:
        """Contributions summed by concept, the largest first; their sum is the score."""
        sums = [
            ConceptContribution(
                parts[0].concept,
                parts[0].concept_name,
                sum(part.value for part in parts),
                tuple(part.dimension for part in parts),
            )
            for parts in by_concept(self.contributions)
        ]
        return tuple(sorted(sums, key=lambda one: -one.value))


@dataclass(frozen=True)
class SearchOutcome:
    """Results of a search, and what the off dimensions changed."""

    off: tuple[OffDimension, ...]
    results: tuple[Result, ...]
    left: tuple[Result, ...]
    """Items that left the top because dimensions are off, by their rank before."""
    seconds: float
    """Duration of the search without encoding."""
    all_off: bool = False
    """Whether all dimensions of the query are off, so that nothing was searched for."""
    excluded: tuple[ExcludedConcept, ...] = ()
    """Concepts and phrases that the off dimensions exclude."""
    limit: float | None = None
    """Probability from which images are hidden; None if nothing is."""
    where: str = ""
    """Filter of the items; empty for all."""
    passing: int | None = None
    """Number of items that pass the filter; None without one."""


def list_presence(
    presences: Sequence[Presence], probabilities: Sequence[float]
) -> tuple[ConceptPresence, ...]:
    """Return the probability of each presence in one image, the most probable first.

    A presence without a known probability is listed if one of its dimensions is active.
    """
    found = [
        ConceptPresence(one.name, one.dimensions, None if one.basis == "active" else probability)
        for one, probability in zip(presences, probabilities, strict=True)
        if one.basis != "active" or probability
    ]
    return tuple(
        sorted(found, key=lambda one: -(1 if one.probability is None else one.probability))
    )


class Hit(NamedTuple):
    """A row found by a search; `codes.row(position)` is its code."""

    row: int
    score: float
    codes: SparseCodes | None = None
    position: int = 0


class _Item(NamedTuple):
    """Columns of the table of items that results show."""

    id: str
    captions: Sequence[str]
    labels: Sequence[str]


@dataclass(frozen=True)
class ResultBuilder:
    """Find hits, group those that show the same picture, and describe each group as a result."""

    collection: Collection
    copies: Copies
    """Groups of items, of which only the best one becomes a result."""
    query_rows: tuple[int, ...]
    """Rows of the query's own items, which are not returned."""
    names: DimensionNames
    excluded: ExcludedConcepts
    """What is off."""

    def find(self, index: Index, query: Query, top: int) -> list[Hit]:
        """Return the best hits for a weighted query, one for each picture."""

        def search(top: int) -> list[Hit]:
            found = index.search(query, top)
            pairs = enumerate(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
            return [Hit(row, score, found.codes, position) for position, (row, score) in pairs]

        return self._distinct(search, top)

    def compare(
        self, found: list[Hit], before: list[Hit], query: Query
    ) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
        """Return the results for `query`, and those of `before` that are no longer among them.

        `before` are the hits with all dimensions on.
        """
        rank_before = {self.copies.group(hit.row): rank for rank, hit in enumerate(before, 1)}
        items = self._items([*found, *before])
        results = []
        for rank, (hit, presence) in enumerate(self._with_presence(found), 1):
            earlier = rank_before.pop(self.copies.group(hit.row), None)
            parts = self._parts(hit, query)
            results.append(self._result(items[hit.row], hit, rank, earlier, parts, presence))
        left = []
        for rank, (hit, presence) in enumerate(self._with_presence(before), 1):
            if self.copies.group(hit.row) in rank_before:
                parts = self._parts(hit, query)
                rescored = hit._replace(score=sum(part.value for part in parts))
                left.append(self._result(items[hit.row], rescored, 0, rank, parts, presence))
        return tuple(results), tuple(left)

    def list_best(self, scores: np.ndarray, top: int) -> tuple[Result, ...]:
        """Return the items with the highest scores: (n,) float32, one for each row."""

        def search(top: int) -> list[Hit]:
            return list(map(Hit, *(part.tolist() for part in best(scores, top))))

        hits = self._distinct(search, top)
        items = self._items(hits)
        return tuple(self._result(items[hit.row], hit, rank) for rank, hit in enumerate(hits, 1))

    def _distinct(self, search: Callable[[int], list[Hit]], top: int) -> list[Hit]:
        wanted = top + len(self.query_rows)
        while True:
            hits = search(wanted)
            distinct: dict[int, Hit] = {}
            for hit in hits:
                distinct.setdefault(self.copies.group(hit.row), hit)
            for row in self.query_rows:
                distinct.pop(self.copies.group(row), None)
            if len(distinct) >= top or len(hits) < wanted:
                return list(distinct.values())[:top]
            wanted *= 2

    def _parts(self, hit: Hit, query: Query) -> tuple[Contribution, ...]:
        assert hit.codes is not None
        dimensions, values = contributions(hit.codes, query, hit.position)
        parts = []
        for j, value in zip(dimensions.tolist(), values.tolist(), strict=True):
            name, concept, concept_name = self.names.described(j)
            parts.append(Contribution(j, name, value, concept, concept_name))
        return tuple(parts)

    def _with_presence(self, hits: list[Hit]) -> list[tuple[Hit, tuple[ConceptPresence, ...]]]:
        presences = self.excluded.presences
        if not (hits and presences):
            return [(hit, ()) for hit in hits]
        codes = hits[0].codes
        assert codes is not None and all(hit.codes is codes for hit in hits)
        some = csr_array(codes.by_row[[hit.position for hit in hits]])
        rows = np.array([hit.row for hit in hits])
        found = self.excluded.probabilities(some, rows).tolist()
        return [
            (hit, list_presence(presences, each)) for hit, each in zip(hits, found, strict=True)
        ]

    def _items(self, hits: Sequence[Hit]) -> dict[int, _Item]:
        """Return the items of hits by row, all read at once."""
        rows = list({hit.row for hit in hits})
        columns = (self.collection.items[name].iloc[rows] for name in _Item._fields)
        return dict(zip(rows, map(_Item._make, zip(*columns, strict=True)), strict=True))

    def _result(
        self,
        item: _Item,
        hit: Hit,
        rank: int,
        rank_before: int | None = None,
        parts: tuple[Contribution, ...] = (),
        presence: tuple[ConceptPresence, ...] = (),
    ) -> Result:
        return Result(
            id=item.id,
            row=hit.row,
            score=hit.score,
            captions=tuple(item.captions),
            labels=tuple(item.labels),
            contributions=parts,
            rank=rank,
            rank_before=rank_before,
            file=self.collection.file_names[hit.row],
            copies=tuple(map(self._copy, self.copies.of(hit.row))),
            presence=presence,
        )

    def _copy(self, row: int) -> Copy:
        return Copy(self.collection.items["id"].iloc[row], self.collection.file_names[row])
