"""Scores of one query by two methods, which `sieve.model.relevance` can measure.

The baselines are the benchmark's rules over the backbone's dense embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.benchmark.methods import TRAINING_FREE
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.encoder import IMAGE, MODALITIES, TEXT
from sieve.model.engine import Engine
from sieve.model.evaluation.rules import Range, Rule, Space, unit
from sieve.model.exclusion import best, scores
from sieve.model.relevance import mask_zero_scores
from sieve.model.search_results import EncodedQuery

TUNED: Mapping[str, float] = {"subtraction": 0.39}
"""Hyperparameters that tuning chose on scenes and on photographs alike, see README.md; the others
have the start values of the benchmark's tuning."""
_RAW = ("literal", "A only")
"""Methods on the raw embeddings; all others subtract each modality's mean, which tuning preferred
for most."""
_ROWS_AT_ONCE = 8192


class DenseMethod(NamedTuple):
    """Exclusion by the backbone's dense embeddings."""

    name: str
    rule: Rule
    centred: bool
    """Whether each modality's mean is subtracted first."""
    knob: str
    """Name of its hyperparameter; empty if it has none."""
    value: float
    """Default of the hyperparameter."""

    @property
    def range(self) -> Range | None:
        """Range of the hyperparameter, if there is one."""
        return self.rule.hyperparameters.get(self.knob)


def _method(name: str, rule: Rule) -> DenseMethod:
    knob = next(iter(rule.hyperparameters), "")
    value = TUNED.get(name, rule.hyperparameters[knob].start) if knob else 0.0
    return DenseMethod(name, rule, name not in _RAW, knob, value)


DENSE_METHODS: Mapping[str, DenseMethod] = {
    name: _method(name, rule) for name, rule in TRAINING_FREE.items()
}


@dataclass(frozen=True)
class _Embeddings(Space):
    """Embedding space whose memory-mapped images are centred as they are read."""

    centre: np.ndarray | None = None
    """(d,) float32: subtracted from each image, which is then renormalised."""

    def score(self, queries: np.ndarray) -> np.ndarray:
        assert isinstance(self.images, np.ndarray)
        parts = []
        for start in range(0, len(self.images), _ROWS_AT_ONCE):
            block = np.asarray(self.images[start : start + _ROWS_AT_ONCE], np.float32)
            block = unit(block if self.centre is None else block - self.centre)
            parts.append(queries @ block.T)
        return np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)


class QueryEmbeddings(NamedTuple):
    """The backbone's embeddings of a query, not centred."""

    a: np.ndarray
    """(d,) float32: A, a text or an image."""
    b: np.ndarray | None
    """(d,) float32: B; None if nothing is excluded."""
    literal: np.ndarray
    """(d,) float32: the text "A without B"; A itself if it is an image."""
    modality: str
    """A's: `IMAGE` or `TEXT`."""


def embed_query(engine: Engine, query: EncodedQuery) -> QueryEmbeddings:
    """Embed the parts of a query; raise a ValueError without a backbone.

    Parameters
    ----------
    engine : Engine
    query : EncodedQuery
        Query by a text, an item or an image.
    """
    if not engine.can.dense_search:
        raise ValueError("external codes have no embeddings to compare with")
    b = engine.encode_text(query.without).embedding if query.without else None
    if query.item or not query.text:
        return QueryEmbeddings(query.embedding, b, query.embedding, IMAGE)
    return QueryEmbeddings(engine.encode_text(query.text).embedding, b, query.embedding, TEXT)


def dense_scores(
    engine: Engine, embeddings: QueryEmbeddings, method: DenseMethod, knob: float | None = None
) -> np.ndarray:
    """Score every item by the backbone's embeddings.

    Parameters
    ----------
    engine : Engine
    embeddings : QueryEmbeddings
    method : DenseMethod
    knob : float, optional
        Value of the hyperparameter; by default the method's.

    Returns
    -------
    (n,) float32
        -inf for items that a filter leaves out.

    Raises
    ------
    ValueError
        If the hyperparameter is out of range.
    """
    values = _knobs(method, knob)
    space = _space(engine, embeddings, method.centred)
    excludes = embeddings.b is not None
    found = method.rule.scores(space, values) if excludes else method.rule.plain(space)
    return found[0]


def _knobs(method: DenseMethod, knob: float | None) -> dict[str, float]:
    allowed = method.range
    if allowed is None:
        return {}
    value = method.value if knob is None else knob
    if not allowed.low <= value <= allowed.high:
        raise ValueError(
            f"{method.knob} of {method.name} must be from {allowed.low:g} to {allowed.high:g}; "
            f"got {value:g}"
        )
    return {method.knob: value}


def _space(engine: Engine, embeddings: QueryEmbeddings, centred: bool) -> Space:
    a, c = embeddings.a[None], embeddings.literal[None]
    b = np.zeros_like(a) if embeddings.b is None else embeddings.b[None]
    images = engine.collection.image_embeddings
    if not centred:
        return _Embeddings(images, unit(a), unit(b), unit(c))
    centre = engine.checkpoint.encoder.centre.numpy()
    image, text, own = (centre[MODALITIES.index(one)] for one in (IMAGE, TEXT, embeddings.modality))
    b = b if embeddings.b is None else unit(b - text)
    return _Embeddings(images, unit(a - own), b, unit(c - own), centre=image)


def sparse_scores(
    engine: Engine,
    query: EncodedQuery,
    off: tuple[int, ...] | None = None,
    strictness: float = 1.0,
    never: bool = False,
) -> np.ndarray:
    """Score every item by its code, as `Engine.search` does: (n,) float32."""
    return scores(engine.image_codes, engine.question(query, off, strictness, never))


def shown_rows(total: np.ndarray, top: int) -> list[int]:
    """Return the rows that a search shows: the best ones with a nonzero score."""
    return best(mask_zero_scores(total), top).rows.tolist()


def trained_share(checkpoint: Checkpoint, collection: Collection) -> float:
    """Return the share of a collection's items that a checkpoint was trained on, if recorded."""
    trained = checkpoint.trained_items
    shared = sum(item in trained for item in collection.items["id"]) if trained else 0
    return shared / max(collection.n_items, 1)
