"""Intervals by bootstrap over A-words and images, the same resamples for every method.

Each resample draws the items with replacement and, independently, the A-words with replacement: an
A-word brings all its pairs. Rankings need not be made again: an item drawn twice stands twice in
its place, one that is not drawn leaves it. That is exact as long as a ranking's first `DEPTH`
items still fill the first ten places, which fails about once in 10⁹ resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sieve.model.evaluation.metrics import TOP, average_precision, marks_of

DEPTH = 40


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Ranking(NamedTuple):
    """One method's rankings of all pairs, by one training seed."""

    rows: np.ndarray
    """(p, DEPTH) int64, -1 where nothing is left"""


@dataclass(frozen=True)
class Resamples:
    """Draws that all methods share."""

    items: np.ndarray
    """(r, n) int16: how often each item is drawn"""
    pairs: np.ndarray
    """(r, p) float32: weight of each pair, how often its A-word is drawn"""


class Resampled(NamedTuple):
    """A method's means over pairs and seeds in each resample."""

    ap: np.ndarray
    """(r,) float64"""
    violation: np.ndarray
    """(r,) float64"""


def draw_resamples(a_names: Sequence[str], n_items: int, count: int, seed: int) -> Resamples:
    """Draw items and A-words with replacement.

    Parameters
    ----------
    a_names : sequence of str
        A of each pair.
    n_items : int
    count : int
    seed : int
    """
    generator = np.random.default_rng([seed, 2])
    names, which = np.unique(np.asarray(a_names), return_inverse=True)
    even = np.full(n_items, 1 / n_items)
    items = generator.multinomial(n_items, even, size=count).astype(np.int16)
    words = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    return Resamples(items, words[:, which].astype(np.float32))


def resample(
    rankings: Sequence[Ranking],
    relevant: np.ndarray,
    violating: np.ndarray,
    draws: Resamples,
) -> Resampled:
    """Measure a method in every resample.

    Parameters
    ----------
    rankings : sequence of Ranking
        One a training seed.
    relevant, violating : (p, n) bool
    draws : Resamples

    Returns
    -------
    Resampled
        A pair that no drawn item answers does not count in that resample.
    """
    total = draws.items.astype(np.float32) @ relevant.T.astype(np.float32)  # (r, p)
    weights = np.where(total > 0, draws.pairs, 0)
    means = np.zeros((2, len(rankings), len(draws.items)))
    for s, ranking in enumerate(rankings):
        good, bad = marks_of(ranking.rows, relevant), marks_of(ranking.rows, violating)
        for r, drawn in enumerate(draws.items):
            hits, broken = _redrawn(ranking.rows, drawn, good, bad)
            ap = np.nan_to_num(average_precision(hits, total[r]))
            whole = max(weights[r].sum(), 1)
            means[0, s, r] = (weights[r] * ap).sum() / whole
            means[1, s, r] = (weights[r] * broken.sum(1)).sum() / whole / TOP
    return Resampled(*means.mean(1))


def interval(values: np.ndarray, measured: float, most: float = np.inf) -> Interval:
    """Take the middle 95 % of resampled values, centred on what was measured.

    Copies of an item stand together in a ranking, which raises average precision a little in every
    resample, whatever the method; centring takes that shift away and leaves the spread.

    Parameters
    ----------
    values : (r,) float
    measured : float
        Always inside the interval.
    most : float
        The largest value that there can be; a finite one says that the least is 0.
    """
    low, high = np.quantile(values, [0.025, 0.975]) - values.mean() + measured
    low, high = min(float(low), measured), max(float(high), measured)
    return Interval(max(low, 0.0), min(high, most)) if np.isfinite(most) else Interval(low, high)


def paired_ratio(of: Resampled, over: Resampled, measured: float) -> Interval:
    """Interval of a ratio of AP@10 where both methods meet the same resamples, by its logarithm."""
    logs = np.log(np.maximum(of.ap, 1e-9)) - np.log(np.maximum(over.ap, 1e-9))
    low, high = np.exp(interval(logs, float(np.log(max(measured, 1e-9)))))
    return Interval(float(low), float(high))


def _redrawn(
    rows: np.ndarray, drawn: np.ndarray, good: np.ndarray, bad: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mark the first ten places once items are repeated and dropped: twice (p, 10) bool."""
    last = np.where(rows >= 0, drawn[np.maximum(rows, 0)], 0).cumsum(1, dtype=np.int16)
    # Place t holds the first ranked item whose copies reach t.
    index = (last[:, :, None] < np.arange(1, TOP + 1, dtype=np.int16)).sum(1)  # (p, TOP)
    filled = index < rows.shape[1]
    index = np.minimum(index, rows.shape[1] - 1)
    hits = np.take_along_axis(good, index, 1) & filled
    return hits, np.take_along_axis(bad, index, 1) & filled
