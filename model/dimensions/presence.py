"""Calibrated probability that the captions or labels of an image mention a concept.

For a concept of dimensions J, and an excluded phrase with code b and embedding t,

    P(concept | z) = σ(c + w √(Σ_{j in J} z_j / a))
    P(phrase | z, x) = σ(c + w √(Σ_j b_j z_j / a) + v cosine(x, t))

with z the image's code, x its embedding, a the mean positive activation, and the cosine scaled to
zero mean and unit variance. w and v are at least 0, so more activation is never less probable. The
parameters are fitted by maximum a posteriori on validation ("select") items, which neither the
encoder nor the names were trained on. The prior is the distribution of the parameters over the
concepts of scenes and photographs, because a rare concept has few examples.

Captions omit much that an image shows. The probability is that of a *mention*, which is lower than
that of being visible. What captions and labels mention too rarely is fitted to the images that the
backbone finds closest to the phrase; without a backbone, every image with an active dimension
counts as having the concept. `Presence.basis` states which.

The probability that no image of the collection shows a text is one less

    P(some image shows a text) = σ(c + w max_x cosine(text, x))

which is fitted to nouns: those that captions or labels of validation items mention count as shown,
and the others as not shown. A text is reported as absent only if no caption or label mentions it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array, load_npz, save_npz

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes, encode_codes
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import cache_folder, codes_of, read_or_compute
from sieve.model.dimensions.concepts import Concepts
from sieve.model.dimensions.statistics import MATCHING, sample_rows
from sieve.model.duplicates import evaluation_rows
from sieve.model.hyperparameters import IMAGE
from sieve.model.words.nouns import benchmark_nouns
from sieve.model.words.text import WordPresence, content_words, lemma, mentioned_words

VERSION = 1
"""Version of the examples; cached ones of another version are computed again."""
MIN_MENTIONS = 3
"""A concept with fewer examples that mention it is not fitted to mentions."""
MIN_EXAMPLES = 50
"""With fewer validation items, all items are examples."""
MIN_NOUNS = 20
"""Minimum number of nouns that are shown, and of nouns that are not, to fit `ShownModel`."""
_SHOWN_VERSION = 1
_ROWS_AT_ONCE = 65_536
_MAX_CACHED = 4096
_CODES, _WORDS, _MENTIONS, _ROWS = "codes", "words.json", "mentions.npz", "rows.npy"
_SHOWN = "absence.json"

Basis = Literal["mentions", "zero-shot", "active"]
"""Source of the probability: fitted to mentions in captions and labels, or to the images that the
backbone finds closest. `active` is no probability: any activation counts as the concept."""


class Prior(NamedTuple):
    """Normal prior of the intercept c and the slopes w and v."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


CONCEPT_PRIOR = Prior((-7.0, 4.0), (1.5, 1.5))
SHOWN_PRIOR = Prior((0.0, 0.0), (10.0, 50.0))
PHRASE_PRIOR = Prior((-7.5, 2.5, 0.5), (2.0, 1.5, 0.5))
"""Measured on scenes and photographs; see `tests/benchmarks/presence.py`."""


def fit_logistic(features: np.ndarray, target: np.ndarray, prior: Prior) -> np.ndarray:
    """Fit a logistic regression with slopes of at least 0 by maximum a posteriori.

    (n, f) float, (n,) of 0 and 1 → (f + 1,) float64: the intercept, then the slopes.
    """
    from scipy.optimize import minimize

    mean, precision = np.array(prior.mean), np.array(prior.deviation) ** -2.0
    inputs = np.column_stack([np.ones(len(features)), features]).astype(np.float64)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits, shift = inputs @ parameters, parameters - mean
        value = np.logaddexp(0, logits).sum() - logits @ target + precision @ shift**2 / 2
        return float(value), inputs.T @ (sigmoid(logits) - target) + precision * shift

    bounds = [(None, None), *[(0, None)] * features.shape[1]]
    return minimize(loss, mean, jac=True, bounds=bounds, method="L-BFGS-B").x


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) elementwise."""
    return np.exp(-np.logaddexp(0, -logits))


@dataclass(frozen=True, eq=False)
class Presence:
    """An excluded concept or phrase, and the probability of its presence in images."""

    name: str
    """The phrase as typed, or the concept's name."""
    dimensions: tuple[int, ...]
    """Its dimensions that are off; none if nothing represents the phrase."""
    basis: Basis
    weights: np.ndarray
    """(m,) float32: weight of each dimension in the activation; 0 or 1 for a concept"""
    parameters: np.ndarray
    """(f + 1,) float64: intercept and slopes"""
    scale: float = 1.0
    """a: mean positive activation of the examples"""
    text: np.ndarray | None = None
    """(d,) float32: t, scaled so that the cosines of the examples have unit variance; None if only
    the activation counts"""
    offset: float = 0.0
    """Mean of the scaled cosines"""

    def probability(self, codes: csr_array, embeddings: np.ndarray) -> np.ndarray:
        """Return the probability for images: (r,) float64, 1 or 0 for the basis `active`.

        Parameters
        ----------
        codes : (r, m) float32, sparse
        embeddings : (r, d) float16 or float32
            Ignored if only the activation counts.
        """
        activation = np.asarray(codes @ self.weights).ravel()
        if self.basis == "active":
            return (activation > 0).astype(np.float64)
        logits = self.parameters[0] + self.parameters[1] * np.sqrt(activation / self.scale)
        if self.text is not None:
            cosine = np.asarray(embeddings, np.float32) @ self.text - self.offset
            logits = logits + self.parameters[2] * cosine
        return sigmoid(logits)


@dataclass(frozen=True)
class ExcludedConcepts:
    """Everything that is off in a query, as concepts and phrases."""

    presences: tuple[Presence, ...]
    read_embeddings: Callable[[np.ndarray], np.ndarray]
    """Returns the embeddings of rows: (r,) int64 → (r, d)."""

    def probabilities(self, codes: csr_array, rows: np.ndarray) -> np.ndarray:
        """Return the probability of each presence: (r, p) float64, for rows and their codes."""
        found = np.zeros((len(rows), len(self.presences)))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            needed = any(one.text is not None for one in self.presences)
            embeddings = self.read_embeddings(rows[part]) if needed else np.zeros((0, 0))
            some = codes if len(rows) <= _ROWS_AT_ONCE else csr_array(codes[part])
            for column, presence in enumerate(self.presences):
                found[part, column] = presence.probability(some, embeddings)
        return found


@dataclass(frozen=True, eq=False)
class Examples:
    """Codes of validation items, and the words that their captions and labels mention."""

    rows: np.ndarray
    """(v,) int64"""
    codes: SparseCodes
    """(v, m)"""
    words: WordPresence
    """(v, w); with hypernyms, and phrases of two words"""

    @classmethod
    def compute(cls, collection: Collection, checkpoint: Checkpoint) -> Examples:
        """Encode the validation items of a collection and read their captions and labels."""
        rows = evaluation_rows(collection, "select")
        if len(rows) < MIN_EXAMPLES:
            rows = sample_rows(collection.n_items)
        if checkpoint.codes:
            codes = codes_of(collection, checkpoint)[0].take(rows)
        else:
            embeddings = np.asarray(collection.image_embeddings[rows])
            codes = encode_codes(checkpoint.encoder, embeddings, IMAGE)
        items = collection.items.iloc[rows]
        texts = zip(items["captions"], items["labels"], strict=True)
        mentioned = mentioned_words(["\n".join([*one, *other]) for one, other in texts])
        return cls(rows, codes, mentioned)

    def save(self, folder: Path) -> None:
        """Write the examples to an empty folder."""
        np.save(folder / _ROWS, self.rows)
        self.codes.save_cache(folder, _CODES)
        (folder / _WORDS).write_text(json.dumps(self.words.words), encoding="utf-8")
        save_npz(folder / _MENTIONS, self.words.presence)

    @classmethod
    def load(cls, folder: Path, m: int) -> Examples:
        """Read examples that `save` wrote."""
        words = json.loads((folder / _WORDS).read_text(encoding="utf-8"))
        return cls(
            np.load(folder / _ROWS, allow_pickle=False),
            SparseCodes.load_cache(folder, _CODES, m),
            WordPresence(words, csr_array(load_npz(folder / _MENTIONS))),
        )


def open_examples(collection: Collection, checkpoint: Checkpoint) -> Examples:
    """Return the examples of a collection and a checkpoint, computed once and cached."""
    return read_or_compute(
        cache_folder(collection, checkpoint, f"presence{VERSION}"),
        lambda folder: Examples.load(folder, checkpoint.m),
        lambda: Examples.compute(collection, checkpoint),
        Examples.save,
    )


class Phrase(NamedTuple):
    """An excluded phrase."""

    text: str
    code: np.ndarray
    """(m,) float32"""
    embedding: np.ndarray
    """(d,) float32; empty without a backbone"""


class PresenceModel:
    """Fits the probabilities of concepts and phrases to examples.

    Parameters
    ----------
    examples : Examples
    embeddings : (v, d) float16 or float32, optional
        The backbone's embeddings of the examples; None for external codes.
    embed : callable, optional
        Returns the embedding of a name, (d,) float32, or (0,) if it cannot be embedded.
    """

    def __init__(
        self,
        examples: Examples,
        embeddings: np.ndarray | None = None,
        embed: Callable[[str], np.ndarray] = lambda _: np.zeros(0, np.float32),
    ) -> None:
        self._codes = examples.codes.by_row
        self._words = examples.words
        self._column = {word: at for at, word in enumerate(examples.words.words)}
        self._embeddings = None if embeddings is None else np.asarray(embeddings, np.float32)
        self._m = examples.codes.m
        self._embed = embed
        self._phrases: dict[tuple[str, tuple[int, ...]], Presence] = {}
        self.of_dimensions = lru_cache(maxsize=_MAX_CACHED)(self._of_dimensions)

    def mentions(self, name: str) -> np.ndarray:
        """Return which examples mention all words of a name or phrase: (v,) bool."""
        has = np.ones(len(self._codes.indptr) - 1, bool)
        for part in name.split("·"):
            words = content_words(part)
            phrase = " ".join([*words[:-1], *map(lemma, words[-1:])])
            for word in [phrase] if phrase in self._column else words:
                column = self._column.get(lemma(word), self._column.get(word))
                if column is None:
                    return np.zeros_like(has)
                has &= self._words.presence[:, [column]].toarray().ravel() > 0
        return has if content_words(name) else np.zeros_like(has)

    def exclude(
        self,
        off: Sequence[int],
        proposed: Sequence[int],
        phrases: Sequence[Phrase],
        concepts: Concepts,
        names: Callable[[int], tuple[str, bool]],
    ) -> tuple[Presence, ...]:
        """Return the phrases and concepts that off dimensions exclude.

        Parameters
        ----------
        off : sequence of int
            All dimensions that are off.
        proposed : sequence of int
            Dimensions that the phrases propose. A phrase counts if one of its own is off.
        phrases : sequence of Phrase
        concepts : Concepts
            Off dimensions of the same concept are one presence.
        names : callable
            Returns a dimension's name, and whether it is certain.
        """
        left, found = list(off), []
        codes = np.array([phrase.code for phrase in phrases])
        for at, phrase in enumerate(phrases):
            own = [j for j in proposed if j in left and codes[at, j] > 0]
            same = {int(concepts.of_dimension[j]) for j in own if codes[:, j].argmax() == at}
            group = tuple(j for j in left if concepts.of_dimension[j] in same)
            if group:
                left = [j for j in left if j not in group]
                found.append(self._of_phrase(phrase.text, phrase, group))
        by_concept: dict[int, list[int]] = {}
        for j in left:
            by_concept.setdefault(int(concepts.of_dimension[j]), []).append(j)
        for leading, dimensions in by_concept.items():
            members = concepts.members(leading).tolist()
            some = [j for j in members if j in dimensions]
            candidates = [names(j) for j in dict.fromkeys([*some, *members])]
            certain = next((name for name, is_certain in candidates if is_certain), "")
            group = tuple(sorted(dimensions))
            found.append(self.of_dimensions(certain or candidates[0][0], bool(certain), group))
        return tuple(found)

    def _of_dimensions(self, name: str, certain: bool, dimensions: tuple[int, ...]) -> Presence:
        """Return the presence of a concept, by the sum of its dimensions.

        A name that is not certain is no evidence of what the concept means.
        """
        weights = np.zeros(self._m, np.float32)
        weights[list(dimensions)] = 1
        target = self.mentions(name)
        basis: Basis = "mentions"
        if certain and target.sum() < MIN_MENTIONS:
            cosine = self._cosine(self._embed(" ".join(name.replace("·", " ").split())))
            basis, target = "zero-shot", cosine >= np.quantile(cosine, 1 - MATCHING)
            certain = bool(cosine.any())
        if not certain:
            return Presence(name, dimensions, "active", weights, np.zeros(2))
        feature, scale = self._activation(weights)
        parameters = fit_logistic(feature[:, None], target, CONCEPT_PRIOR)
        return Presence(name, dimensions, basis, weights, parameters, scale)

    def _of_phrase(self, text: str, phrase: Phrase, dimensions: tuple[int, ...]) -> Presence:
        """Return the presence of a phrase, by its code and its embedding."""
        key = (text, dimensions)
        if key not in self._phrases:
            if len(self._phrases) >= _MAX_CACHED:
                self._phrases.clear()
            self._phrases[key] = self._fit_phrase(phrase, dimensions)
        return self._phrases[key]

    def _fit_phrase(self, phrase: Phrase, dimensions: tuple[int, ...]) -> Presence:
        name, code, embedding = phrase
        target, (feature, scale) = self.mentions(name), self._activation(code)
        cosine = self._cosine(embedding)
        spread = float(cosine.std())
        if target.sum() < MIN_MENTIONS and not spread:
            weights = np.zeros(self._m, np.float32)
            weights[list(dimensions)] = 1
            return Presence(name, dimensions, "active", weights, np.zeros(2))
        if target.sum() < MIN_MENTIONS:
            closest = cosine >= np.quantile(cosine, 1 - MATCHING)
            parameters = fit_logistic(feature[:, None], closest, CONCEPT_PRIOR)
            return Presence(name, dimensions, "zero-shot", code, parameters, scale)
        if not spread:
            parameters = fit_logistic(feature[:, None], target, CONCEPT_PRIOR)
            return Presence(name, dimensions, "mentions", code, parameters, scale)
        offset = float(cosine.mean()) / spread
        features = np.column_stack([feature, cosine / spread - offset])
        parameters = fit_logistic(features, target, PHRASE_PRIOR)
        embedded = (embedding / spread).astype(np.float32)
        return Presence(name, dimensions, "mentions", code, parameters, scale, embedded, offset)

    def _cosine(self, embedding: np.ndarray) -> np.ndarray:
        """Return the cosine of a text's embedding with the examples, (v,); zeros without either."""
        if self._embeddings is None or not embedding.any():
            return np.zeros(len(self._codes.indptr) - 1, np.float32)
        return self._embeddings @ embedding

    def _activation(self, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """Return √(activation / a) of the examples, (v,) float64, and a."""
        activation = np.asarray(self._codes @ weights).ravel().astype(np.float64)
        positive = activation[activation > 0]
        scale = float(positive.mean()) if len(positive) else 1.0
        return np.sqrt(activation / scale), scale


@dataclass(frozen=True)
class ShownModel:
    """Probability that some image shows a text, by the cosine of the closest image."""

    intercept: float
    slope: float
    """0 if nothing could be fitted."""

    def probability(self, cosine: float) -> float:
        """Return the probability; 1 if nothing could be fitted."""
        if not self.slope:
            return 1.0
        return float(sigmoid(np.array(self.intercept + self.slope * cosine)))


def open_shown_model(
    collection: Collection,
    checkpoint: Checkpoint,
    examples: Examples,
    closest: Callable[[Sequence[str]], np.ndarray],
    knows: Callable[[str], bool],
) -> ShownModel:
    """Return the model of a collection, fitted once and cached.

    Parameters
    ----------
    closest : callable
        Returns the cosine of the closest image to each of some texts: (t,) float.
    knows : callable
        Returns whether the backbone knows all words of a text.
    """

    def compute() -> ShownModel:
        words = examples.words
        mentions = dict(zip(words.words, words.counts.tolist(), strict=True))
        nouns = [noun for noun in benchmark_nouns().lemmas if knows(noun)]
        shown = [noun for noun in nouns if mentions.get(noun, 0) >= MIN_MENTIONS]
        absent = [noun for noun in nouns if noun not in mentions]
        if min(len(shown), len(absent)) < MIN_NOUNS:
            return ShownModel(0.0, 0.0)
        cosines = closest([f"a {noun}" for noun in (*shown, *absent)])
        target = np.arange(len(cosines)) < len(shown)
        intercept, slope = fit_logistic(cosines[:, None], target, SHOWN_PRIOR).tolist()
        return ShownModel(intercept, slope)

    return read_or_compute(
        cache_folder(collection, checkpoint, f"absence{_SHOWN_VERSION}"), _load, compute, _save
    )


def _save(model: ShownModel, folder: Path) -> None:
    (folder / _SHOWN).write_text(json.dumps(asdict(model)), encoding="utf-8")


def _load(folder: Path) -> ShownModel:
    return ShownModel(**json.loads((folder / _SHOWN).read_text(encoding="utf-8")))


def is_mentioned(collection: Collection, text: str) -> bool:
    """Return whether one item's captions and labels mention all content words of a text."""
    words = {lemma(word) for word in content_words(text)}
    patterns = [re.compile(rf"\b{re.escape(word)}(?:e?s)?\b", re.IGNORECASE) for word in words]
    items = collection.items
    for captions, labels in zip(items["captions"], items["labels"], strict=True):
        texts = "\n".join((*captions, *labels))
        if all(pattern.search(texts) for pattern in patterns):
            return True
    return False
