"""Statistics of dimensions: activity, agreement, and association with words, labels and texts.

The code of a text also contains dimensions that only co-occurred with its words in the training
captions. The zero-shot evidence that dimension j represents text t is

    AUC_jt = P(z_xj > z_yj), x an image that matches t, y one that does not,

where the images with the highest cosine of their centred embedding and the text count as matches.
Neither captions nor labels are used.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.sparse.linalg import norm

from sieve.model.codes import SparseCodes, columns_of, shape_of


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


SHARPNESS = 3
"""Exponent of the activations in naming, which emphasises strong activations."""


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


MATCHING = 0.05
"""Share of the images that count as matches of a text."""
SAMPLE = 5000
"""Maximum number of images to use."""


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
