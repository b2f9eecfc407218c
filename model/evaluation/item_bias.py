"""Biases of items: how well each item matches any query at all.

Some items score high for most queries, which hides those that match a query in particular. Both
corrections estimate this from the scores of an item over a bank of queries, here the words of the
training captions. Neither needs training or labels.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np


class ItemBias:
    """Location, scale and highest scores of each item over a bank of queries.

    Parameters
    ----------
    bank_scores : (v, n) float32
        Score of each query of the bank for each item; v must be at least 2.
    """

    def __init__(self, bank_scores: np.ndarray) -> None:
        if len(bank_scores) < 2:
            raise ValueError(f"expected at least 2 queries in the bank; got {len(bank_scores)}")
        self._scores = bank_scores

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean score of each item: (n,) float32."""
        return self._scores.mean(0)

    @cached_property
    def deviation(self) -> np.ndarray:
        """Sample standard deviation of the scores of each item: (n,) float32, positive."""
        return np.maximum(self._scores.std(0, ddof=1), np.float32(1e-12))

    @cached_property
    def _mean_of_highest(self) -> np.ndarray:
        """(v, n) float32: row k - 1 has the mean of the k highest scores of each item."""
        highest = -np.sort(-self._scores, axis=0)
        counts = np.arange(1, len(highest) + 1, dtype=np.float32)[:, None]
        return (highest.cumsum(0, dtype=np.float64) / counts).astype(np.float32)

    def standardise(self, scores: np.ndarray) -> np.ndarray:
        """Standardise the scores of each item over the bank, then those of each query over items.

            s'_qx = (s_qx - mean_x) / deviation_x,   s''_qx = (s'_qx - mean_q) / deviation_q

        As SPARC does before it fuses compound prompts (Miller et al., CVPR 2025,
        kjmillerCURIS/SPARC). (q, n) float32 → (q, n) float32; n must be at least 2.
        """
        by_item = (scores - self.mean) / self.deviation
        spread = np.maximum(by_item.std(1, ddof=1, keepdims=True), 1e-12)
        return ((by_item - by_item.mean(1, keepdims=True)) / spread).astype(np.float32)

    def subtract_nearest(self, scores: np.ndarray, weight: float, k: int) -> np.ndarray:
        """Subtract a share of the mean of each item's k highest scores: (q, n) → (q, n) float32.

        Nearest-neighbour normalisation (Chowdhury et al., EMNLP 2024, arXiv 2410.24114). `k` is
        reduced to the size of the bank.
        """
        bias = self._mean_of_highest[min(k, len(self._scores)) - 1]
        return (scores - np.float32(weight) * bias).astype(np.float32)
