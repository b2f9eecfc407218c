"""Relevance judgments (qrels) of a query, and the quality of a ranking.

The metrics are the benchmark's, over all items of the collection. The benchmark itself is stricter:
it uses only items that were not used for training, and hyperparameters tuned on other items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sieve.model.collection import Collection
from sieve.model.evaluation import PairCriteria, TrackName
from sieve.model.evaluation.metrics import TOP, average_precision, marks_of, ranked_rows
from sieve.model.evaluation.pairs import Concepts, caption_concepts, label_concepts
from sieve.model.words.nouns import NounTable, bare_phrase, benchmark_nouns
from sieve.model.words.text import lemma


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
        """Leave out one item, such as the query's own, which is no result."""
        others = np.arange(len(self.relevant)) != row
        return replace(self, relevant=self.relevant & others, violating=self.violating & others)


class Measures(NamedTuple):
    """Metrics of one ranking, in [0, 1]."""

    ap: float
    """AP@10"""
    precision: float
    """P@10"""
    violation: float
    """violation@10"""


def load_concepts(collection: Collection, track: TrackName) -> Concepts:
    """Return which items show which concepts; raise a ValueError if a track has no data."""
    nouns = benchmark_nouns()
    if track == "label":
        return label_concepts(collection, nouns, PairCriteria())
    return caption_concepts(collection, nouns)


def find_concept(text: str, names: tuple[str, ...], nouns: NounTable | None = None) -> str:
    """Return the label or noun that a text denotes, also by its plural or a synonym.

    Parameters
    ----------
    text : str
        Text of a query: "a dog", "puppies".
    names : tuple of str
    nouns : NounTable, optional
        Table of forms and synonyms; by default the benchmark's.

    Returns
    -------
    str
        One of `names`; empty if the text denotes something else, or more: "a wet dog".
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


def relevance_of(concepts: Concepts, track: TrackName, a: str, b: str) -> Relevance:
    """Return the relevance judgments of "A without B".

    Raises
    ------
    ValueError
        If there is no such label or noun.
    """
    columns = {name: j for j, name in enumerate(concepts.names)}
    for name in (a, *([b] if b else [])):
        if name not in columns:
            kind = "label" if track == "label" else "noun of the benchmark"
            raise ValueError(f"this collection has no {kind} {name[:40]!r}")
    has_a = concepts.has[:, columns[a]]
    has_b = concepts.has[:, columns[b]] if b else np.zeros_like(has_a)
    return Relevance(track, a, b, has_a & ~has_b, has_a & has_b)


def measure(total: np.ndarray, truth: Relevance) -> Measures | None:
    """Measure a ranking of all items; return None if no item is relevant.

    Items that score 0 are left out, as no search shows them.

    Parameters
    ----------
    total : (n,) float32
        Scores; -inf for items that are left out.
    truth : Relevance
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
