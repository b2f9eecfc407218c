"""Exclusion search over sparse codes.

    score(x) = Σ_{j on} q_j z_xj - s λ Σ_{j off} w_j z_xj

Codes are normalised over all dimensions, whether on or off, so switching a dimension off and on
again gives the same scores, bit for bit. Each score is a sum of contributions, one for each
dimension, which explain the result completely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes

NEVER = "never"
PRESENCE_LIMIT = 0.5
"""Default probability from which `never` hides an image: see `sieve.model.dimensions.presence`. The
help of the command line, the API and `sieve.Engine.search` states it."""
MIN_EVIDENCE = 0.6
"""Dimensions with a smaller AUC for B are not proposed; 0.5 is chance."""
MEMBER_SHARE = 0.4
"""Minimum value of a dimension that is proposed with its concept, as a share of its best one."""
_BLOCK = 256
"""Rows in a block, whose best score bounds the scores that are sorted."""
_OVERSAMPLING = 8
"""`never` filters this multiple of the wanted rows first, then this multiple of those."""


RowFilter = Callable[[csr_array, np.ndarray], np.ndarray]
"""Codes of rows, (r, m), and their row numbers, (r,) int64 → which ones are left out, (r,) bool."""


class Strictness(NamedTuple):
    """How strongly off dimensions count, as users choose it."""

    value: float = 1.0
    """s in [0, 1]"""
    never: bool = False
    """Also hide items that probably have something that is off."""
    limit: float = PRESENCE_LIMIT
    """Probability from which `never` hides an item, in (0, 1]."""

    def __str__(self) -> str:
        if not self.never:
            return f"{self.value:g}"
        return NEVER if self.limit == PRESENCE_LIMIT else f"{NEVER}:{self.limit:g}"

    def as_json(self) -> float | str:
        """Return the number, or "never", or "never:0.35" for a limit of 0.35."""
        return str(self) if self.never else self.value


DEFAULT_STRICTNESS = Strictness()


@dataclass(frozen=True)
class Calibration:
    """Weights of exclusion, stored with a checkpoint."""

    push: float = 1.0
    """λ, the weight of the off dimensions at strictness 1."""
    proposal_ratio: float = 1.0
    """ρ: "without B" proposes the dimensions with b_j > ρ a_j."""
    proposal_floor: float = 0.2
    """Minimum value of a proposed concept, as a share of the highest value among all dimensions of
    B, including those that belong to A: see `proposal_values`."""
    proposal_limit: int = 3
    """Maximum number of concepts whose dimensions are proposed for each B; 0: no limit."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}")


@dataclass(frozen=True)
class Query:
    """A query's code with its off dimensions and their weights."""

    code: np.ndarray
    """q: (m,) float32, non-negative, of unit norm or all zero."""
    off: tuple[int, ...] = ()
    """Dimensions switched off, each once."""
    weights: tuple[float, ...] = ()
    """w_j for each dimension in `off`."""
    strictness: float = 1.0
    """s in [0, 1]."""
    hides: RowFilter | None = None
    """Filter of the rows that `never` leaves out; implies s = 1."""
    calibration: Calibration = field(default_factory=Calibration)
    among: np.ndarray | None = None
    """(n,) bool: the rows that may be returned; None for all."""

    def __post_init__(self) -> None:
        assert len(self.weights) == len(self.off) == len(set(self.off))
        assert all(0 <= j < len(self.code) for j in self.off) and 0 <= self.strictness <= 1

    @property
    def never(self) -> bool:
        """Whether rows are left out."""
        return self.hides is not None

    @property
    def push(self) -> float:
        """Weight of the off dimensions: s λ."""
        return self.calibration.push * (1.0 if self.never else self.strictness)

    @property
    def factors(self) -> np.ndarray:
        """Factor of each dimension: (m,) float32, q_j if it is on, else -s λ w_j."""
        factors = self.code.astype(np.float32)
        factors[list(self.off)] = -np.float32(self.push) * np.array(self.weights, np.float32)
        return factors


def never_filter(
    probabilities: Callable[[csr_array, np.ndarray], np.ndarray], limit: float, wanted: np.ndarray
) -> RowFilter:
    """Return the filter of `never`.

    It hides the rows that probably have something that is off, and those that have no dimension of
    A, which would fill the ranking if many are hidden.

    Parameters
    ----------
    probabilities : callable
        Codes of rows, (r, m), and their row numbers → (r, p), the probability of each concept that
        is off: see `sieve.model.dimensions.presence`.
    limit : float
        Probability from which a row is hidden, in (0, 1].
    wanted : (m,) float32
        Code of A without what is off.
    """

    def hides(codes: csr_array, rows: np.ndarray) -> np.ndarray:
        unwanted = np.asarray(codes @ wanted).ravel() == 0
        return (probabilities(codes, rows) >= limit).any(axis=1) | unwanted

    return hides


class Hits(NamedTuple):
    """Best rows of a search, best first."""

    rows: np.ndarray
    """(h,) int64"""
    scores: np.ndarray
    """(h,) float32"""


class Contributions(NamedTuple):
    """Contributions of dimensions to one row's score."""

    dimensions: np.ndarray
    """(a,) int32: dimensions that the row shares with the query, or that are off."""
    values: np.ndarray
    """(a,) float32: q_j z_xj for dimensions that are on, -s λ w_j z_xj for those that are off."""


class Proposal(NamedTuple):
    """Dimensions that "without B" proposes to switch off."""

    off: np.ndarray
    """(p,) int64, the highest value first"""
    weights: np.ndarray
    """(t, m) float32: activations of each B; those of its proposed dimensions have a norm of its
    strength"""


def propose_off(
    code: np.ndarray,
    without: np.ndarray,
    calibration: Calibration | None = None,
    evidence: np.ndarray | None = None,
    concepts: np.ndarray | None = None,
    strengths: np.ndarray | None = None,
    whole: np.ndarray | None = None,
) -> Proposal:
    """Return the dimensions that "without B" proposes to switch off, and their weights.

    Parameters
    ----------
    code : (m,) float32
        Code of A.
    without : (m,) or (t, m) float32
        Code of B, or of each of several B, whose proposals are united.
    evidence : (m,) or (t, m) float32, optional
        AUC with which each dimension separates the images of each B from all others: see
        `sieve.model.dimensions.statistics`.
    concepts : (m,) int32, optional
        A number for the concept of each dimension; by default each is its own.
    strengths : (t,) float, optional
        Factor of the weights of each B, by default 1.
    whole : (t,) bool, optional
        Which B propose all their dimensions, because they name them.
    """
    without_tm = np.atleast_2d(without)
    evidence_tm = None if evidence is None else np.atleast_2d(evidence)
    calibration = calibration or Calibration()
    value_tm = proposal_values(code, without_tm, calibration, evidence_tm, concepts)
    if whole is not None:
        value_tm = np.where(whole[:, None], np.abs(without_tm), value_tm)
    weights_tm = scaled_weights(without_tm, value_tm > 0)
    if strengths is not None:
        weights_tm *= np.asarray(strengths, np.float32)[:, None]
    value = value_tm.max(axis=0, initial=0)
    proposed = np.flatnonzero(value)
    off = proposed[np.argsort(-value[proposed], kind="stable")]
    return Proposal(off, weights_tm)


def proposal_values(
    code: np.ndarray,
    without: np.ndarray,
    calibration: Calibration,
    evidence: np.ndarray | None = None,
    concepts: np.ndarray | None = None,
) -> np.ndarray:
    """Return the value of proposing each dimension for each B: (t, m) float32, 0 if not proposed.

    The value is √b (2 AUC - 1)², with b the activation in B and AUC the evidence, or b without
    evidence. The value of a concept is that of its best dimension. The concepts with the highest
    values are proposed, each with its dimensions that have b_j > ρ a_j, evidence, and at least
    `MEMBER_SHARE` of the best one's value.

    Parameters
    ----------
    code : (m,) or (t, m) float32
        Code of A, or A of each B. In a signed space, magnitudes count.
    without : (t, m) float32
        Codes of B.
    calibration : Calibration
    evidence : (t, m) float32, optional
    concepts : (m,) int32, optional
        A number for the concept of each dimension; by default each is its own.
    """
    a, b = np.abs(code), np.abs(without)
    value = b
    if evidence is not None:
        value = np.where(evidence > MIN_EVIDENCE, np.sqrt(b) * (2 * evidence - 1) ** 2, 0)
    floor = np.float32(calibration.proposal_floor) * value.max(axis=1, initial=0, keepdims=True)
    value = np.where(b > np.float32(calibration.proposal_ratio) * a, value, 0)
    best, column = value, np.arange(value.shape[1])
    if concepts is not None:
        _, column = np.unique(concepts, return_inverse=True)
        best = _largest_of_concepts(value, column)
    best = np.where(best >= floor, best, 0)
    limit = calibration.proposal_limit
    if limit and limit < best.shape[1]:
        least = -np.partition(-best, limit - 1, axis=1)[:, limit - 1 : limit]
        best = np.where(best >= least, best, 0)
    best = best[:, column]
    kept = (best > 0) & (value >= np.float32(MEMBER_SHARE) * best)
    return np.where(kept, value, 0).astype(np.float32)


def _largest_of_concepts(value: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the largest value of each concept: (t, m) → (t, c), for the columns (m,) in [0, c)."""
    order = np.argsort(column, kind="stable")
    starts = np.unique(column[order], return_index=True)[1]
    return np.maximum.reduceat(value[:, order], starts, axis=1)


def scaled_weights(without: np.ndarray, proposed: np.ndarray) -> np.ndarray:
    """Scale each B so that its proposed dimensions have unit norm: (t, m) → (t, m) float32.

    A few dimensions then lower the scores of B's items as much as many would.
    """
    norms = np.linalg.norm(np.where(proposed, without, 0), axis=1, keepdims=True)
    return (without / np.where(norms > 0, norms, 1)).astype(np.float32)


def off_weights(
    code: np.ndarray, without: np.ndarray, off: ArrayLike, mean_positive: np.ndarray
) -> np.ndarray:
    """Return the weight of each off dimension, (o,) integer → (o,) float32.

    It is the larger of A's activation and B's weight. A dimension that neither has (one switched
    off on its own page) gets its mean positive activation.

    Parameters
    ----------
    code : (m,) float32
        Code of A.
    without : (m,) or (t, m) float32
        Weights of B, or of each B: see `Proposal`; zeros, or no row, if there is no B.
    mean_positive : (m,) float32
        Each dimension's mean over the rows that have it.
    """
    off = np.asarray(off, np.int64)
    strength = np.maximum(code[off], np.atleast_2d(without)[:, off].max(axis=0, initial=0))
    return np.where(strength > 0, strength, mean_positive[off]).astype(np.float32)


def scores(codes: SparseCodes, query: Query) -> np.ndarray:
    """Return the score of every row: (n,) float32; -inf for rows that are left out.

    Reads only the postings of the query's dimensions and of those that are off. Raises a ValueError
    if the query's width differs from the codes'.
    """
    total = _sums(codes, query)
    if query.hides is not None:
        total[query.hides(codes.by_row, np.arange(codes.n))] = -np.inf
    return total


def search(codes: SparseCodes, query: Query, top: int = 24) -> Hits:
    """Return the best rows for a query; ties by row; fewer than `top` if fewer are left.

    Raises a ValueError if the query's width differs from the codes'.
    """
    total = _sums(codes, query)
    if query.hides is None:
        return best(total, top)
    # Few of the best rows are left out, as off dimensions lower their scores.
    wanted = _OVERSAMPLING * top
    while True:
        hits = best(total, wanted)
        shown = ~query.hides(csr_array(codes.by_row[hits.rows]), hits.rows)
        if np.count_nonzero(shown) >= top or len(hits.rows) < wanted:
            return Hits(hits.rows[shown][:top], hits.scores[shown][:top])
        wanted *= _OVERSAMPLING


def _sums(codes: SparseCodes, query: Query) -> np.ndarray:
    """Return the score of every row without regard to `never`: (n,) float32, -inf if filtered."""
    factors = query.factors
    active = np.flatnonzero(factors)
    total = np.asarray(codes.by_dimension[:, active] @ factors[active])
    if query.among is not None:
        total[~query.among] = -np.inf
    return total


def best(total: np.ndarray, top: int) -> Hits:
    """Return the rows of the `top` largest finite scores, of (n,) float32; ties by row."""
    top = min(max(top, 0), len(total))
    if top == 0:
        return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
    floor = _floor(total, top)
    # All rows that tie with the last one are sorted, so that ties are broken by row.
    rows = np.flatnonzero((total >= floor) & (total > -np.inf))
    rows = rows[np.lexsort((rows, -total[rows]))][:top]
    return Hits(rows, total[rows])


def _floor(total: np.ndarray, top: int) -> np.floating:
    """Return a score that at least `top` rows reach, and few more, from the blocks' maxima."""
    whole = len(total) // _BLOCK
    best_of = total[: whole * _BLOCK].reshape(whole, _BLOCK).max(1) if whole >= top else total
    return np.partition(best_of, len(best_of) - top)[len(best_of) - top]


def contributions(codes: SparseCodes, query: Query, row: int) -> Contributions:
    """Return the contributions of dimensions to one row's score, the largest first.

    Off dimensions are included if the row has them, even with 0 at strictness 0.
    """
    dimensions, values = codes.row(row)
    is_off = np.zeros(codes.m, bool)
    is_off[list(query.off)] = True
    part = query.factors[dimensions] * values
    shown = (part != 0) | is_off[dimensions]
    dimensions, part = dimensions[shown], part[shown] + np.float32(0)  # + 0 turns -0.0 into 0.0
    order = np.argsort(-part, kind="stable")
    return Contributions(dimensions[order], part[order])
