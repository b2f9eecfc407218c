"""Statistics of dimensions: activity, agreement, clarity, and association with texts and labels.

The code of a text also contains dimensions that only co-occurred with its words in the training
captions. The zero-shot evidence that dimension j represents text t is

    AUC_jt = P(z_xj > z_yj), x an image that matches t, y one that does not,

where the images with the highest cosine of their centred embedding and the text count as matches.
Neither captions nor labels are used.

Clarity is the similarity of the images that have a dimension, by a feature vector per image. The
features should come from another model than the codes; otherwise use the centred embeddings of the
backbone, for which the mean similarity of two images is 0. In that case the scores are biased
upwards, so compare dimensions and encoders, not feature spaces. Clarity, redundancy and
polysemanticity are those of SemanticLens (Dreyer et al. 2025, *Mechanistic understanding and
validation of large AI models with SemanticLens*, Nature Machine Intelligence, arXiv 2501.05398),
over the images where a dimension is strongest. Monosemanticity is that of Pach et al. 2025 (arXiv
2504.02821), over all images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.sparse.linalg import norm

from sieve.model.codes import SparseCodes, columns_of, shape_of

SHARPNESS = 3
"""Exponent of the activations in naming, which emphasises strong activations."""
MATCHING = 0.05
"""Share of the images that count as matches of a text."""
SAMPLE = 5000
"""Maximum number of images to use."""
N_STRONGEST = 20
"""Number of images per dimension whose similarity is measured."""
_N_LLOYD = 20
_ROWS_A_BATCH = 8192
_DIMENSIONS_A_BATCH = 256


def firing_rate(codes: SparseCodes) -> np.ndarray:
    """Return the share of the rows that have each dimension: (m,) float64."""
    return np.diff(codes.by_dimension.indptr) / max(codes.n, 1)


def agreement(images: csr_array, texts: csr_array) -> np.ndarray:
    """Return the image-text agreement of each dimension: (m,) float64 in [0, 1].

    The cosine between a dimension's activations on the images and its mean activations on their
    captions: 1 if both modalities fire on the same items in the same proportions.
    """
    shared = np.asarray((images * texts).sum(0)).ravel()
    norms = np.sqrt(np.asarray((images**2).sum(0)).ravel() * np.asarray((texts**2).sum(0)).ravel())
    return shared / np.maximum(norms, 1e-12)


def live_shares(images: SparseCodes, texts: SparseCodes) -> dict[str, float]:
    """Return the share of live dimensions, and of those live in both modalities.

    A dimension is live if it fires for some row. It is live in both modalities if the smaller of
    its two firing rates is at least a tenth of the larger.
    """
    rates = np.stack([firing_rate(images), firing_rate(texts)])
    live = rates.max(0) > 0
    both = live & (rates.min(0) >= 0.1 * rates.max(0))
    return {"live": float(live.mean()), "live_in_both": float(both.sum() / max(live.sum(), 1))}


def mean_caption_codes(text_codes: SparseCodes, caption_item: np.ndarray, n: int) -> csr_array:
    """Return the mean code of the captions of each item: (n, m) float32, zero without captions."""
    items = np.asarray(caption_item)
    counts = np.bincount(items, minlength=n).astype(np.float32)
    weights = 1 / counts[items]
    average = csr_array((weights, (items, np.arange(len(items)))), shape=(n, len(items)))
    return csr_array(average @ text_codes.by_row)


def both_modalities(images: csr_array, texts: csr_array) -> csr_array:
    """Sum the cubed activations of both modalities, each scaled to unit norm per dimension.

    (n, m) codes of the images, and mean codes of their captions.
    """
    sharp = [codes**SHARPNESS for codes in (images, texts)]
    one, other = (codes / np.maximum(norm(codes, axis=0), 1e-12)[None, :] for codes in sharp)
    return csr_array(csr_array(one) + csr_array(other))


def word_association(activations: csr_array, presence: csr_array) -> np.ndarray:
    """Return the cosine of each dimension with each word over items.

    (n, m) non-negative, (n, w) of 0 and 1 → (m, w) float32, in [0, 1].
    """
    shared = (activations.T @ presence).toarray()
    counts = np.sqrt(np.asarray(presence.sum(0)).ravel())
    norms = np.outer(norm(activations, axis=0), counts)
    return (shared / np.maximum(norms, 1e-12)).astype(np.float32)


def auc_matrix(codes: csr_array, presence: csr_array) -> np.ndarray:
    r"""Return the area under the ROC curve of every dimension for every label.

        AUC = (Σ_{i has l} rank_i - n_l (n_l + 1) / 2) / (n_l (n - n_l))

    the probability that an item with the label has a higher activation than one without, with ties
    counted half (Mann-Whitney). All zeros tie, so only active entries are ranked. (n, m)
    non-negative, (n, l) of 0 and 1 → (m, l) float64, NaN if no item or every item has the label.
    """
    from scipy.stats import rankdata

    columns = csc_array(codes)
    columns.eliminate_zeros()
    n, m = shape_of(columns)
    n_active = np.diff(columns.indptr)
    zero_rank = (n - n_active + 1) / 2  # the mean rank of the zeros, which come first
    lift = [
        n - len(values) + rankdata(values) - zero_rank[j]
        for j, (_, values) in enumerate(columns_of(columns))
    ]
    parts = (np.concatenate([*lift, np.empty(0)]), columns.indices, columns.indptr)
    lifts = csc_array(parts, shape=(n, m))
    having = np.asarray(presence.sum(0)).ravel()
    ranks = (lifts.T @ presence).toarray() + np.outer(zero_rank, having)
    pairs = having * (n - having)
    return (ranks - having * (having + 1) / 2) / np.where(pairs > 0, pairs, np.nan)


def sample_rows(n: int) -> np.ndarray:
    """Return at most `SAMPLE` of n rows, evenly spaced: (s,) int64."""
    return np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64)


class ZeroShotEvidence:
    """Evidence of dimensions for texts, measured on a set of images.

    Parameters
    ----------
    codes : (n, m) float32, sparse, non-negative
        Codes of images.
    embeddings : (n, d) float16 or float32
        The backbone's embeddings of the same images.
    """

    def __init__(self, codes: csr_array, embeddings: np.ndarray) -> None:
        images = np.asarray(embeddings, np.float32)
        images = images - images.mean(0)
        norms = np.linalg.norm(images, axis=1, keepdims=True)
        self._images = images / np.maximum(norms, 1e-12)
        self._codes = csc_array(codes)

    def auc(self, texts: np.ndarray, dimensions: np.ndarray | None = None) -> np.ndarray:
        """Return the evidence of dimensions for texts: (t, m) float32 in [0, 1].

        Parameters
        ----------
        texts : (t, d) float32
            The backbone's embeddings of the texts.
        dimensions : (c,) int64, optional
            Dimensions to compute, by default all; the others get 0.5.
        """
        _, m = shape_of(self._codes)
        dimensions = np.arange(m) if dimensions is None else dimensions
        cosines = self._images @ texts.T  # (n, t)
        matches = cosines >= np.quantile(cosines, 1 - MATCHING, axis=0)
        auc_ct = auc_matrix(self._codes[:, dimensions], csr_array(matches.astype(np.float32)))
        evidence = np.full((len(texts), m), 0.5, np.float32)
        evidence[:, dimensions] = np.nan_to_num(auc_ct.T, nan=0.5)
        return evidence


class ExampleScores(NamedTuple):
    """Scores from the strongest images of each dimension; NaN if there are too few."""

    clarity: np.ndarray
    """(m,) float64, in [-1, 1]"""
    redundancy: np.ndarray
    """(m,) float64, in [-1, 1]"""
    polysemanticity: np.ndarray
    """(m,) float64, in [0, 2]"""


def centred_features(embeddings: np.ndarray) -> np.ndarray:
    """Subtract the mean and renormalise: (n, d) → (n, d) float32, unit or zero rows."""
    features = np.asarray(embeddings, np.float32)
    features = features - features.mean(0) if len(features) else features
    return features / _norms(features)


def strongest(codes: csc_array, count: int = N_STRONGEST) -> tuple[np.ndarray, np.ndarray]:
    """Return the s rows with the highest activation of each dimension, ties by row.

    (n, m) non-negative codes → rows, (m, s) int64, strongest first, padded with 0; and which are
    no padding, (m, s) bool.
    """
    _, m = shape_of(codes)
    rows, there = np.zeros((m, count), np.int64), np.zeros((m, count), bool)
    for j, (having, values) in enumerate(columns_of(codes)):
        top = having[np.argsort(-values, kind="stable")[:count]]
        rows[j, : len(top)], there[j, : len(top)] = top, True
    return rows, there


def clarity(examples: np.ndarray, there: np.ndarray) -> np.ndarray:
    r"""Return the mean cosine between the examples of each dimension.

        clarity = (|Σ_i v_i|² - s) / (s (s - 1)),  v_i unit vectors, s of them

    The clarity score of SemanticLens: 1 if all examples are equal, about 0 if they are unrelated,
    at least -1 / (s - 1). (m, s, d) unit vectors, (m, s) bool, False for padding → (m,) float64,
    NaN for fewer than two examples.
    """
    total = (examples * there[..., None]).sum(1, dtype=np.float64)
    count = there.sum(1)
    pairs = np.where(count > 1, count * (count - 1.0), np.nan)
    return ((total**2).sum(1) - count) / pairs


def redundancy(centres: np.ndarray) -> np.ndarray:
    """Return the cosine of each mean example with that of the most similar dimension.

    The redundancy of SemanticLens per dimension: 1 if another dimension has the same meaning.
    (m, d), zero for dimensions without examples → (m,) float64, NaN without examples, or without
    another dimension with examples.
    """
    norms = np.linalg.norm(centres, axis=1)
    alive = np.flatnonzero(norms > 1e-12)
    scores = np.full(len(centres), np.nan)
    if len(alive) > 1:
        unit = (centres[alive] / norms[alive, None]).astype(np.float32)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -np.inf)
        scores[alive] = similarity.max(1)
    return scores


def polysemanticity(examples: np.ndarray, there: np.ndarray) -> np.ndarray:
    r"""Return the distance between the two clusters of the examples of each dimension.

        polysemanticity = 1 - cos(c_1, c_2),  c_1 and c_2 the centres that 2-means finds

    As in SemanticLens. A cluster of a single example is an outlier, not a second meaning; the score
    is then 1 - the mean cosine between an example and the mean of all. 2-means starts from the two
    most distant examples, so it is deterministic. (m, s, d) unit vectors, (m, s) bool → (m,)
    float64 in [0, 2], NaN for fewer than two examples.
    """
    counted = examples * there[..., None]
    in_second = _two_means(counted, there)
    in_first = there & ~in_second
    first, second, mean = (_mean(counted, part) for part in (in_first, in_second, there))
    apart = (first / _norms(first) * (second / _norms(second))).sum(-1)
    along = np.einsum("msd,md->ms", counted, mean / _norms(mean)).sum(1)
    along = along / np.maximum(there.sum(1), 1)
    is_stray = np.minimum(in_first.sum(1), in_second.sum(1)) < 2
    score = 1 - np.where(is_stray, along, apart)
    return np.where(there.sum(1) > 1, np.clip(score, 0, 2), np.nan)


def example_scores(codes: csc_array, features: np.ndarray) -> ExampleScores:
    """Return the scores of every dimension: (n, m) codes, (n, d) unit features → (m,) each."""
    rows, there = strongest(codes)
    m, width = len(rows), features.shape[1]
    clear, many = np.full((2, m), np.nan)
    centres = np.zeros((m, width))
    for start in range(0, m if len(features) else 0, _DIMENSIONS_A_BATCH):
        part = slice(start, start + _DIMENSIONS_A_BATCH)
        examples = features[rows[part]]  # (b, s, d)
        clear[part] = clarity(examples, there[part])
        many[part] = polysemanticity(examples, there[part])
        centres[part] = _mean(examples, there[part])
    return ExampleScores(clear, redundancy(centres), many)


def monosemanticity(activations: csr_array, features: np.ndarray) -> np.ndarray:
    r"""Return the similarity of the images of each dimension, weighted by activation.

        MS_j = Σ_{i≠l} a_i a_l cos(e_i, e_l) / Σ_{i≠l} a_i a_l
             = (|Σ a_i e_i|² - Σ a_i² |e_i|²) / ((Σ a_i)² - Σ a_i²)

    with a the activations of dimension j, min-max scaled over all images, and e unit vectors (Pach
    et al. 2025, arXiv 2504.02821, with e from another encoder than the codes). The second form
    needs no n × n matrix. (n, m) non-negative, (n, d) unit or zero rows → (m,) float64 in [-1, 1],
    NaN for fewer than two images.
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
    # For a single image, the difference of the sums is only rounding error.
    lone = pairs <= 1e-9 * np.maximum(sums**2, 1e-30)
    score = ((total**2).sum(1) - own) / np.where(lone, np.nan, pairs)
    return np.clip(score, -1, 1)


def _min_max_scaled(activations: csr_array) -> csr_array:
    """Scale each dimension to [0, 1] over all rows: (n, m) float64."""
    codes = csc_array(activations, dtype=np.float64)
    if not shape_of(codes)[0]:
        return csr_array(codes)
    low, high = (found.toarray().ravel() for found in (codes.min(axis=0), codes.max(axis=0)))
    # A dimension with a minimum above 0 has an entry in every row, so sparsity is unchanged.
    column = np.repeat(np.arange(len(low)), np.diff(codes.indptr))
    codes.data = (codes.data - low[column]) / np.maximum(high - low, 1e-30)[column]
    return csr_array(codes)


def _two_means(examples: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Run 2-means (Lloyd) within each dimension: (m, s) bool, True in the second cluster."""
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
    """Mean of the chosen examples: (m, s, d), (m, s) → (m, d), zero if there are none."""
    count = np.maximum(chosen.sum(1), 1)[:, None]
    return np.einsum("msd,ms->md", examples, chosen.astype(examples.dtype)) / count


def _norms(vectors: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
