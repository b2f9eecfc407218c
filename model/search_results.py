"""Encoded queries and search results of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class ActiveDimension:
    """A dimension of a query, as listed beside its results."""

    dimension: int
    name: str
    strength: float
    """q_j: activation in A's code."""
    without_strength: float
    """b_j: activation in B's code; 0 if there is no B."""
    proposed_off: bool


@dataclass(frozen=True)
class EncodedQuery:
    """A query's codes and embedding; which dimensions are off is chosen later."""

    text: str
    """A, as typed into the *Find* field; empty for an item or an image."""
    without: str
    """B, as typed into the *without* field: phrases separated by commas."""
    item: str
    code: np.ndarray
    """(m,) float32: A's code."""
    without_code: np.ndarray
    """(m,) float32: B's code, the maximum over its phrases; zeros if there is no B."""
    read_embedding: Callable[[], np.ndarray]
    """Returns `embedding`; an item's is read from a file that most searches do not need."""
    dimensions: tuple[ActiveDimension, ...]
    """Dimensions proposed to be off first, then by activation in A."""
    notes: tuple[str, ...]
    """Notes for the user: unknown words, a split query, a truncated text."""
    excluded: tuple[str, ...] = ()
    """The phrases of B, each encoded separately."""
    suggested: Mapping[str, str] | None = None
    """Another reading of an ambiguous query, as `query` and `without`."""

    @property
    def embedding(self) -> np.ndarray:
        """The backbone's embedding of the whole query: (d,) float32; (0,) without a backbone.

        "A without B" is embedded as that literal text.
        """
        return self.read_embedding()

    @property
    def proposed(self) -> tuple[int, ...]:
        """Dimensions that "without" proposes to switch off."""
        return tuple(d.dimension for d in self.dimensions if d.proposed_off)


@dataclass(frozen=True)
class Contribution:
    """One dimension's part of a score; not positive if the dimension is off."""

    dimension: int
    name: str
    value: float


@dataclass(frozen=True)
class OffDimension:
    """A dimension that is off, with its weight."""

    dimension: int
    name: str
    weight: float


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


def list_active(
    code: np.ndarray, without: np.ndarray, proposed: np.ndarray, names: Callable[[int], str]
) -> tuple[ActiveDimension, ...]:
    """Return the dimensions of A and those that "without B" proposes to switch off, these first.

    Parameters
    ----------
    code, without : (m,) float32
        Codes of A and of B.
    proposed : (p,) int64
        Strongest in B first; see `sieve.model.exclusion.propose_off`.
    names : callable
        Returns a dimension's name.
    """
    off = set(proposed.tolist())
    shown = np.setdiff1d(np.flatnonzero(code), proposed)
    shown = shown[np.argsort(-code[shown], kind="stable")].tolist()
    return tuple(
        ActiveDimension(j, names(j), float(code[j]), float(without[j]), j in off)
        for j in [*proposed.tolist(), *shown]
    )
