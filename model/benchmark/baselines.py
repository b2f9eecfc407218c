"""Training-free baselines of the exclusion benchmark: their scores, hyperparameters and registry.

A baseline scores items for the queries A and B in a `Space` of unit vectors, such as the embeddings
of a backbone. To add one, write a function of a space and hyperparameter values that returns
scores, (p, n) float32, and add an entry to `TRAINING_FREE`. The benchmark tunes each baseline with
as many trials as any other method, and *Compare* offers it unless it needs a bank of words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sieve.model.evaluation.rules import Range, Rule, Space


def only_a(space: Space, _: Mapping[str, float]) -> np.ndarray:
    """Ignore B."""
    return space.score(space.a)


def literal(space: Space, _: Mapping[str, float]) -> np.ndarray:
    """Search for the text "A without B"."""
    return space.score(space.literal)


def subtract(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract B from the query: (a - λ b)·x."""
    return space.score(space.a - values["weight"] * space.b)


def subtract_above(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract similarity to B above a threshold: a·x - λ max(0, b·x - τ).

    τ is a multiple of the 99% quantile of b·x. This is our own baseline; on some collections it is
    stronger than the published rules.
    """
    penalty = _above(space.score(space.b), values["limit"])
    return (space.score(space.a) - values["weight"] * penalty).astype(np.float32)


def _above(similar: np.ndarray, limit: float) -> np.ndarray:
    """Return the part of B's scores above a multiple of their 99% quantile: (p, n)."""
    highest = np.quantile(similar, 0.99, axis=1, keepdims=True)
    return np.maximum(similar - limit * highest, 0).astype(np.float32)


def orthogonal(space: Space, _: Mapping[str, float]) -> np.ndarray:
    """Project B out of A: (a - ⟨a, b⟩ b)·x."""
    along = (space.a * space.b).sum(1, keepdims=True)
    return space.score(space.a - along * space.b)


def exclude_similar(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Exclude the items with similarity to B above a quantile."""
    similar = space.score(space.b)
    limit = np.quantile(similar, values["quantile"], axis=1, keepdims=True)
    return np.where(similar > limit, -np.inf, space.score(space.a)).astype(np.float32)


def spacevlm(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Score by the SpaceVLM direction: sin(α + θ/2) a - sin(α - θ/2) b if θ < 2α, else a.

    For spherical caps of half-angle α = arccos t around a and b, at angle θ, the direction points
    to the middle of the first cap outside the second (sepehrkr/SpaceVLM).
    """
    alpha = np.arccos(values["t"])
    theta = np.arccos(np.clip((space.a * space.b).sum(1, keepdims=True), -1, 1))
    moved = np.sin(alpha + theta / 2) * space.a - np.sin(alpha - theta / 2) * space.b
    return space.score(np.where(theta >= 2 * alpha, space.a, moved))


DEO_STEPS = 20
"""Steps of DEO, as in its published experiments; the learning rate is tuned instead."""


def deo(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Score by the literal query after Direct Embedding Optimisation: see `deo_queries`."""
    return space.score(deo_queries(space, space.literal, values))


def deo_from_a(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Score by A after Direct Embedding Optimisation: see `deo_queries`."""
    return space.score(deo_queries(space, space.a, values))


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


NEUTRAL = ("a photo", "a picture", "an image", "a scene", "something")
"""Texts without content, whose mean is the anchor of a projection. The paper names two of its
words, "neutral" and "balanced", which small vocabularies lack."""


def anchored(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Score by the anchored projection of the literal query: see `anchored_queries`."""
    return space.score(anchored_queries(space, space.literal, values))


def anchored_from_a(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Score by the anchored projection of A: see `anchored_queries`."""
    return space.score(anchored_queries(space, space.a, values))


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


def standardised(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract scores of B after standardising all by item: see `ItemBias.standardise`."""
    return standardised_a(space) - values["weight"] * _standardise(space, space.b)


def standardised_above(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract item-standardised scores of B above a threshold, as `subtract_above` does."""
    penalty = _above(_standardise(space, space.b), values["limit"])
    return standardised_a(space) - values["weight"] * penalty


def standardised_a(space: Space) -> np.ndarray:
    """Return the item-standardised scores for A, without exclusion."""
    return _standardise(space, space.a)


def _standardise(space: Space, queries: np.ndarray) -> np.ndarray:
    return space.item_bias.standardise(space.score(queries))


def nearest_neighbour(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract scores of B after correcting all by item: see `ItemBias.subtract_nearest`."""
    a, b = (_subtract_nearest(space, queries, values) for queries in (space.a, space.b))
    return a - values["weight"] * b


def nearest_neighbour_above(space: Space, values: Mapping[str, float]) -> np.ndarray:
    """Subtract corrected scores of B above a threshold, as `subtract_above` does."""
    a, b = (_subtract_nearest(space, queries, values) for queries in (space.a, space.b))
    return a - values["weight"] * _above(b, values["limit"])


def _subtract_nearest(space: Space, queries: np.ndarray, values: Mapping[str, float]) -> np.ndarray:
    return space.item_bias.subtract_nearest(
        space.score(queries), values["share"], round(values["nearest"])
    )


SPLICE_WEIGHTS = (0.05, 0.1, 0.2)
"""λ of SpLiCE, for about 30 to about 10 active concepts."""


def decompose(
    embeddings: np.ndarray, dictionary: np.ndarray, weight: float, iterations: int = 100
) -> np.ndarray:
    """Decompose embeddings into concepts by SpLiCE (Bhalla et al. 2024, arXiv 2402.10376).

        min_w ½ |Cᵀ w - x|² + λ |w|₁, w ≥ 0

    with the rows of C the embeddings of words, centred on the text mean, and x centred on the mean
    of its modality; both have unit rows. Solved by ADMM; (C Cᵀ + ρ I)⁻¹ is applied in its d × d
    Woodbury form, which is cheap for many words. A larger λ gives fewer active concepts.
    (n, d), (v, d) → (n, v) float32, non-negative.

    Queries are decomposed like images, and the codes are scored by the rules for codes.
    """
    rho = np.float32(1.0)
    # (C Cᵀ + ρI)⁻¹ = (I - C (ρI + CᵀC)⁻¹ Cᵀ) / ρ
    inner = rho * np.eye(dictionary.shape[1]) + dictionary.T.astype(np.float64) @ dictionary
    back = np.linalg.solve(inner, dictionary.T).astype(np.float32)
    target = embeddings @ dictionary.T
    codes = np.zeros_like(target)
    dual = np.zeros_like(target)
    for _ in range(iterations):
        right = target + rho * (codes - dual)
        plain = (right - (right @ dictionary) @ back) / rho
        codes = np.maximum(plain + dual - weight / rho, 0)
        dual += plain - codes
    return codes.astype(np.float32)


@dataclass(frozen=True)
class Baseline:
    """A training-free baseline."""

    rule: Rule
    """The rule that *Compare* uses."""
    description: str = ""
    """How *Compare* describes it, by default with its name and first hyperparameter; `{value}` is
    that hyperparameter, and `{rest}` is 1 - value in percent."""
    alternatives: tuple[Rule, ...] = ()
    """Rules that tuning may choose instead of `rule`."""
    variants: tuple[Rule, ...] = ()
    """Rules that are also tuned and reported separately."""
    centred: bool = True
    """Whether each modality's mean may be subtracted. Tuning tries both; *Compare* subtracts it,
    which tuning preferred for most baselines."""

    @property
    def with_variants(self) -> tuple[Rule, ...]:
        """The rule and its variants."""
        return (self.rule, *self.variants)


_WEIGHT = {"weight": Range(0.05, 2.0, 0.5)}
_HINGE = {"weight": Range(0.1, 4.0, 1.0, log=True), "limit": Range(0.0, 0.9, 0.3)}
_DEO = {
    "weight": Range(0.1, 3.0, 1.0, log=True),
    "rate": Range(0.002, 0.1, 0.01, log=True),
    "stay": Range(0.0, 1.0, 0.2),
}
_ANCHORED = {"weight": Range(0.1, 3.0, 1.0)}
_NEAREST = {"share": Range(0.0, 1.5, 0.75), "nearest": Range(1, 256, 128, log=True)}

TRAINING_FREE: Mapping[str, Baseline] = {
    "A only": Baseline(
        Rule("only A", only_a), "embedding of A; nothing is excluded", centred=False
    ),
    "literal": Baseline(
        Rule("literal", literal), "embedding of “A without B” as plain text", centred=False
    ),
    "subtraction": Baseline(
        Rule("subtract", subtract, _WEIGHT),
        "centred embeddings: A − {value} B",
        variants=(Rule("subtract above a threshold", subtract_above, _HINGE),),
    ),
    "orthogonal": Baseline(
        Rule("orthogonal", orthogonal), "centred embeddings: A without its component along B"
    ),
    "filter": Baseline(
        Rule("filter", exclude_similar, {"quantile": Range(0.4, 0.995, 0.9)}),
        "centred embeddings: A, without the {rest} of images closest to B",
    ),
    "SpaceVLM": Baseline(
        Rule("SpaceVLM", spacevlm, {"t": Range(-0.5, 0.98, 0.5)}),
        "centred embeddings: direction of SpaceVLM, t = {value}",
    ),
    "DEO": Baseline(
        Rule("DEO", deo, _DEO),
        alternatives=(Rule("DEO from A", deo_from_a, _DEO),),
    ),
    "anchored projection": Baseline(
        Rule("anchored projection", anchored, _ANCHORED, needs_bank=True),
        alternatives=(
            Rule("anchored projection of A", anchored_from_a, _ANCHORED, needs_bank=True),
        ),
    ),
    "item-standardised": Baseline(
        Rule("item-standardised", standardised, _WEIGHT, standardised_a, needs_bank=True),
        variants=(
            Rule(
                "item-standardised above a threshold",
                standardised_above,
                _HINGE,
                standardised_a,
                needs_bank=True,
            ),
        ),
    ),
    "NNN": Baseline(
        Rule("NNN", nearest_neighbour, {**_WEIGHT, **_NEAREST}, needs_bank=True),
        variants=(
            Rule(
                "NNN above a threshold",
                nearest_neighbour_above,
                {**_HINGE, **_NEAREST},
                needs_bank=True,
            ),
        ),
    ),
}
"""The training-free baselines, in the order of tables. Names are those of `sieve evaluate
--methods`; SpLiCE, which needs no training either, is made by `sieve.model.benchmark.methods`."""

DENSE_RULES = tuple(
    TRAINING_FREE[name].rule for name in ("subtraction", "orthogonal", "filter", "SpaceVLM")
)
"""Rules that other dense spaces use too: those of another backbone and of the dense control."""
