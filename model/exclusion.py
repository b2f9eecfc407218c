r"""Exclusion search over sparse codes, the heart of Sieve.

    score(x) = Σ_{j on} q_j z_xj - s λ Σ_{j off} w_j z_xj

Codes are unit vectors whose norms are taken over all dimensions and do not change when dimensions
are switched, so switching one off and on again is the identity, bit for bit. Each score is a sum of
contributions q_j z_xj, one a dimension: that is the whole explanation of a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sieve.model.codes import SparseCodes

_BLOCK = 256
"""Rows of which the best is looked at first."""
_AHEAD = 8
"""`never` looks at so many times the rows that are wanted before it visits all."""


@dataclass(frozen=True)
class Calibration:
    """How hard off dimensions push, and from where `never` removes. Stored with a checkpoint."""

    push: float = 1.0
    """λ, the weight of the off dimensions at strictness 1."""
    threshold: float = 0.0
    """τ: `never` leaves out every x that has an off dimension above it."""
    proposal_ratio: float = 1.0
    """ρ: "without B" proposes the dimensions with b_j > ρ a_j."""
    proposal_floor: float = 0.0
    """Dimensions weaker than this share of B's strongest are not proposed."""

    def __post_init__(self) -> None:
        for name in ("push", "threshold", "proposal_ratio", "proposal_floor"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}")


@dataclass(frozen=True)
class Query:
    """A code to search with, the dimensions that are off, and how strictly they count."""

    code: np.ndarray
    """q, (m,) float32, non-negative, of unit norm (or all zero)."""
    off: tuple[int, ...] = ()
    """Dimensions switched off, each once."""
    weights: tuple[float, ...] = ()
    """w_j for each dimension in `off`."""
    strictness: float = 1.0
    """s in [0, 1]."""
    never: bool = False
    """Also leave out every row that has an off dimension above the threshold; implies s = 1."""
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        m = len(self.code)
        if len(self.weights) != len(self.off):
            raise ValueError(f"{len(self.off)} dimensions are off, but {len(self.weights)} weights")
        if len(set(self.off)) != len(self.off) or not all(0 <= j < m for j in self.off):
            raise ValueError(f"off must be distinct dimensions in [0, {m}); got {self.off}")
        if not 0 <= self.strictness <= 1:
            raise ValueError(f"strictness must be in [0, 1]; got {self.strictness}")

    @property
    def push(self) -> float:
        """Weight of the off dimensions, s λ."""
        return self.calibration.push * (1.0 if self.never else self.strictness)

    @property
    def factors(self) -> np.ndarray:
        """What each dimension of a row counts: (m,) float32, q_j where it is on, else -s λ w_j."""
        factors = self.code.astype(np.float32)
        factors[list(self.off)] = -np.float32(self.push) * np.array(self.weights, np.float32)
        return factors


class Hits(NamedTuple):
    """Best rows of a search, best first."""

    rows: np.ndarray
    """(h,) int64"""
    scores: np.ndarray
    """(h,) float32"""


class Contributions(NamedTuple):
    """What one row's score is made of."""

    dimensions: np.ndarray
    """(a,) int32: dimensions that the row shares with the query, or that are off."""
    values: np.ndarray
    """(a,) float32: q_j z_xj for dimensions that are on, -s λ w_j z_xj for those that are off."""


def propose_off(
    code: np.ndarray, without: np.ndarray, calibration: Calibration | None = None
) -> np.ndarray:
    """Dimensions that "without B" proposes to switch off, strongest in B first.

    Parameters
    ----------
    code : (m,) float32
        Code of A.
    without : (m,) or (t, m) float32
        Code of B, or of each of several B, whose proposals are united.
    calibration : Calibration, optional

    Returns
    -------
    (p,) int64
    """
    calibration = calibration or Calibration()
    without_tm = np.atleast_2d(without)
    floor_t1 = calibration.proposal_floor * without_tm.max(axis=1, initial=0, keepdims=True)
    is_proposed_tm = (
        (without_tm > calibration.proposal_ratio * code)
        & (without_tm > 0)
        & (without_tm >= floor_t1)
    )
    proposed = np.flatnonzero(is_proposed_tm.any(axis=0))
    strength = without_tm.max(axis=0, initial=0)[proposed]
    return proposed[np.argsort(-strength, kind="stable")]


def off_weights(
    code: np.ndarray, without: np.ndarray, off: np.ndarray, mean_positive: np.ndarray
) -> np.ndarray:
    """How much each off dimension pushes.

    The larger of the query's and B's strength; a dimension that is in neither (switched off from
    its own page) takes its mean positive value.

    Parameters
    ----------
    code, without : (m,) float32
        Codes of A and of B (zeros where there is no B).
    off : (o,) integer
    mean_positive : (m,) float32
        Mean of each dimension over the rows that have it.

    Returns
    -------
    (o,) float32
    """
    off = np.asarray(off, np.int64)
    strength = np.maximum(code[off], without[off])
    return np.where(strength > 0, strength, mean_positive[off]).astype(np.float32)


def scores(codes: SparseCodes, query: Query) -> np.ndarray:
    """Score of every row: (n,) float32; rows that `never` leaves out have -inf.

    Reads only the postings of the query's dimensions and of those that are off.

    Raises
    ------
    ValueError
        If the query is of another width than the codes.
    """
    total = _sums(codes, query)
    if query.never:
        _leave_out(total, codes, query)
    return total


def search(codes: SparseCodes, query: Query, top: int = 24) -> Hits:
    """Best rows for a query; ties go to the smaller row.

    Parameters
    ----------
    codes : SparseCodes
    query : Query
    top : int
        How many rows are wanted; fewer come back where `never` leaves fewer.

    Raises
    ------
    ValueError
        If the query is of another width than the codes.
    """
    total = _sums(codes, query)
    if query.never:
        # What is pushed away seldom stands among the best: there it is cheaper to look whether a
        # row has an off dimension than to visit all rows that have one.
        hits = best(total, _AHEAD * top)
        kept = ~_left_out(codes, query, hits.rows)
        if np.count_nonzero(kept) >= top:
            return Hits(hits.rows[kept][:top], hits.scores[kept][:top])
        _leave_out(total, codes, query)
    return best(total, top)


def _sums(codes: SparseCodes, query: Query) -> np.ndarray:
    """Score every row, also those that `never` leaves out: (n,) float32."""
    if len(query.code) != codes.m:
        raise ValueError(f"the query has {len(query.code)} dimensions, the codes {codes.m}")
    factor = query.factors
    read = np.flatnonzero(factor)
    return np.asarray(codes.by_dimension[:, read] @ factor[read])


def _leave_out(total: np.ndarray, codes: SparseCodes, query: Query) -> None:
    """Set the scores of rows that `never` leaves out to -inf, in place: (n,) float32."""
    for j in query.off:
        rows, values = codes.postings(j)
        total[rows[values > query.calibration.threshold]] = -np.inf


def _left_out(codes: SparseCodes, query: Query, rows: np.ndarray) -> np.ndarray:
    """Tell which of some rows `never` leaves out: (r,) bool."""
    having = codes.by_row[rows][:, list(query.off)] > query.calibration.threshold
    return np.asarray(having.sum(1)).ravel() > 0


def best(total: np.ndarray, top: int) -> Hits:
    """Select the `top` largest finite scores, ties by row.

    Parameters
    ----------
    total : (n,) float32
    top : int
    """
    top = min(max(top, 0), len(total))
    if top == 0:
        return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
    floor = _floor(total, top)
    # Rows that tie with the last place compete by row, so all of them are looked at.
    rows = np.flatnonzero((total >= floor) & (total > -np.inf))
    rows = rows[np.lexsort((rows, -total[rows]))][:top]
    return Hits(rows, total[rows])


def _floor(total: np.ndarray, top: int) -> np.floating:
    """Find a score that at least `top` rows reach, and few more: each block's best is one."""
    whole = len(total) // _BLOCK
    best_of = total[: whole * _BLOCK].reshape(whole, _BLOCK).max(1) if whole >= top else total
    return np.partition(best_of, len(best_of) - top)[len(best_of) - top]


def contributions(codes: SparseCodes, query: Query, row: int) -> Contributions:
    """Take one row's score apart, the largest contribution first.

    Off dimensions that the row does not have are left out; at strictness 0 the others contribute 0.

    Parameters
    ----------
    codes : SparseCodes
    query : Query
    row : int
    """
    dimensions, values = codes.row(row)
    is_off = np.zeros(codes.m, bool)
    is_off[list(query.off)] = True
    part = query.factors[dimensions] * values
    shown = (part != 0) | is_off[dimensions]
    dimensions, part = dimensions[shown], part[shown] + np.float32(0)  # + 0 turns -0.0 into 0.0
    order = np.argsort(-part, kind="stable")
    return Contributions(dimensions[order], part[order])
