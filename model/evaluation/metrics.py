"""Ranking metrics: average precision, precision, violations, nDCG and recall.

All metrics use the first `top` results of many queries at once. Ties go to the smaller row, as in
`sieve.model.exclusion.search`. Rows with a score of -inf are excluded from the results.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RECALL_RANKS = (1, 5, 10)
TOP = 10


class RankingMeasures(NamedTuple):
    """Metrics of each query, (q,) float64 in [0, 1]; NaN if nothing is relevant."""

    ap: np.ndarray
    """AP@top = 1 / min(R, top) Σ_{i ≤ top} P@i rel_i."""
    precision: np.ndarray
    """Precision: share of relevant results in the top `top`."""
    violation: np.ndarray
    """Share of results in the top `top` that should have been excluded."""
    ndcg: np.ndarray
    """nDCG@top with binary gain, discounted by log2(1 + rank)."""


def ranked_rows(scores: np.ndarray, top: int) -> np.ndarray:
    """Return the rows of the best results of each query, best first, ties by row.

    (q, n) float, -inf for excluded rows → (q, min(top, n)) int64, padded with -1.
    """
    top = min(top, scores.shape[1])
    if top == 0:
        return np.empty((len(scores), 0), np.int64)
    # Partitioning first is faster than a stable sort of all n. Candidates include all rows that
    # tie with the last rank.
    floor = -np.partition(-scores, top - 1, axis=1)[:, top - 1]
    rows = np.full((len(scores), top), -1, np.int64)
    for q, (line, lowest) in enumerate(zip(scores, floor, strict=True)):
        fit = np.flatnonzero((line >= lowest) & (line > -np.inf))
        best = fit[np.argsort(-line[fit], kind="stable")[:top]]
        rows[q, : len(best)] = best
    return rows


def marks_of(rows: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Return the mark of each ranked row: (q, t) int64, (q, n) bool → (q, t) bool."""
    if not rows.size:
        return np.zeros(rows.shape, bool)
    return np.take_along_axis(marked, np.maximum(rows, 0), axis=1) & (rows >= 0)


def average_precision(relevant: np.ndarray, total: np.ndarray, top: int = TOP) -> np.ndarray:
    """Return AP@top of results that are relevant or not: (q, t) bool → (q,) float64.

    `total` is R, the number of relevant rows of each query; the result is NaN if it is 0.
    """
    hits = relevant[:, :top]
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    return _share((precision * hits).sum(1), np.minimum(total, top))


def measure_rankings(
    scores: np.ndarray,
    relevant: np.ndarray,
    violating: np.ndarray | None = None,
    top: int = TOP,
) -> RankingMeasures:
    """Compute the metrics of the rankings of scores, (q, n) float, with (q, n) bool judgments.

    `violating` marks the rows that should have been excluded, by default none.
    """
    rows = ranked_rows(scores, top)
    hits = marks_of(rows, relevant)
    broken = np.zeros_like(hits) if violating is None else marks_of(rows, violating)
    total = relevant.sum(1)
    discount = 1 / np.log2(np.arange(2, top + 2))
    gain = (hits * discount[: hits.shape[1]]).sum(1)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(total, top)]
    return RankingMeasures(
        average_precision(hits, total, top),
        np.where(total > 0, hits.sum(1) / top, np.nan),
        np.where(total > 0, broken.sum(1) / top, np.nan),
        _share(gain, ideal),
    )


def recall_at(
    similarity: np.ndarray, item: np.ndarray, ranks: tuple[int, ...] = RECALL_RANKS
) -> dict[str, float]:
    """Return text-to-image recall: the share of captions whose image is in the top k.

    (c, n) similarity of each caption with each image, (c,) column of the image of each caption →
    `recall@1` and so on, in [0, 1]. Ties count as ranked before the image.
    """
    own = similarity[np.arange(len(item)), item][:, None]
    rank = (similarity >= own).sum(1)
    return {f"recall@{r}": float((rank <= r).mean()) if len(item) else 0.0 for r in ranks}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
