"""One question answered by two methods, and measured where it is known what is right.

The peers are the benchmark's own rules over the backbone's embeddings, one question at a time; the
measures are the benchmark's, over all items of the collection. What the benchmark reports is
stricter: only items that nothing was trained on, and knobs that were tuned on others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from model.benchmark.baselines import TRAINING_FREE
from model.checkpoint import Checkpoint
from model.collection import Collection
from model.encoder import IMAGE, MODALITIES, TEXT
from model.engine import Engine
from model.exclusion import best, scores
from model.questions import PairLaw, TrackName
from model.questions.pairs import Concepts, caption_concepts, label_concepts
from model.questions.ranking import TOP, average_precision, marks_of, ranked_rows
from model.questions.rules import Range, Rule, Space, unit
from model.results import EncodedQuery
from model.words.known import lemma
from model.words.mentions import bare_phrase
from model.words.nouns import NounTable, benchmark_nouns

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
    return best(_shown(total), top).rows.tolist()


def with_checkpoint(engine: Engine, checkpoint: Checkpoint) -> Engine:
    """Open the same collection with another checkpoint; they share the backbone."""
    other = Engine(engine.collection, checkpoint)
    other.backbone = engine.backbone
    return other


@dataclass(frozen=True)
class Truth:
    """What is known to be right for "A without B", by labels or by captions."""

    track: TrackName
    a: str
    b: str
    """Empty where nothing is excluded."""
    relevant: np.ndarray
    """(n,) bool: has A and not B."""
    violating: np.ndarray
    """(n,) bool: has both."""

    def besides(self, row: int) -> Truth:
        """Leave out an item: the one that is searched by is no result."""
        others = np.arange(len(self.relevant)) != row
        return replace(self, relevant=self.relevant & others, violating=self.violating & others)


class Measures(NamedTuple):
    """Of one ranking, in [0, 1]."""

    ap: float
    """AP@10"""
    precision: float
    """P@10"""
    violation: float
    """violation@10"""


def known_concepts(collection: Collection, track: TrackName) -> Concepts:
    """Tell what items are known to show; ValueError where a collection has nothing of a track."""
    law = PairLaw()
    nouns = benchmark_nouns()
    if track == "label":
        return label_concepts(collection, nouns, law)
    return caption_concepts(collection, nouns)


def find_concept(text: str, names: tuple[str, ...], nouns: NounTable | None = None) -> str:
    """Find the label or noun that a text asks for, by its plural or synonym too.

    Parameters
    ----------
    text : str
        As a person types it: "a dog", "puppies".
    names : tuple of str
    nouns : NounTable, optional
        Whose forms and synonyms count; by default the benchmark's.

    Returns
    -------
    str
        One of `names`; empty where the text asks for something else, or for more: "a wet dog".
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


def truth_of(concepts: Concepts, track: TrackName, a: str, b: str) -> Truth:
    """Mark which items answer "A without B".

    Raises
    ------
    ValueError
        If there is no such label or noun.
    """
    columns = {name: j for j, name in enumerate(concepts.names)}
    for name in (a, *([b] if b else [])):
        if name not in columns:
            kind = "label" if track == "label" else "noun of the benchmark"
            raise ValueError(f"there is no {kind} {name[:40]!r} here")
    has_a = concepts.has[:, columns[a]]
    has_b = concepts.has[:, columns[b]] if b else np.zeros_like(has_a)
    return Truth(track, a, b, has_a & ~has_b, has_a & has_b)


def measure(total: np.ndarray, truth: Truth) -> Measures | None:
    """Measure what a ranking of all items shows; None where nothing is relevant.

    Places of items that score 0 are empty: no search shows them.

    Parameters
    ----------
    total : (n,) float32
        Scores; -inf for what is left out.
    truth : Truth
    """
    count = truth.relevant.sum()
    if not count:
        return None
    ranked = _shown(total)
    shown = np.isfinite(ranked)
    rows = ranked_rows(ranked[None], TOP)
    right = marks_of(rows, (truth.relevant & shown)[None])
    broken = marks_of(rows, (truth.violating & shown)[None])
    ap = average_precision(right, np.array([count]))
    return Measures(float(ap[0]), float(right.sum() / TOP), float(broken.sum() / TOP))


def _shown(total: np.ndarray) -> np.ndarray:
    """Leave out what scores 0 and so shares nothing: (n,) float32."""
    return np.where(total == 0, -np.inf, total)


def trained_share(checkpoint: Checkpoint, collection: Collection) -> float:
    """Share of a collection's items that a checkpoint was trained on, as far as it says."""
    trained = checkpoint.trained_items
    shared = sum(item in trained for item in collection.items["id"]) if trained else 0
    return shared / max(collection.n_items, 1)
