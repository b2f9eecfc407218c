"""SpLiCE: an embedding as a sparse non-negative sum of concepts.

    min_w ½ |Cᵀ w - x|² + λ |w|₁, w ≥ 0

over unit rows C: embeddings of words, centred on the text mean; x is centred on its modality's mean
(Bhalla et al. 2024, arXiv 2402.10376). Solved by ADMM; (C Cᵀ + ρ I)⁻¹ is applied through its d × d
Woodbury form, which is cheap for many words.
"""

from __future__ import annotations

import numpy as np


def decompose(
    embeddings: np.ndarray, dictionary: np.ndarray, weight: float, iterations: int = 100
) -> np.ndarray:
    """Concepts of embeddings.

    Parameters
    ----------
    embeddings : (n, d) float32
        Centred, unit rows.
    dictionary : (v, d) float32
        Concepts, centred, unit rows.
    weight : float
        λ: with more of it, fewer concepts are active.
    iterations : int

    Returns
    -------
    (n, v) float32, non-negative
    """
    rho = np.float32(1.0)
    # (C Cᵀ + ρI)⁻¹ = (I - C (ρI + CᵀC)⁻¹ Cᵀ) / ρ
    inner = rho * np.eye(dictionary.shape[1]) + dictionary.T.astype(np.float64) @ dictionary
    back = np.linalg.solve(inner, dictionary.T).astype(np.float32)
    target = embeddings @ dictionary.T
    kept = np.zeros_like(target)
    dual = np.zeros_like(target)
    for _ in range(iterations):
        right = target + rho * (kept - dual)
        plain = (right - (right @ dictionary) @ back) / rho
        kept = np.maximum(plain + dual - weight / rho, 0)
        dual += plain - kept
    return kept.astype(np.float32)
