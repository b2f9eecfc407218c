"""Learned weights of B: logistic probes over dimensions, fitted on training captions.

The text of B says which dimensions it activates, not which of them predict B in images. A probe of
a word minimises

    mean_i log(1 + exp(-y_i (w·z_i + c))) + ½ λ |w|²,   w ≥ 0 for non-negative codes

over the training items, with y_i = ±1 for a word that is, or is not, in a caption of item i, also
as a hypernym of its words. Its weights, scaled to unit norm, replace B's code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from sieve.model.words.text import presence_in

PENALTY = 1e-4
"""λ"""
MIN_ITEMS = 20
"""Minimum number of training items with and without a word; other words keep the code of B."""


def word_weights(
    words: Sequence[str], codes: np.ndarray | csr_array, captions: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return the weights of each word that is frequent enough: (m,) float32, of unit norm.

    `codes` are the training items', (n, m); with a negative code, weights may be negative too.
    """
    distinct = list(dict.fromkeys(words))
    texts = ["\n".join(item) for item in captions]
    presence = presence_in(distinct, texts, kinds=True).toarray() > 0
    counts = presence.sum(0)
    frequent = np.flatnonzero(np.minimum(counts, len(texts) - counts) >= MIN_ITEMS)
    found = {distinct[at]: fit_probe(codes, presence[:, at]) for at in frequent.tolist()}
    return {word: weights for word, weights in found.items() if weights.any()}


def fit_probe(
    codes: np.ndarray | csr_array, has: np.ndarray, penalty: float = PENALTY
) -> np.ndarray:
    """Fit the probe of one word: (n, m) codes, (n,) bool → (m,) float32, of unit norm or zero."""
    values = codes.data if isinstance(codes, csr_array) else codes
    lowest = 0 if values.min(initial=0) >= 0 else None
    transposed = codes.T.tocsr() if isinstance(codes, csr_array) else codes.T
    m = int(np.shape(transposed)[0])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = parameters[:m], parameters[m]
        logits = codes @ weights + intercept
        error = expit(logits) - has
        value = np.mean(np.logaddexp(0, np.where(has, -logits, logits)))
        gradient = transposed @ (error / len(has)) + penalty * weights
        total = float(value + penalty / 2 * (weights @ weights))
        return total, np.append(gradient, error.mean())

    start = np.append(np.zeros(m), np.log(has.mean() / (1 - has.mean())))
    bounds = [(lowest, None)] * m + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:m]
    norm = np.linalg.norm(found)
    return (found / (norm if norm > 0 else 1)).astype(np.float32)
