"""What the exclusion benchmark asks: ordered pairs of concepts, "A without B".

Label track: concepts are the collection's labels. Caption track: concepts are the frozen nouns, and
an item has one where any of its captions says so; absence in captions is not absence in the
picture, so the two tracks are reported apart.

A pair is asked of a set of items where at least 10 have A alone (relevant), 10 have both
(violating) and P(B|A) ≥ .15: where B never comes with A there is nothing to exclude. Pairs are
split by a hash of the unordered pair: some only tune, the others only report.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.words.nouns import NounTable, with_article

TrackName = Literal["label", "caption"]
TRACKS: tuple[TrackName, ...] = ("label", "caption")


@dataclass(frozen=True)
class PairCriteria:
    """Which pairs are asked."""

    relevant: int = 10
    """At least so many items have A and not B."""
    violating: int = 10
    """At least so many items have both."""
    share: float = 0.15
    """P(B|A) is at least this."""
    contained: float = 0.95
    """A label is taken for a kind of another where so many of its items have the other."""
    tuning: float = 0.4
    """Share of the unordered pairs that tune knobs and are never reported."""
    enough: int = 40
    """Where fewer tuning pairs are found, the counts are scaled down to the smaller split."""
    at_most: int = 600
    """Of more pairs, these many are taken by the order of their hashes."""


class Pairs(NamedTuple):
    """Ordered pairs, as columns of a `Concepts` table."""

    a: np.ndarray
    """(p,) int64"""
    b: np.ndarray
    """(p,) int64"""

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True)
class Concepts:
    """What can be asked for, and which item has it."""

    names: tuple[str, ...]
    asked: tuple[str, ...]
    """How a person types each."""
    has: np.ndarray
    """(n, c) bool, over all items of the collection"""
    apart: np.ndarray
    """(c, c) bool, symmetric: neither is a synonym or a kind of the other"""


@dataclass(frozen=True)
class PairSet:
    """One track's pairs, over one set of items."""

    rows: np.ndarray
    """(n,) int64: rows of the collection that are ranked"""
    pairs: Pairs
    a_names: tuple[str, ...]
    b_names: tuple[str, ...]
    a: tuple[str, ...]
    """(p,) texts"""
    b: tuple[str, ...]
    literal: tuple[str, ...]
    """A without B, in these words"""
    has_a: np.ndarray
    """(p, n) bool"""
    has_b: np.ndarray
    """(p, n) bool"""

    @property
    def relevant(self) -> np.ndarray:
        """(p, n) bool: A and not B."""
        return self.has_a & ~self.has_b

    @property
    def violating(self) -> np.ndarray:
        """(p, n) bool: both."""
        return self.has_a & self.has_b


class TrackPairs(NamedTuple):
    """A track, split."""

    tuning: PairSet
    report: PairSet
    tuning_law: PairCriteria
    """As it was applied: with smaller counts where the split is small."""


def label_concepts(collection: Collection, nouns: NounTable, law: PairCriteria) -> Concepts:
    """Labels of a collection; a label that nearly always comes with another is a kind of it.

    Raises
    ------
    ValueError
        If the collection has no labels.
    """
    if not collection.has_labels:
        raise ValueError(
            f"collection {collection.name} has no labels; evaluate it with --track caption"
        )
    sets = [set(labels) for labels in collection.items["labels"]]
    names = tuple(sorted(set().union(*sets)))
    column = {name: j for j, name in enumerate(names)}
    has = np.zeros((len(sets), len(names)), bool)
    for row, labels in enumerate(sets):
        has[row, [column[label] for label in labels]] = True
    lemmas = [nouns.lemma_of(name) for name in names]
    asked = tuple(
        with_article(name) if lemma != name else nouns.query_text(name)
        for name, lemma in zip(names, lemmas, strict=True)
    )
    both = has.T.astype(np.float32) @ has.astype(np.float32)
    kind_of = both / np.maximum(np.diag(both)[:, None], 1) >= law.contained
    apart = ~(kind_of | kind_of.T)
    for i, one in enumerate(lemmas):
        for j, other in enumerate(lemmas):
            if one and other and not nouns.can_pair(one, other):
                apart[i, j] = False
    return Concepts(names, asked, has, apart)


def caption_concepts(
    collection: Collection, nouns: NounTable, rows: np.ndarray | None = None
) -> Concepts:
    """Build the table of frozen nouns that captions of the collection have.

    Parameters
    ----------
    collection : Collection
    nouns : NounTable
    rows : (r,) int64, optional
        Look at the captions of these items only: of a large collection, all take long.

    Raises
    ------
    ValueError
        If the collection has no captions.
    """
    if not collection.n_captions:
        raise ValueError(
            f"collection {collection.name} has no captions; evaluate it with --track label"
        )
    names = nouns.lemmas
    apart = np.array([[nouns.can_pair(one, other) for other in names] for one in names])
    asked = tuple(map(nouns.asked, names))
    captions = collection.items["captions"]
    if rows is None:
        has = nouns.presence(captions)
    else:
        has = np.zeros((collection.n_items, len(names)), bool)
        has[rows] = nouns.presence(captions.iloc[rows])
    return Concepts(names, asked, has, apart)


def is_tuning(one: str, other: str, share: float) -> bool:
    """Whether an unordered pair tunes or reports: always the same, whatever the collection."""
    return _hash(one, other) < share


def select_pairs(concepts: Concepts, rows: np.ndarray, law: PairCriteria, tuning: bool) -> Pairs:
    """All ordered pairs that the law lets through on some items.

    Parameters
    ----------
    concepts : Concepts
    rows : (n,) int64
        Items that are ranked.
    law : PairCriteria
    tuning : bool
        Whether pairs that tune are wanted, or those that report.
    """
    has = concepts.has[rows].astype(np.float32)
    both = has.T @ has
    count = np.diag(both)[:, None]
    fit = (count - both >= law.relevant) & (both >= law.violating)
    fit &= (both >= law.share * count) & concepts.apart & ~np.eye(len(both), dtype=bool)
    chosen = [
        (_hash(names[0], names[1]), a, b)
        for a, b in np.argwhere(fit).tolist()
        if is_tuning(*(names := (concepts.names[a], concepts.names[b])), law.tuning) == tuning
    ]
    kept = sorted((a, b) for _, a, b in sorted(chosen)[: law.at_most])
    a, b = np.array(kept, np.int64).reshape(-1, 2).T
    return Pairs(a, b)


def select_pair_set(concepts: Concepts, rows: np.ndarray, pairs: Pairs) -> PairSet:
    """Put pairs into words, and mark which items answer them."""
    a = tuple(concepts.asked[j] for j in pairs.a)
    b = tuple(concepts.asked[j] for j in pairs.b)
    return PairSet(
        rows=rows,
        pairs=pairs,
        a_names=tuple(concepts.names[j] for j in pairs.a),
        b_names=tuple(concepts.names[j] for j in pairs.b),
        a=a,
        b=b,
        literal=tuple(f"{one} without {other}" for one, other in zip(a, b, strict=True)),
        has_a=concepts.has[rows][:, pairs.a].T,
        has_b=concepts.has[rows][:, pairs.b].T,
    )


def track_pairs(
    collection: Collection, track: TrackName, nouns: NounTable, law: PairCriteria
) -> TrackPairs:
    """Choose a track's tuning pairs on select items and its report pairs on test items.

    Items that are equal or near to an item of train, or a test item to one of select, are left out;
    see `sieve.model.duplicates`.

    Raises
    ------
    ValueError
        If either split has too few items for a single pair.
    """
    select, test = (evaluation_rows(collection, split) for split in ("select", "test"))
    if track == "label":
        concepts = label_concepts(collection, nouns, law)
    else:
        concepts = caption_concepts(collection, nouns)
    report = select_pairs(concepts, test, law, tuning=False)
    applied = law
    tuning = select_pairs(concepts, select, applied, tuning=True)
    if len(tuning) < law.enough and len(select) < len(test):
        applied = _scaled(law, len(select) / len(test))
        tuning = select_pairs(concepts, select, applied, tuning=True)
    for name, rows, pairs in (("select", select, tuning), ("test", test, report)):
        if not len(pairs):
            raise ValueError(
                f"collection {collection.name} has no {track} pair to ask of its {len(rows)} "
                f"{name} items: a pair needs {law.relevant} items with A alone and "
                f"{law.violating} with both; prepare a larger collection"
            )
    return TrackPairs(
        select_pair_set(concepts, select, tuning), select_pair_set(concepts, test, report), applied
    )


def _scaled(law: PairCriteria, factor: float) -> PairCriteria:
    return replace(
        law,
        relevant=max(round(law.relevant * factor), 2),
        violating=max(round(law.violating * factor), 2),
    )


def _hash(one: str, other: str) -> float:
    """Hash an unordered pair to [0, 1)."""
    text = "\n".join(sorted((one, other)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
