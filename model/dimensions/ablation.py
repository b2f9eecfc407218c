"""Ablation of a dimension: how search results change when it is off.

The queries are captions of the collection that have the dimension. Their stored codes are used, so
no model runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import CodeCache
from sieve.model.dimensions.page import Example
from sieve.model.exclusion import Query, off_weights, search

N_PROBES = 100
TOP = 10
N_CHANGES = 4


class Change(NamedTuple):
    """Change of the results of one query."""

    text: str
    strength: float
    """Activation of the dimension in the query, in [0, 1]."""
    before: tuple[Example, ...]
    """Top ten with every dimension on, with the activation of the dimension in each."""
    after: tuple[Example, ...]
    """Top ten with the dimension off."""

    @property
    def left(self) -> int:
        """Number of results that left the top ten."""
        return len({one.row for one in self.before} - {one.row for one in self.after})


@dataclass(frozen=True)
class Ablation:
    """Effect of switching a dimension off."""

    n_probes: int
    n_changed: int
    """Number of queries with results that left the top ten."""
    mean_left: float
    """Mean number of results that left the top ten."""
    changes: tuple[Change, ...]
    """Queries with the largest change, largest first."""


class _Ranked(NamedTuple):
    """Result rows of one query."""

    caption: int
    before: np.ndarray
    after: np.ndarray

    @property
    def change(self) -> tuple[int, int]:
        """Number of results that left, and the total change of rank of those that stayed."""
        _, was, now = np.intersect1d(self.before, self.after, return_indices=True)
        return len(self.before) - len(was), int(np.abs(was - now).sum())


def ablate_dimension(
    collection: Collection, checkpoint: Checkpoint, cache: CodeCache, dimension: int
) -> Ablation:
    """Switch a dimension off in up to 100 queries that have it, and measure the change.

    Raises a ValueError if the dimension does not exist.
    """
    if not 0 <= dimension < cache.text_codes.m:
        raise ValueError(
            f"there is no dimension {dimension}; there are 0 to {cache.text_codes.m - 1}"
        )
    captions = probe_captions(collection, cache, dimension)
    ranked = [_rank(checkpoint, cache, caption, dimension) for caption in captions.tolist()]
    most = sorted(ranked, key=lambda one: (*(-part for part in one.change), one.caption))
    lefts = [one.change[0] for one in ranked]
    return Ablation(
        n_probes=len(ranked),
        n_changed=sum(left > 0 for left in lefts),
        mean_left=sum(lefts) / max(len(lefts), 1),
        changes=tuple(
            _change(collection, cache, one, dimension)
            for one in most[:N_CHANGES]
            if any(one.change)
        ),
    )


def probe_captions(
    collection: Collection, cache: CodeCache, dimension: int, count: int = N_PROBES
) -> np.ndarray:
    """Return captions that have a dimension: distinct texts, evenly spaced over the collection.

    At most `count` indices of captions, ascending: (c,) int64.
    """
    having, _ = cache.text_codes.postings(dimension)
    texts = collection.caption_texts
    first = {texts[caption].strip().lower(): caption for caption in having[::-1].tolist()}
    distinct = np.sort(np.fromiter(first.values(), np.int64, len(first)))
    chosen = np.linspace(0, len(distinct) - 1, min(count, len(distinct)))
    return distinct[np.round(chosen).astype(int)]


def _rank(checkpoint: Checkpoint, cache: CodeCache, caption: int, dimension: int) -> _Ranked:
    code = cache.text_codes.dense(caption)
    off = np.array([dimension])
    weight = off_weights(code, np.zeros_like(code), off, cache.mean_positive)
    without = Query(code, (dimension,), (float(weight[0]),), calibration=checkpoint.calibration)
    found = [search(cache.image_codes, query, TOP) for query in (Query(code), without)]
    # As in every search, a score of 0 means no shared dimension.
    before, after = (hits.rows[hits.scores != 0] for hits in found)
    return _Ranked(caption, before, after)


def _change(collection: Collection, cache: CodeCache, ranked: _Ranked, dimension: int) -> Change:
    rows, values = cache.image_codes.postings(dimension)
    strengths = dict(zip(rows.tolist(), values.tolist(), strict=True))

    def examples(rows: np.ndarray) -> tuple[Example, ...]:
        return tuple(Example.of(collection, row, strengths.get(row, 0.0)) for row in rows.tolist())

    return Change(
        text=collection.caption_texts[ranked.caption],
        strength=float(cache.text_codes.dense(ranked.caption)[dimension]),
        before=examples(ranked.before),
        after=examples(ranked.after),
    )
