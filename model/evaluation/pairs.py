"""Queries of the exclusion benchmark: ordered pairs of concepts, "A without B".

In the label track, concepts are the labels of the collection. In the caption track, concepts are
the nouns of a frozen list, and an item has one if any of its captions does. A noun that is missing
from the captions may still be visible, so the tracks are reported separately.

A pair is used if at least 10 items have A without B (relevant), 10 have both (violating) and
P(B|A) ≥ 0.15; otherwise there is little to exclude. If a collection has few such pairs, 5 to 9
items are enough for a report pair. A hash of the unordered pair assigns it to
tuning or to the report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import ConfigDict

from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.words.nouns import NounTable, benchmark_nouns, with_article

Value = TypeVar("Value")
TrackName = Literal["label", "caption"]
TRACKS: tuple[TrackName, ...] = ("label", "caption")


def tracks_of(collection: Collection, required: bool = True) -> tuple[TrackName, ...]:
    """Return the tracks that a collection has data for; a ValueError if one is required."""
    has = {"label": collection.has_labels, "caption": collection.n_captions > 0}
    tracks: tuple[TrackName, ...] = tuple(track for track in TRACKS if has[track])
    if required and not tracks:
        raise ValueError(f"collection {collection.name} has neither labels nor captions")
    return tracks


@dataclass(frozen=True)
class PairCriteria:
    """Criteria for the selection of pairs."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    relevant: int = 10
    """Minimum number of items with A and without B."""
    violating: int = 10
    """Minimum number of items with both."""
    share: float = 0.15
    """Minimum P(B|A)."""
    contained: float = 0.95
    """A label counts as a hyponym of another if this share of its items has the other."""
    tuning: float = 0.4
    """Share of the unordered pairs used for tuning, and never reported."""
    enough: int = 40
    """With fewer tuning pairs, the counts are scaled down to the size of the smaller split."""
    target: int = 800
    """With fewer report pairs, both counts are lowered, at most to `fewest`, until there are so
    many."""
    fewest: int = 5
    """Smallest counts of a report pair."""
    at_most: int = 800
    """Maximum number of pairs, chosen in the order of their hashes."""


@dataclass(frozen=True)
class JudgedConcepts:
    """Concepts, and the items that have them."""

    names: tuple[str, ...]
    phrases: tuple[str, ...]
    """Query text of each concept."""
    has: np.ndarray
    """(n, c) bool, over all items of the collection"""
    apart: np.ndarray
    """(c, c) bool, symmetric: neither is a synonym or hyponym of the other"""


@dataclass(frozen=True)
class PairSet:
    """Ordered pairs of a track, over a set of items."""

    rows: np.ndarray
    """(n,) int64: rows of the ranked items"""
    a_names: tuple[str, ...]
    b_names: tuple[str, ...]
    a: tuple[str, ...]
    """(p,) query texts"""
    b: tuple[str, ...]
    has_a: np.ndarray
    """(p, n) bool"""
    has_b: np.ndarray
    """(p, n) bool"""
    excluded: tuple[tuple[str, ...], ...] = ()
    """(p,) texts to exclude, if a query has several; by default `b`."""
    sentences: tuple[str, ...] = ()
    """(p,) whole queries; "A without B" where it is empty."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.a)

    def subset(self, pairs: Sequence[int]) -> PairSet:
        """Return some pairs, by index."""
        at = list(pairs)

        def chosen(values: tuple[Value, ...]) -> tuple[Value, ...]:
            return tuple(values[pair] for pair in at) if values else ()

        return PairSet(
            rows=self.rows,
            a_names=chosen(self.a_names),
            b_names=chosen(self.b_names),
            a=chosen(self.a),
            b=chosen(self.b),
            has_a=self.has_a[at],
            has_b=self.has_b[at],
            excluded=chosen(self.excluded),
            sentences=chosen(self.sentences),
        )

    @property
    def literal(self) -> tuple[str, ...]:
        """(p,) queries as one text, such as `A without B`."""
        sentences = self.sentences or ("",) * len(self)
        return tuple(
            sentence or f"{a} without {b}"
            for sentence, a, b in zip(sentences, self.a, self.b, strict=True)
        )

    @property
    def texts(self) -> list[str]:
        """Distinct query texts of A and B."""
        return list(dict.fromkeys((*self.a, *self.b)))

    @property
    def phrases(self) -> tuple[tuple[str, ...], ...]:
        """(p,) texts to exclude, at least one for each query."""
        return self.excluded or tuple((b,) for b in self.b)

    @property
    def relevant(self) -> np.ndarray:
        """(p, n) bool: items with A and without B."""
        return self.has_a & ~self.has_b

    @property
    def violating(self) -> np.ndarray:
        """(p, n) bool: items with both."""
        return self.has_a & self.has_b


WORDINGS = ("dog", "a photo of a dog", "dogs", "there is a dog", "a hound")
"""Wordings of A and B, by the example of "a dog": see `NounTable.wordings`."""


def reworded(pairs: PairSet, nouns: NounTable) -> dict[str, PairSet]:
    """Return the same pairs with other query texts, by the names of `WORDINGS`."""
    of_name = {name: nouns.wordings(name) for name in (*pairs.a_names, *pairs.b_names)}
    return {
        wording: replace(
            pairs,
            a=tuple(of_name[name][at] for name in pairs.a_names),
            b=tuple(of_name[name][at] for name in pairs.b_names),
        )
        for at, wording in enumerate(WORDINGS)
    }


class TrackPairs(NamedTuple):
    """Tuning and report pairs of a track."""

    tuning: PairSet
    report: PairSet
    tuning_criteria: PairCriteria
    """Criteria of the tuning pairs, with smaller counts if the split is small."""
    report_criteria: PairCriteria
    """Criteria of the report pairs, with smaller counts if there are few."""


def label_concepts(
    collection: Collection, nouns: NounTable, criteria: PairCriteria
) -> JudgedConcepts:
    """Return the labels of a collection as concepts.

    A label that nearly always comes with another counts as its hyponym. Raises a ValueError if the
    collection has no labels.
    """
    from sklearn.preprocessing import MultiLabelBinarizer

    if not collection.has_labels:
        raise ValueError(
            f"collection {collection.name} has no labels; evaluate it with --track caption"
        )
    binarizer = MultiLabelBinarizer(sparse_output=True)
    has = binarizer.fit_transform(collection.items["labels"]).astype(bool).toarray()
    names = tuple(map(str, binarizer.classes_))
    lemmas = [nouns.lemma_of(name) for name in names]
    phrases = tuple(
        with_article(name) if lemma != name else nouns.query_text(name)
        for name, lemma in zip(names, lemmas, strict=True)
    )
    both = (has.T.astype(np.float32) @ has.astype(np.float32)).astype(np.int64)
    kind_of = both / np.maximum(np.diag(both)[:, None], 1) >= criteria.contained
    return JudgedConcepts(names, phrases, has, _can_pair(nouns, lemmas) & ~(kind_of | kind_of.T))


def caption_concepts(
    collection: Collection, nouns: NounTable, rows: np.ndarray | None = None
) -> JudgedConcepts:
    """Return the nouns of the frozen list as concepts, by their presence in captions.

    With `rows`, only the captions of these items are used; all of a large collection take long.
    Raises a ValueError if the collection has no captions.
    """
    if not collection.n_captions:
        raise ValueError(
            f"collection {collection.name} has no captions; evaluate it with --track label"
        )
    names, captions = nouns.lemmas, collection.items["captions"]
    if rows is None:
        has = nouns.presence(captions)
    else:
        has = np.zeros((collection.n_items, len(names)), bool)
        has[rows] = nouns.presence(captions.iloc[rows])
    return JudgedConcepts(names, tuple(map(nouns.query_text, names)), has, _can_pair(nouns, names))


def track_concepts(
    collection: Collection, track: TrackName, nouns: NounTable, criteria: PairCriteria
) -> JudgedConcepts:
    """Return the labels, or the nouns in captions, as concepts."""
    if track == "label":
        return label_concepts(collection, nouns, criteria)
    return caption_concepts(collection, nouns)


def _can_pair(nouns: NounTable, lemmas: Sequence[str | None]) -> np.ndarray:
    """Return which lemmas are no synonyms or hyponyms of each other: (c, c) bool."""
    return np.array(
        [[not (a and b) or nouns.can_pair(a, b) for b in lemmas] for a in lemmas], dtype=bool
    )


def select_pairs(
    concepts: JudgedConcepts, rows: np.ndarray, criteria: PairCriteria, tuning: bool
) -> PairSet:
    """Return the ordered tuning or report pairs that meet the criteria on items, (n,) rows."""
    has = concepts.has[rows]
    both = (has.T.astype(np.float32) @ has.astype(np.float32)).astype(np.int64)
    count = np.diag(both)[:, None]
    fit = (count - both >= criteria.relevant) & (both >= criteria.violating)
    fit &= (both >= criteria.share * count) & concepts.apart & ~np.eye(len(both), dtype=bool)
    hashed = [
        (_hash(concepts.names[a], concepts.names[b]), a, b) for a, b in np.argwhere(fit).tolist()
    ]
    chosen = sorted(entry for entry in hashed if (entry[0] < criteria.tuning) == tuning)
    pairs = sorted((a, b) for _, a, b in chosen[: criteria.at_most])
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T.tolist()
    return PairSet(
        rows=rows,
        a_names=tuple(concepts.names[j] for j in a),
        b_names=tuple(concepts.names[j] for j in b),
        a=tuple(concepts.phrases[j] for j in a),
        b=tuple(concepts.phrases[j] for j in b),
        has_a=has[:, a].T,
        has_b=has[:, b].T,
    )


def split_pairs(
    collection: Collection, split: str, criteria: PairCriteria, tuning: bool
) -> PairSet | None:
    """Select pairs of labels, or of nouns without labels; None if the split has neither."""
    rows = evaluation_rows(collection, split)
    if not len(rows) or not (collection.has_labels or collection.n_captions):
        return None
    track: TrackName = "label" if collection.has_labels else "caption"
    concepts = track_concepts(collection, track, benchmark_nouns(), criteria)
    return select_pairs(concepts, rows, criteria, tuning)


def track_pairs(
    collection: Collection,
    track: TrackName,
    nouns: NounTable,
    criteria: PairCriteria,
    judged: PairSet | None = None,
) -> TrackPairs:
    """Choose the tuning pairs of a track on the "select" split and its report pairs on "test".

    With `judged`, these are the report pairs. Near duplicates of items in an earlier split are left
    out; see `sieve.model.duplicates`. Raises a ValueError if a split has too few items for a single
    pair.
    """
    select, test = (evaluation_rows(collection, split) for split in ("select", "test"))
    concepts = track_concepts(collection, track, nouns, criteria)
    relaxed, report = criteria, judged or select_pairs(concepts, test, criteria, tuning=False)
    while judged is None and len(report) < min(criteria.target, criteria.at_most):
        relevant, violating = (
            count - 1 if count > criteria.fewest else count
            for count in (relaxed.relevant, relaxed.violating)
        )
        lower = replace(relaxed, relevant=relevant, violating=violating)
        if lower == relaxed:
            break
        relaxed, report = lower, select_pairs(concepts, test, lower, tuning=False)
    applied = criteria
    tuning = select_pairs(concepts, select, applied, tuning=True)
    if len(tuning) < criteria.enough and len(select) < len(test):
        counts = {
            name: max(round(getattr(criteria, name) * len(select) / len(test)), 2)
            for name in ("relevant", "violating")
        }
        applied = replace(criteria, **counts)
        tuning = select_pairs(concepts, select, applied, tuning=True)
    for name, pairs in (("select", tuning), ("test", report)):
        if not len(pairs):
            raise ValueError(
                f"collection {collection.name} has no {track} pair for its {len(pairs.rows)} "
                f"{name} items: a pair needs {relaxed.relevant} items with A without B and "
                f"{relaxed.violating} with both; prepare a larger collection"
            )
    return TrackPairs(tuning, report, applied, relaxed)


def _hash(one: str, other: str) -> float:
    """Hash an unordered pair to [0, 1), independently of the collection."""
    text = "\n".join(sorted((one, other)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
