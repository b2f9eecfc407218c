"""Whether no image of a collection is likely to show what a text describes.

    P(some image shows a text) = σ(c + w max_x cosine(text, x))

is fitted to nouns: those that captions or labels of validation items mention count as shown, and
the others as not shown. A text is reported as absent only if no caption or label mentions it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import cache_folder, read_or_compute
from sieve.model.dimensions.presence import (
    MIN_MENTIONS,
    Examples,
    Prior,
    fit_logistic,
    sigmoid,
)
from sieve.model.words.nouns import benchmark_nouns
from sieve.model.words.text import content_words, lemma

MIN_NOUNS = 20
"""Minimum number of nouns that are shown, and of nouns that are not, to fit the model."""
_VERSION = 1
_FILE = "absence.json"
_PRIOR = Prior((0.0, 0.0), (10.0, 50.0))


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
        intercept, slope = fit_logistic(cosines[:, None], target, _PRIOR).tolist()
        return ShownModel(intercept, slope)

    return read_or_compute(
        cache_folder(collection, checkpoint, f"absence{_VERSION}"), _load, compute, _save
    )


def _save(model: ShownModel, folder: Path) -> None:
    (folder / _FILE).write_text(json.dumps(asdict(model)), encoding="utf-8")


def _load(folder: Path) -> ShownModel:
    return ShownModel(**json.loads((folder / _FILE).read_text(encoding="utf-8")))


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
