"""Exclusion rules: scores of items for the queries A and B in a space.

A rule declares the ranges of its hyperparameters, from which the benchmark samples. The rules here
are Sieve's, and switch off the dimensions of B; with non-negative codes they give the same scores
as `sieve.model.exclusion`, which a test checks. In a signed space a dimension belongs to B if
|b_j| > ρ|a_j|, and is pushed towards -b_j. The rules of the training-free baselines are in
`sieve.model.benchmark.baselines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from sieve.model.exclusion import Calibration, proposal_values, scaled_weights


class ItemBias:
    """Location, scale and highest scores of each item over a bank of queries.

    Parameters
    ----------
    bank_scores : (v, n) float32
        Score of each query of the bank for each item; v must be at least 2.
    """

    def __init__(self, bank_scores: np.ndarray) -> None:
        self._scores = bank_scores

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean score of each item: (n,) float32."""
        return self._scores.mean(0)

    @cached_property
    def deviation(self) -> np.ndarray:
        """Sample standard deviation of the scores of each item: (n,) float32, positive."""
        return np.maximum(self._scores.std(0, ddof=1), np.float32(1e-12))

    @cached_property
    def _mean_of_highest(self) -> np.ndarray:
        """(v, n) float32: row k - 1 has the mean of the k highest scores of each item."""
        highest = -np.sort(-self._scores, axis=0)
        counts = np.arange(1, len(highest) + 1, dtype=np.float32)[:, None]
        return (highest.cumsum(0, dtype=np.float64) / counts).astype(np.float32)

    def standardise(self, scores: np.ndarray) -> np.ndarray:
        """Standardise the scores of each item over the bank, then those of each query over items.

            s'_qx = (s_qx - mean_x) / deviation_x,   s''_qx = (s'_qx - mean_q) / deviation_q

        As SPARC does before it fuses compound prompts (Miller et al., CVPR 2025,
        kjmillerCURIS/SPARC). (q, n) float32 → (q, n) float32; n must be at least 2.
        """
        by_item = (scores - self.mean) / self.deviation
        spread = np.maximum(by_item.std(1, ddof=1, keepdims=True), 1e-12)
        return ((by_item - by_item.mean(1, keepdims=True)) / spread).astype(np.float32)

    def subtract_nearest(self, scores: np.ndarray, weight: float, k: int) -> np.ndarray:
        """Subtract a share of the mean of each item's k highest scores: (q, n) → (q, n) float32.

        Nearest-neighbour normalisation (Chowdhury et al., EMNLP 2024, arXiv 2410.24114). `k` is
        reduced to the size of the bank.
        """
        bias = self._mean_of_highest[min(k, len(self._scores)) - 1]
        return (scores - np.float32(weight) * bias).astype(np.float32)


@dataclass(frozen=True)
class Space:
    """Items and queries in one representation; rows have unit norm or are zero."""

    images: np.ndarray | csr_array
    """(n, w) float32"""
    a: np.ndarray
    """(p, w) float32: A of each pair"""
    b: np.ndarray
    """(p, w) float32: B of each pair"""
    literal: np.ndarray
    """(p, w) float32: the text "A without B" of each pair"""
    evidence: np.ndarray | None = None
    """(p, w) float32: evidence of each dimension for B; see `sieve.model.dimensions.statistics`"""
    concepts: np.ndarray | None = None
    """(w,) int32: concept of each dimension; see `sieve.model.dimensions.concepts`"""
    dictionary: np.ndarray | None = None
    """(w, d) float32: decoder of the codes; needed with `rebuilt`"""
    rebuilt: np.ndarray | None = None
    """(n, d) float32: embeddings that the image codes approximate"""
    bank: np.ndarray | None = None
    """(v, w) float32: queries of a bank of words, from which `item_bias` is estimated"""
    anchor: np.ndarray | None = None
    """(w,) float32: mean of neutral texts"""

    @cached_property
    def item_bias(self) -> ItemBias:
        """Bias of each item over the bank."""
        assert self.bank is not None
        return ItemBias(self.score(self.bank))

    def subset(self, pairs: Sequence[int]) -> Space:
        """Return the queries of some pairs, by index, over the same items."""
        at = list(pairs)
        evidence = None if self.evidence is None else self.evidence[at]
        a, b, literal = (part[at] for part in (self.a, self.b, self.literal))
        return replace(self, a=a, b=b, literal=literal, evidence=evidence)

    def score(self, queries: np.ndarray) -> np.ndarray:
        """Return the inner products with all items: (p, w) → (p, n) float32."""
        return np.ascontiguousarray((self.images @ queries.T).T, np.float32)


class Range(NamedTuple):
    """Range of a hyperparameter."""

    low: float
    high: float
    start: float
    """Value of the first trial."""
    log: bool = False

    def draw(self, generator: np.random.Generator) -> float:
        """Sample a value, uniformly or log-uniformly."""
        if self.log:
            value = np.exp(generator.uniform(np.log(self.low), np.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return round(float(value), 4)


@dataclass(frozen=True)
class Rule:
    """An exclusion rule."""

    name: str
    scores: Callable[[Space, Mapping[str, float]], np.ndarray]
    """Space and hyperparameter values → (p, n) float32; -inf excludes a row."""
    hyperparameters: Mapping[str, Range] = field(default_factory=dict)
    """Range of each hyperparameter, by name."""
    plain: Callable[[Space], np.ndarray] = lambda space: space.score(space.a)
    """Scores for A without exclusion: (p, n) float32."""
    needs_bank: bool = False
    """Whether the space must have a bank of words and an anchor."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to unit norm; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def dimensions_off(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Return the dimensions that "without B" switches off, (p, w) bool.

    See `sieve.model.exclusion.propose_off`.
    """
    calibration = Calibration(
        proposal_ratio=values["ratio"],
        proposal_floor=values.get("floor", Calibration.proposal_floor),
        proposal_limit=round(values.get("limit", 0)),
    )
    return proposal_values(space.a, space.b, calibration, space.evidence, space.concepts) > 0


def _pushed(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Replace the dimensions of B in the queries by -push times their weight: (p, w)."""
    off = dimensions_off(space, values)
    b = scaled_weights(space.b, off)
    weights = np.where(np.abs(b) >= np.abs(space.a), b, space.a)
    return np.where(off, -np.float32(values["push"]) * weights, space.a)


def _push(space: Space, values: Mapping[str, float]) -> np.ndarray:
    return space.score(_pushed(space, values))


def _never(space: Space, values: Mapping[str, float]) -> np.ndarray:
    off = dimensions_off(space, values)
    above = csr_array(space.images)
    above.data = (above.data > values["threshold"]).astype(np.float32)
    has = (above @ off.T.astype(np.float32)).T > 0
    return np.where(has, -np.inf, _push(space, values)).astype(np.float32)


def _rebuild(space: Space, codes: np.ndarray) -> np.ndarray:
    """Decode a query's codes, and score the embeddings with it."""
    assert space.dictionary is not None and space.rebuilt is not None
    return unit(codes @ space.dictionary) @ space.rebuilt.T


_OFF = {"ratio": Range(0.1, 4.0, 1.0, log=True), "floor": Range(0.0, 0.5, 0.0)}
_PUSH = {"push": Range(0.1, 4.0, 1.0, log=True)}

PUSH = Rule("push away", _push, {**_OFF, **_PUSH})
FEW = Rule("push few away", _push, {"ratio": _OFF["ratio"], "limit": Range(1.0, 5.0, 3.0), **_PUSH})
"""As the explorer proposes: the few dimensions with the best evidence."""
SWITCHES = tuple(
    Rule(
        f"{limit} switch{'es' if limit > 1 else ''}",
        lambda space, values, limit=limit: _push(space, {**values, "limit": limit}),
        {"ratio": _OFF["ratio"], **_PUSH},
    )
    for limit in (1, 2, 3)
)
"""Maximum number of concepts, or dimensions of codes without concepts; `PUSH` has none."""
ZERO = Rule("zero", lambda space, values: _push(space, {**values, "push": 0.0}), _OFF)
NEVER = Rule("never", _never, {**_OFF, **_PUSH, "threshold": Range(0.0, 0.4, 0.1)})
"""Excludes by activation; the explorer excludes by `sieve.model.dimensions.presence`."""
EDIT = Rule(
    "edit",
    lambda space, values: _rebuild(space, _pushed(space, values)),
    {**_OFF, "push": Range(0.0, 2.0, 0.0)},
    plain=lambda space: _rebuild(space, space.a),
)
"""Reconstruct A from its concepts without those of B."""

CODE_RULES = (PUSH, FEW, ZERO, NEVER)
