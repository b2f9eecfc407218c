"""Exclusion rules: scores of items for the queries A and B in a space.

A rule declares the ranges of its hyperparameters, from which the benchmark samples. Dense rules
move the query in any space of unit vectors. Code rules switch off the dimensions of B; with
non-negative codes they give the same scores as `sieve.model.exclusion`, which a test checks. In a
signed space a dimension belongs to B if |b_j| > ρ|a_j|, and is pushed towards -b_j.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """(w,) float32: mean of texts that say nothing in particular; needed with `ANCHORED`"""

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
    hyperparameters: Mapping[str, Range]
    plain: Callable[[Space], np.ndarray] = lambda space: space.score(space.a)
    """Scores for A without exclusion: (p, n) float32."""
    needs_bank: bool = False
    """Whether the space must have a bank of words and an anchor."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to unit norm; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def _subtract_above(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract similarity to B above a threshold: a·x - λ·max(0, b·x - τ).

    τ is a multiple of the 99% quantile of b·x.
    """
    penalty = _above(space.score(space.b), values["limit"])
    return (space.score(space.a) - values["weight"] * penalty).astype(np.float32)


def _above(similar: np.ndarray, limit: float) -> np.ndarray:
    """Return the part of B's scores above a multiple of their 99% quantile: (p, n)."""
    highest = np.quantile(similar, 0.99, axis=1, keepdims=True)
    return np.maximum(similar - limit * highest, 0).astype(np.float32)


def _standardised(space: Space, queries: np.ndarray) -> np.ndarray:
    return space.item_bias.standardise(space.score(queries))


def _nearest_normalised(
    space: Space, queries: np.ndarray, values: Mapping[str, float]
) -> np.ndarray:
    return space.item_bias.subtract_nearest(
        space.score(queries), values["share"], round(values["nearest"])
    )


def deo_queries(space: Space, start: np.ndarray, values: Mapping[str, float]) -> np.ndarray:
    """Optimise each query by Direct Embedding Optimisation (DEO): (p, w) → (p, w) float32.

        min_u |u - a| + ρ |u - u₀| - λ |u - b|

    by Adam, with u scaled to unit norm after each step (Lee et al. 2026, arXiv 2603.09185,
    taegyeong-lee/DEO-negation-aware-retrieval). There, a language model finds a and b in the query
    u₀; here they are given.
    """
    u = start.astype(np.float64)
    first, second = np.zeros_like(u), np.zeros_like(u)
    for step in range(1, DEO_STEPS + 1):
        gradient = (
            _unit_difference(u, space.a)
            + values["stay"] * _unit_difference(u, start)
            - values["weight"] * _unit_difference(u, space.b)
        )
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        u = u - values["rate"] * (first / (1 - 0.9**step)) / (
            np.sqrt(second / (1 - 0.999**step)) + 1e-8
        )
        u = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-12)
    return u.astype(np.float32)


def _unit_difference(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the gradient of |u - v| in each row; 0 where u = v, as PyTorch does."""
    difference = u - v
    norms = np.linalg.norm(difference, axis=1, keepdims=True)
    return np.where(norms > 0, difference / np.where(norms > 0, norms, 1), 0)


def anchored_queries(space: Space, query: np.ndarray, values: Mapping[str, float]) -> np.ndarray:
    """Project B out of each query, and add an anchor: (p, w) → (p, w) float32.

        u = q - λ (⟨q, b⟩ / ⟨b, b⟩ b - anchor)

    The anchor restores the part that all texts share, which the projection removes ("Seeing What's
    Not There", ICLR 2026, OpenReview Dd86hsSam5).
    """
    assert space.anchor is not None
    along = (query * space.b).sum(1, keepdims=True)
    along /= np.maximum((space.b**2).sum(1, keepdims=True), 1e-12)
    return (query - values["weight"] * (along * space.b - space.anchor)).astype(np.float32)


def _orthogonal(space: Space, _: Mapping[str, float]) -> np.ndarray:
    along = (space.a * space.b).sum(1, keepdims=True)
    return space.score(space.a - along * space.b)


def _filter(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Exclude the items with similarity to B above a quantile."""
    similar = space.score(space.b)
    limit = np.quantile(similar, values["quantile"], axis=1, keepdims=True)
    return np.where(similar > limit, -np.inf, space.score(space.a)).astype(np.float32)


def _spacevlm(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Score by the SpaceVLM direction: sin(α + θ/2) a - sin(α - θ/2) b if θ < 2α, else a.

    For spherical caps of half-angle α = arccos t around a and b, at angle θ, the direction points
    to the middle of the first cap outside the second.
    """
    alpha = np.arccos(values["t"])
    theta = np.arccos(np.clip((space.a * space.b).sum(1, keepdims=True), -1, 1))
    moved = np.sin(alpha + theta / 2) * space.a - np.sin(alpha - theta / 2) * space.b
    return space.score(np.where(theta >= 2 * alpha, space.a, moved))


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


DEO_STEPS = 20
"""Steps of DEO, as in its published experiments; the learning rate is tuned instead."""
_OFF = {"ratio": Range(0.1, 4.0, 1.0, log=True), "floor": Range(0.0, 0.5, 0.0)}
_PUSH = {"push": Range(0.1, 4.0, 1.0, log=True)}

ONLY_A = Rule("only A", lambda space, _: space.score(space.a), {})
LITERAL = Rule("literal", lambda space, _: space.score(space.literal), {})
SUBTRACT = Rule(
    "subtract",
    lambda space, values: space.score(space.a - values["weight"] * space.b),
    {"weight": Range(0.05, 2.0, 0.5)},
)
SUBTRACT_ABOVE = Rule(
    "subtract above a threshold",
    _subtract_above,
    {"weight": Range(0.1, 4.0, 1.0, log=True), "limit": Range(0.0, 0.9, 0.3)},
)
"""Our own baseline; on some collections it is stronger than the published dense rules."""
_HINGE = SUBTRACT_ABOVE.hyperparameters
STANDARDISED = Rule(
    "item-standardised",
    lambda space, values: (
        _standardised(space, space.a) - values["weight"] * _standardised(space, space.b)
    ),
    SUBTRACT.hyperparameters,
    plain=lambda space: _standardised(space, space.a),
    needs_bank=True,
)
STANDARDISED_ABOVE = Rule(
    "item-standardised above a threshold",
    lambda space, values: (
        _standardised(space, space.a)
        - values["weight"] * _above(_standardised(space, space.b), values["limit"])
    ),
    _HINGE,
    plain=STANDARDISED.plain,
    needs_bank=True,
)
_NEAREST = {"share": Range(0.0, 1.5, 0.75), "nearest": Range(1, 256, 128, log=True)}
NEAREST = Rule(
    "NNN",
    lambda space, values: (
        _nearest_normalised(space, space.a, values)
        - values["weight"] * _nearest_normalised(space, space.b, values)
    ),
    {**SUBTRACT.hyperparameters, **_NEAREST},
    needs_bank=True,
)
NEAREST_ABOVE = Rule(
    "NNN above a threshold",
    lambda space, values: (
        _nearest_normalised(space, space.a, values)
        - values["weight"] * _above(_nearest_normalised(space, space.b, values), values["limit"])
    ),
    {**_HINGE, **_NEAREST},
    needs_bank=True,
)
_DEO = {
    "weight": Range(0.1, 3.0, 1.0, log=True),
    "rate": Range(0.002, 0.1, 0.01, log=True),
    "stay": Range(0.0, 1.0, 0.2),
}
DEO = Rule(
    "DEO", lambda space, values: space.score(deo_queries(space, space.literal, values)), _DEO
)
DEO_FROM_A = Rule(
    "DEO from A", lambda space, values: space.score(deo_queries(space, space.a, values)), _DEO
)
ANCHORED = Rule(
    "anchored projection",
    lambda space, values: space.score(anchored_queries(space, space.literal, values)),
    {"weight": Range(0.1, 3.0, 1.0)},
    needs_bank=True,
)
ANCHORED_FROM_A = Rule(
    "anchored projection of A",
    lambda space, values: space.score(anchored_queries(space, space.a, values)),
    ANCHORED.hyperparameters,
    needs_bank=True,
)
ORTHOGONAL = Rule("orthogonal", _orthogonal, {})
FILTER = Rule("filter", _filter, {"quantile": Range(0.4, 0.995, 0.9)})
SPACEVLM = Rule("SpaceVLM", _spacevlm, {"t": Range(-0.5, 0.98, 0.5)})
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

DENSE_RULES = (SUBTRACT, ORTHOGONAL, FILTER, SPACEVLM)
CODE_RULES = (PUSH, FEW, ZERO, NEVER)
