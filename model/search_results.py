"""What an engine answers with: encoded queries, results and what earned them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.query_parser import ParsedQuery


@dataclass(frozen=True)
class ActiveDimension:
    """One row of a query's dimension list."""

    dimension: int
    name: str
    strength: float
    """q_j: how strongly A has it."""
    without_strength: float
    """b_j: how strongly B has it; 0 where there is no B."""
    proposed_off: bool


@dataclass(frozen=True)
class EncodedQuery:
    """A query as codes and embeddings; what is on or off comes on top."""

    text: str
    """A as the *Find* field takes it; empty for an item or an image."""
    without: str
    """B as the *without* field takes it: several phrases with commas."""
    item: str
    code: np.ndarray
    """(m,) float32: A's code."""
    without_code: np.ndarray
    """(m,) float32: B's code, the maximum over several phrases; zeros if there is no B."""
    read_embedding: Callable[[], np.ndarray]
    """Gives `embedding`: an item's lies in a file that most searches need not read."""
    dimensions: tuple[ActiveDimension, ...]
    """Proposed-off ones first, then by strength in A."""
    notes: tuple[str, ...]
    """Notes for the user: unknown words, a split query, a truncated text."""
    excluded: tuple[str, ...] = ()
    """The phrases of B, each encoded by itself."""
    suggestion: ParsedQuery | None = None
    """Another reading of an ambiguous query."""

    @property
    def embedding(self) -> np.ndarray:
        """Read what the backbone alone makes of the whole question: (d,) or (0,) float32.

        A question "A without B" is read as that text; (0,) where there is no backbone.
        """
        return self.read_embedding()

    @property
    def suggested(self) -> dict[str, str] | None:
        """Another reading of an ambiguous query as `query` and `without`, or None."""
        if self.suggestion is None:
            return None
        return {"query": self.suggestion.find_field, "without": self.suggestion.without_field}

    @property
    def proposed(self) -> tuple[int, ...]:
        """Dimensions that "without" proposes to switch off."""
        return tuple(d.dimension for d in self.dimensions if d.proposed_off)


@dataclass(frozen=True)
class Contribution:
    """One dimension's part in a score; negative where the dimension is off and pushes away."""

    dimension: int
    name: str
    value: float


@dataclass(frozen=True)
class OffDimension:
    """A dimension that is off, and how much it pushes."""

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
    """Rank with every dimension on; None where it was not among the top."""
    file: str
    """Name of its original inside the source: see `Collection.file_names`."""
    copies: tuple[Copy, ...] = ()
    """Other items that show the same picture and are folded into this result."""


@dataclass(frozen=True)
class SearchOutcome:
    """Results with what is off, and what that changed."""

    off: tuple[OffDimension, ...]
    results: tuple[Result, ...]
    left: tuple[Result, ...]
    """Items of the top with every dimension on that are no longer there, by their rank then."""
    seconds: float
    """Time of the search itself, without encoding."""
    all_off: bool = False
    """Whether every dimension of the query is off, so that nothing was searched for."""


def list_active(
    code: np.ndarray, without: np.ndarray, proposed: np.ndarray, names: Callable[[int], str]
) -> tuple[ActiveDimension, ...]:
    """List the dimensions of A and those that "without B" proposes to switch off, these first.

    Parameters
    ----------
    code, without : (m,) float32
        Codes of A and of B.
    proposed : (p,) int64
        Strongest in B first; see `sieve.model.exclusion.propose_off`.
    names : callable
        Gives a dimension's name.
    """
    off = set(proposed.tolist())
    shown = np.setdiff1d(np.flatnonzero(code), proposed)
    shown = shown[np.argsort(-code[shown], kind="stable")].tolist()
    return tuple(
        ActiveDimension(j, names(j), float(code[j]), float(without[j]), j in off)
        for j in [*proposed.tolist(), *shown]
    )
