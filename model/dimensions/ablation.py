"""What happens when a dimension is off: how the results of a probe set of queries change.

The probes are captions of the collection that have the dimension, by the codes that are stored of
them, so that no model has to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.cache import CodeCache
from sieve.model.dimensions.page import Example
from sieve.model.exclusion import Query, off_weights, search

N_PROBES = 100
TOP = 10
N_CHANGES = 4


class Change(NamedTuple):
    """What switching the dimension off does to one probe's results."""

    text: str
    strength: float
    """How strongly the probe has the dimension, in [0, 1]."""
    before: tuple[Example, ...]
    """The first ten with every dimension on; of each, how strongly it has the dimension."""
    after: tuple[Example, ...]
    """The first ten with the dimension off."""

    @property
    def left(self) -> int:
        """How many of the first ten are no longer among them."""
        return len({one.row for one in self.before} - {one.row for one in self.after})


@dataclass(frozen=True)
class Ablation:
    """What switching a dimension off changes."""

    n_probes: int
    n_changed: int
    """Probes of whose first ten some left."""
    mean_left: float
    """How many of the first ten left, on average over the probes."""
    changes: tuple[Change, ...]
    """The probes whose results change most, the most changed first."""


class _Ranked(NamedTuple):
    """One probe's results, by row."""

    caption: int
    before: np.ndarray
    after: np.ndarray

    @property
    def left(self) -> int:
        return len(np.setdiff1d(self.before, self.after))

    @property
    def moved(self) -> int:
        """Places that what stayed has moved, in total."""
        _, was, now = np.intersect1d(self.before, self.after, return_indices=True)
        return int(np.abs(was - now).sum())


def ablate_dimension(
    collection: Collection, checkpoint: Checkpoint, derived: CodeCache, dimension: int
) -> Ablation:
    """Switch a dimension off in up to a hundred queries that have it, and see what changes.

    Parameters
    ----------
    collection, checkpoint, derived
        As an `Engine` holds them.
    dimension : int

    Raises
    ------
    ValueError
        If there is no such dimension.
    """
    if not 0 <= dimension < derived.text_codes.m:
        raise ValueError(
            f"there is no dimension {dimension}; there are 0 to {derived.text_codes.m - 1}"
        )
    captions = probe_captions(collection, derived, dimension)
    ranked = [_rank(checkpoint, derived, caption, dimension) for caption in captions.tolist()]
    most = sorted(ranked, key=lambda one: (-one.left, -one.moved, one.caption))[:N_CHANGES]
    lefts = [one.left for one in ranked]
    return Ablation(
        n_probes=len(ranked),
        n_changed=sum(left > 0 for left in lefts),
        mean_left=sum(lefts) / max(len(lefts), 1),
        changes=tuple(
            _change(collection, derived, one, dimension) for one in most if one.left or one.moved
        ),
    )


def probe_captions(
    collection: Collection, derived: CodeCache, dimension: int, count: int = N_PROBES
) -> np.ndarray:
    """Choose captions that have a dimension, each text once, evenly over the collection.

    Returns
    -------
    (c,) int64
        Places in the collection's captions, ascending; at most `count`.
    """
    having, _ = derived.text_codes.postings(dimension)
    texts = collection.caption_texts
    first = {texts[caption].strip().lower(): caption for caption in having[::-1].tolist()}
    distinct = np.sort(np.fromiter(first.values(), np.int64, len(first)))
    chosen = np.linspace(0, len(distinct) - 1, min(count, len(distinct)))
    return distinct[np.round(chosen).astype(int)]


def _rank(checkpoint: Checkpoint, derived: CodeCache, caption: int, dimension: int) -> _Ranked:
    code = derived.text_codes.dense(caption)
    off = np.array([dimension])
    weight = off_weights(code, np.zeros_like(code), off, derived.mean_positive)
    without = Query(code, (dimension,), (float(weight[0]),), calibration=checkpoint.calibration)
    found = [search(derived.image_codes, query, TOP) for query in (Query(code), without)]
    # As in every search: a score of 0 shares nothing with the query.
    before, after = (hits.rows[hits.scores != 0] for hits in found)
    return _Ranked(caption, before, after)


def _change(collection: Collection, derived: CodeCache, ranked: _Ranked, dimension: int) -> Change:
    strengths = dict(
        zip(*(part.tolist() for part in derived.image_codes.postings(dimension)), strict=True)
    )

    def examples(rows: np.ndarray) -> tuple[Example, ...]:
        return tuple(Example.of(collection, row, strengths.get(row, 0.0)) for row in rows.tolist())

    return Change(
        text=collection.caption_texts[ranked.caption],
        strength=float(derived.text_codes.dense(ranked.caption)[dimension]),
        before=examples(ranked.before),
        after=examples(ranked.after),
    )
