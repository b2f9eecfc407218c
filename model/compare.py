"""Comparison of methods on one query: scores by baselines, relevance judgments and metrics.

The baselines are those of `sieve.model.benchmark.baselines` on the backbone's embeddings, and the
metrics are the benchmark's, over all items of the collection. The benchmark itself is stricter: it
uses only items that were not used for training, and hyperparameters tuned on other items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sieve.model.benchmark.baselines import TRAINING_FREE, Baseline
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.encoded_query import EncodedQuery, sum_embeddings
from sieve.model.engine import SearchEngine
from sieve.model.evaluation.metrics import TOP, average_precision, marks_of, ranked_rows
from sieve.model.evaluation.pairs import (
    JudgedConcepts,
    PairCriteria,
    TrackName,
    track_concepts,
)
from sieve.model.evaluation.rules import Range, Rule, Space, unit
from sieve.model.exclusion import DEFAULT_STRICTNESS, Strictness, best, scores
from sieve.model.hyperparameters import IMAGE, MODALITIES, TEXT
from sieve.model.words.nouns import NounTable, bare_phrase, benchmark_nouns
from sieve.model.words.text import lemma

TUNED: Mapping[str, float] = {"subtraction": 0.39}
"""Hyperparameters that tuning chose on scenes and on photographs alike, see README.md; the others
have the start values of the benchmark's tuning."""
_ROWS_AT_ONCE = 8192


class DenseMethod(NamedTuple):
    """Exclusion by the backbone's dense embeddings."""

    name: str
    rule: Rule
    centred: bool
    """Whether each modality's mean is subtracted first."""
    hyperparameter: str
    """Name of its hyperparameter; empty if it has none."""
    value: float
    """Default of the hyperparameter."""
    description: str
    """See `Baseline.description`."""

    @property
    def range(self) -> Range | None:
        """Range of the hyperparameter, if there is one."""
        return self.rule.hyperparameters.get(self.hyperparameter)


def _method(name: str, baseline: Baseline) -> DenseMethod:
    rule = baseline.rule
    first = next(iter(rule.hyperparameters), "")
    value = TUNED.get(name, rule.hyperparameters[first].start) if first else 0.0
    return DenseMethod(name, rule, baseline.centred, first, value, baseline.description)


DENSE_METHODS = {
    name: _method(name, baseline)
    for name, baseline in TRAINING_FREE.items()
    if not baseline.rule.needs_bank
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


def embed_query(engine: SearchEngine, query: EncodedQuery) -> QueryEmbeddings:
    """Embed the parts of a query; raise a ValueError without a backbone."""
    if not engine.can.dense_search:
        raise ValueError("external codes have no embeddings to compare with")
    find = [one for one in query.terms if not one.excluded]
    excluded = [one for one in query.terms if one.excluded]
    if all(one.term.is_plain for one in excluded):
        b = engine.encode_text(query.without).embedding if query.without else None
    else:
        b = -sum_embeddings(excluded)
    is_image = all(one.term.kind in ("item", "image") for one in find)
    a = find[0].read_embedding() if len(find) == 1 else sum_embeddings(find)
    return QueryEmbeddings(a, b, query.embedding, IMAGE if is_image else TEXT)


def dense_scores(
    engine: SearchEngine,
    embeddings: QueryEmbeddings,
    method: DenseMethod,
    value: float | None = None,
) -> np.ndarray:
    """Score every item by the backbone's embeddings: (n,) float32, -inf for filtered items.

    `value` is that of the hyperparameter, by default the method's. Raises a ValueError if it is out
    of range.
    """
    values = {name: allowed.start for name, allowed in method.rule.hyperparameters.items()}
    allowed = method.range
    if allowed is not None:
        value = method.value if value is None else value
        if not allowed.low <= value <= allowed.high:
            raise ValueError(
                f"{method.hyperparameter} of {method.name} must be from {allowed.low:g} to "
                f"{allowed.high:g}; got {value:g}"
            )
        values[method.hyperparameter] = value
    space, rule = _space(engine, embeddings, method.centred), method.rule
    return (rule.plain(space) if embeddings.b is None else rule.scores(space, values))[0]


def _space(engine: SearchEngine, embeddings: QueryEmbeddings, centred: bool) -> Space:
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
    engine: SearchEngine,
    query: EncodedQuery,
    off: tuple[int, ...] | None = None,
    strictness: Strictness = DEFAULT_STRICTNESS,
) -> np.ndarray:
    """Score every item by its code, as `SearchEngine.search` does: (n,) float32."""
    return scores(engine.image_codes, engine.question(query, off, strictness))


def shown_rows(total: np.ndarray, top: int) -> list[int]:
    """Return the rows that a search shows: the best ones with a nonzero score."""
    return best(mask_zero_scores(total), top).rows.tolist()


def trained_share(checkpoint: Checkpoint, collection: Collection) -> float:
    """Return the share of a collection's items that a checkpoint was trained on, if recorded."""
    trained = checkpoint.trained_items
    shared = sum(item in trained for item in collection.items["id"]) if trained else 0
    return shared / max(collection.n_items, 1)


@dataclass(frozen=True)
class Relevance:
    """Relevance judgments of "A without B", by labels or by captions."""

    track: TrackName
    a: str
    b: str
    """Empty if nothing is excluded."""
    relevant: np.ndarray
    """(n,) bool: has A and not B."""
    violating: np.ndarray
    """(n,) bool: has both."""

    def without_row(self, row: int) -> Relevance:
        """Leave out one item, such as the query's own, which is not returned."""
        others = np.arange(len(self.relevant)) != row
        return self.among(others)

    def among(self, items: np.ndarray) -> Relevance:
        """Keep only the judgments of some items, (n,) bool."""
        return replace(self, relevant=self.relevant & items, violating=self.violating & items)


class Measures(NamedTuple):
    """Metrics of one ranking, in [0, 1]."""

    ap: float
    """AP@10"""
    precision: float
    """P@10"""
    violation: float
    """violation@10"""


def load_concepts(collection: Collection, track: TrackName) -> JudgedConcepts:
    """Return which items show which concepts; raise a ValueError if a track has no data."""
    return track_concepts(collection, track, benchmark_nouns(), PairCriteria())


def find_concept(text: str, names: tuple[str, ...], nouns: NounTable | None = None) -> str:
    """Return which of some labels or nouns a text denotes, also by its plural or a synonym.

    Empty if the text denotes something else, or more: "a wet dog".
    """
    nouns = nouns or benchmark_nouns()
    phrase = bare_phrase(text)
    if not phrase:
        return ""
    *head, last = phrase.split(" ")
    singular = " ".join([*head, lemma(last)])
    plain = {bare_phrase(name): name for name in reversed(names)}
    for form in (phrase, singular):
        if form in plain:
            return plain[form]
    noun = nouns.lemma_of(phrase)
    same = (name for name in names if noun and nouns.lemma_of(bare_phrase(name)) == noun)
    return next(same, "")


def relevance_of(concepts: JudgedConcepts, track: TrackName, a: str, b: str) -> Relevance:
    """Return the judgments of "A without B"; raise a ValueError if A or B is unknown."""
    columns = {name: j for j, name in enumerate(concepts.names)}
    for name in (a, *([b] if b else [])):
        if name not in columns:
            kind = "label" if track == "label" else "noun of the benchmark"
            raise ValueError(f"this collection has no {kind} {name[:40]!r}")
    has_a = concepts.has[:, columns[a]]
    has_b = concepts.has[:, columns[b]] if b else np.zeros_like(has_a)
    return Relevance(track, a, b, has_a & ~has_b, has_a & has_b)


def measure(total: np.ndarray, truth: Relevance) -> Measures | None:
    """Measure scores of all items, (n,) float32; return None if no item is relevant.

    Items that score 0 or -inf are left out, as no search shows them.
    """
    count = truth.relevant.sum()
    if not count:
        return None
    ranked = mask_zero_scores(total)
    shown = np.isfinite(ranked)
    rows = ranked_rows(ranked[None], TOP)
    right = marks_of(rows, (truth.relevant & shown)[None])
    broken = marks_of(rows, (truth.violating & shown)[None])
    ap = average_precision(right, np.array([count]))
    return Measures(float(ap[0]), float(right.sum() / TOP), float(broken.sum() / TOP))


def mask_zero_scores(total: np.ndarray) -> np.ndarray:
    """Replace scores of 0, of items that share no dimension with the query, by -inf."""
    return np.where(total == 0, -np.inf, total)
