"""How clear a dimension's meaning is, by the likeness of the images that have it.

Pure functions of activations and of a feature for each image. The feature says when two images are
alike: best from a model that has not made the codes, else the backbone's own embedding, centred, so
that 0 is the likeness of any two images of the collection. With the backbone's own, a high score
partly restates that the codes were made of it; compare dimensions and encoders, not feature spaces.

Clarity, redundancy and polysemanticity are those of SemanticLens (Dreyer et al. 2025, *Mechanistic
understanding and validation of large AI models with SemanticLens*, Nature Machine Intelligence,
arXiv 2501.05398), over the images where a dimension is strongest. Monosemanticity is that of Pach
et al. 2025 (arXiv 2504.02821), over all images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array, csr_array

from sieve.model.codes import columns_of, shape_of

N_STRONGEST = 20
"""Images of a dimension whose likeness is looked at."""
_N_LLOYD = 20
_ROWS_A_BATCH = 8192
_DIMENSIONS_A_BATCH = 256


class Strongest(NamedTuple):
    """Images where each dimension is strongest."""

    rows: np.ndarray
    """(m, s) int64, strongest first; 0 where there are fewer than s."""
    there: np.ndarray
    """(m, s) bool: False where there are fewer than s."""


class ExampleScores(NamedTuple):
    """What the strongest images of each dimension tell; NaN where they are too few."""

    clarity: np.ndarray
    """(m,) float64, in [-1, 1]"""
    redundancy: np.ndarray
    """(m,) float64, in [-1, 1]"""
    polysemanticity: np.ndarray
    """(m,) float64, in [0, 2]"""


def centred_features(embeddings: np.ndarray) -> np.ndarray:
    """Take the mean off and renormalise: (n, d) → (n, d) float32, unit rows (or zero)."""
    features = np.asarray(embeddings, np.float32)
    features = features - features.mean(0) if len(features) else features
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)


def strongest(codes: csc_array, count: int = N_STRONGEST) -> Strongest:
    """Find the rows where each dimension is strongest, ties by row.

    Parameters
    ----------
    codes : (n, m) float32, non-negative
    count : int
        s, the most rows of one dimension.
    """
    _, m = shape_of(codes)
    rows, there = np.zeros((m, count), np.int64), np.zeros((m, count), bool)
    for j, (having, values) in enumerate(columns_of(codes)):
        found = having[np.argsort(-values, kind="stable")[:count]]
        rows[j, : len(found)], there[j, : len(found)] = found, True
    return Strongest(rows, there)


def clarity(examples: np.ndarray, there: np.ndarray) -> np.ndarray:
    r"""Mean cosine between the examples of a dimension.

        clarity = (|Σ_i v_i|² - s) / (s (s - 1)),  v_i unit vectors, s of them

    SemanticLens' clarity score: 1 where all examples are alike, about 0 where they have nothing in
    common, at least -1 / (s - 1).

    Parameters
    ----------
    examples : (m, s, d) float32, unit vectors
    there : (m, s) bool
        Which of them count.

    Returns
    -------
    (m,) float64, NaN where there are fewer than two
    """
    total = (examples * there[..., None]).sum(1, dtype=np.float64)
    count = there.sum(1)
    pairs = np.where(count > 1, count * (count - 1.0), np.nan)
    return ((total**2).sum(1) - count) / pairs


def redundancy(centres: np.ndarray) -> np.ndarray:
    """Cosine of each dimension's mean example with that of the dimension most like it.

    SemanticLens' redundancy, for each dimension: 1 where another dimension means the same.

    Parameters
    ----------
    centres : (m, d) float
        Mean examples; zero rows are dimensions without any.

    Returns
    -------
    (m,) float64, NaN where there is no example, or no other dimension with any
    """
    norms = np.linalg.norm(centres, axis=1)
    alive = np.flatnonzero(norms > 1e-12)
    found = np.full(len(centres), np.nan)
    if len(alive) > 1:
        unit = (centres[alive] / norms[alive, None]).astype(np.float32)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -np.inf)
        found[alive] = similarity.max(1)
    return found


def polysemanticity(examples: np.ndarray, there: np.ndarray) -> np.ndarray:
    r"""How far apart the two meanings are that the examples fall into.

        polysemanticity = 1 - cos(c_1, c_2),  c_1 and c_2 the centres that 2-means finds

    As SemanticLens has it. Where one centre holds a single example, that is a stray image and no
    second meaning: then 1 - the mean cosine between an example and the mean of all. 2-means starts
    from the two examples farthest apart, so that it needs no chance.

    Parameters
    ----------
    examples : (m, s, d) float32, unit vectors
    there : (m, s) bool

    Returns
    -------
    (m,) float64 in [0, 2], NaN where there are fewer than two
    """
    counted = examples * there[..., None]
    second = _two_means(counted, there)  # (m, s): 1 where an example belongs to the second centre
    in_second = there & second
    in_first = there & ~second
    apart = _cosine(*(_mean(counted, part) for part in (in_first, in_second)))
    mean = _mean(counted, there)
    along = np.einsum("msd,md->ms", counted, mean / _norms(mean)).sum(1)
    along = along / np.maximum(there.sum(1), 1)
    stray = np.minimum(in_first.sum(1), in_second.sum(1)) < 2
    score = 1 - np.where(stray, along, apart)
    return np.where(there.sum(1) > 1, np.clip(score, 0, 2), np.nan)


def example_scores(codes: csc_array, features: np.ndarray) -> ExampleScores:
    """Clarity, redundancy and polysemanticity of every dimension.

    Parameters
    ----------
    codes : (n, m) float32, non-negative
    features : (n, d) float32, unit rows
    """
    rows, there = strongest(codes)
    (_, m), width = shape_of(codes), features.shape[1]
    clear, many = np.full(m, np.nan), np.full(m, np.nan)
    centres = np.zeros((m, width))
    for start in range(0, m if len(features) else 0, _DIMENSIONS_A_BATCH):
        part = slice(start, start + _DIMENSIONS_A_BATCH)
        examples = features[rows[part]]  # (b, s, d)
        clear[part] = clarity(examples, there[part])
        many[part] = polysemanticity(examples, there[part])
        centres[part] = _mean(examples, there[part])
    return ExampleScores(clear, redundancy(centres), many)


def monosemanticity(activations: csr_array, features: np.ndarray) -> np.ndarray:
    r"""Likeness of the images that a dimension fires on, weighted by how strongly it fires.

        MS_j = Σ_{i≠l} a_i a_l cos(e_i, e_l) / Σ_{i≠l} a_i a_l
             = (|Σ a_i e_i|² - Σ a_i² |e_i|²) / ((Σ a_i)² - Σ a_i²)

    with a the activations of dimension j, min-max scaled over all images, and e unit vectors (Pach
    et al. 2025, arXiv 2504.02821, which takes e from an encoder that has not made the codes). The
    second form needs no n × n matrix.

    Parameters
    ----------
    activations : (n, m) float32, non-negative
    features : (n, d) float32, unit rows (or zero)

    Returns
    -------
    (m,) float64 in [-1, 1], NaN where fewer than two images have the dimension
    """
    n, m = shape_of(activations)
    scaled = _min_max_scaled(activations)
    total = np.zeros((m, features.shape[1]))
    for start in range(0, n, _ROWS_A_BATCH):
        part = slice(start, start + _ROWS_A_BATCH)
        total += scaled[part].T @ features[part]
    squared = csr_array(scaled**2)
    own = squared.T @ (np.asarray(features, np.float64) ** 2).sum(1)
    sums = np.asarray(scaled.sum(0)).ravel()
    pairs = sums**2 - np.asarray(squared.sum(0)).ravel()
    # The difference of two equal sums leaves rounding, not pairs.
    lone = pairs <= 1e-9 * np.maximum(sums**2, 1e-30)
    score = ((total**2).sum(1) - own) / np.where(lone, np.nan, pairs)
    return np.clip(score, -1, 1)


def _min_max_scaled(activations: csr_array) -> csr_array:
    """Scale each dimension to [0, 1] over all rows: (n, m) float64."""
    codes = csc_array(activations, dtype=np.float64)
    n, m = shape_of(codes)
    if not n:
        return csr_array((n, m))
    low = codes.min(axis=0).toarray().ravel()
    high = codes.max(axis=0).toarray().ravel()
    # A dimension whose least value is not 0 has an entry in every row, so it stays sparse.
    spread = np.maximum(high - low, 1e-30)
    values = [(v - low[j]) / spread[j] for j, (_, v) in enumerate(columns_of(codes))]
    parts = (np.concatenate([*values, np.empty(0)]), codes.indices, codes.indptr)
    return csr_array(csc_array(parts, shape=(n, m)))


def _two_means(examples: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Lloyd's 2-means within each dimension: (m, s) bool, True in the second cluster."""
    similarity = np.einsum("msd,mtd->mst", examples, examples)
    pairs = there[:, :, None] & there[:, None, :]
    m, s = there.shape
    farthest = np.where(pairs, similarity, np.inf).reshape(m, -1).argmin(1)
    every = np.arange(m)
    centres = np.stack([examples[every, farthest // s], examples[every, farthest % s]], 1)
    second = np.zeros((m, s), bool)
    for _ in range(_N_LLOYD):
        # |v - c|² with |v| = 1: only -2 v·c + |c|² differs between the centres
        distance = (centres**2).sum(-1)[:, None, :] - 2 * np.einsum(
            "msd,mcd->msc", examples, centres
        )
        now = (distance[..., 1] < distance[..., 0]) & there
        if (now == second).all():
            break
        second = now
        centres = np.stack([_mean(examples, there & ~second), _mean(examples, second)], 1)
    return second


def _mean(examples: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean of the chosen examples: (m, s, d), (m, s) → (m, d), zero where none is."""
    count = np.maximum(chosen.sum(1), 1)[:, None]
    return np.einsum("msd,ms->md", examples, chosen.astype(examples.dtype)) / count


def _norms(vectors: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return ((left / _norms(left)) * (right / _norms(right))).sum(-1)
