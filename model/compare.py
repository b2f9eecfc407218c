"""One question answered by two methods; `sieve.model.relevance` measures them.

The peers are the benchmark's own rules over the backbone's embeddings, one question at a time.
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
from sieve.model.relevance import found_only
from sieve.model.search_results import EncodedQuery

TUNED: Mapping[str, float] = {"subtraction": 0.39}
"""Knobs that tuning chose alike on scenes and on photographs, in the tables of README.md; the
others start as the benchmark's trials do."""
_RAW = ("literal", "A only")
"""Asked in the embeddings as they are; all others go without the mean of their modality, which
tuning preferred for most."""
_ROWS_AT_ONCE = 8192


class DenseMethod(NamedTuple):
    """A way to exclude with the backbone's embeddings alone."""

    name: str
    rule: Rule
    centred: bool
    """Whether each modality's mean is taken off first."""
    knob: str
    """Name of its one knob; empty where there is none."""
    value: float
    """What the knob is set to, where nobody says."""

    @property
    def range(self) -> Range | None:
        """What the knob may be set to."""
        return self.rule.knobs.get(self.knob)


def _method(name: str, rule: Rule) -> DenseMethod:
    knob = next(iter(rule.knobs), "")
    value = TUNED.get(name, rule.knobs[knob].start) if knob else 0.0
    return DenseMethod(name, rule, name not in _RAW, knob, value)


DENSE_METHODS: Mapping[str, DenseMethod] = {
    name: _method(name, rule) for name, rule in TRAINING_FREE.items()
}


@dataclass(frozen=True)
class _Embeddings(Space):
    """A space whose images stay on the disk, and are centred as they are read."""

    centre: np.ndarray | None = None
    """(d,) float32: taken off each image, which is then renormalised."""

    def score(self, queries: np.ndarray) -> np.ndarray:
        assert isinstance(self.images, np.ndarray)
        parts = []
        for start in range(0, len(self.images), _ROWS_AT_ONCE):
            block = np.asarray(self.images[start : start + _ROWS_AT_ONCE], np.float32)
            block = unit(block if self.centre is None else block - self.centre)
            parts.append(queries @ block.T)
        return np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)


class Asked(NamedTuple):
    """A question as the backbone embeds it, not centred."""

    a: np.ndarray
    """(d,) float32: A, a text or an image."""
    b: np.ndarray | None
    """(d,) float32: B; None where nothing is excluded."""
    literal: np.ndarray
    """(d,) float32: "A without B" in these words; A itself where it is an image."""
    modality: str
    """A's: `IMAGE` or `TEXT`."""


def embed_question(engine: Engine, query: EncodedQuery) -> Asked:
    """Embed a question's parts; ValueError where there is no backbone.

    Parameters
    ----------
    engine : Engine
    query : EncodedQuery
        Of a text, an item or an image.
    """
    if not engine.can.dense_search:
        raise ValueError("these codes were made elsewhere: there are no embeddings to compare with")
    b = engine.encode_text(query.without).embedding if query.without else None
    if query.item or not query.text:
        return Asked(query.embedding, b, query.embedding, IMAGE)
    return Asked(engine.encode_text(query.text).embedding, b, query.embedding, TEXT)


def dense_scores(
    engine: Engine, asked: Asked, method: DenseMethod, knob: float | None = None
) -> np.ndarray:
    """Score every item by the backbone's embeddings.

    Parameters
    ----------
    engine : Engine
    asked : Asked
    method : DenseMethod
    knob : float, optional
        By default the method's own value.

    Returns
    -------
    (n,) float32
        -inf for what a filter leaves out.

    Raises
    ------
    ValueError
        If the knob is out of range.
    """
    values = _knobs(method, knob)
    space = _space(engine, asked, method.centred)
    excludes = asked.b is not None
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


def _space(engine: Engine, asked: Asked, centred: bool) -> Space:
    a, c = asked.a[None], asked.literal[None]
    b = np.zeros_like(a) if asked.b is None else asked.b[None]
    images = engine.collection.image_embeddings
    if not centred:
        return _Embeddings(images, unit(a), unit(b), unit(c))
    centre = engine.checkpoint.encoder.centre.numpy()
    image, text, own = (centre[MODALITIES.index(one)] for one in (IMAGE, TEXT, asked.modality))
    b = b if asked.b is None else unit(b - text)
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
    """Rows that a search shows: the best, without those that score 0 and so share nothing."""
    return best(found_only(total), top).rows.tolist()


def trained_share(checkpoint: Checkpoint, collection: Collection) -> float:
    """Share of a collection's items that a checkpoint was trained on, as far as it says."""
    trained = checkpoint.trained_items
    shared = sum(item in trained for item in collection.items["id"]) if trained else 0
    return shared / max(collection.n_items, 1)
