"""Group dimensions that are active together into concepts.

The similarity of two dimensions is the mean of two correlations: of their activations on the
images, and of their mean activations on the images' captions. Average linkage joins dimensions as
long as the mean similarity of two groups is at least `SIMILARITY`. Computed from a sample of the
items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csc_array, csr_array

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes, shape_of
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import cache_folder, codes_of, read_or_compute
from sieve.model.dimensions.statistics import mean_caption_codes, sample_rows
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes

VERSION = 2
"""Version of the grouping; cached concepts of another version are computed again."""
SIMILARITY = 0.3
"""Minimum mean similarity of two groups that are joined. Of .2 to .6, the value for which most
labels of validation scenes have a concept with an AUC of at least .95."""
MOST_GROUPED = 20_000
"""With more live dimensions, each is its own concept: the matrix of similarities would not fit."""
_FILE = "concepts.npy"
_LEAST_ACTIVE = 5
"""Dimensions that are active on fewer images are not joined with others."""


@dataclass(frozen=True)
class Concepts:
    """The concept of each dimension.

    A concept is identified by its leading dimension, the one most similar to the others.
    """

    of_dimension: np.ndarray
    """(m,) int32: the leading dimension of each dimension's concept"""

    def members(self, dimension: int) -> np.ndarray:
        """Return the dimensions of a dimension's concept, the leading one first: (c,) int64."""
        leading = self.of_dimension[dimension]
        members = np.flatnonzero(self.of_dimension == leading)
        return np.concatenate([[leading], members[members != leading]])

    def sum(self, codes: csr_array) -> tuple[np.ndarray, csr_array]:
        """Sum the activations of each concept: leading dimensions (c,), and (n, c) float32."""
        leading, column = np.unique(self.of_dimension, return_inverse=True)
        m = len(self.of_dimension)
        joins = csr_array((np.ones(m, np.float32), (np.arange(m), column)), (m, len(leading)))
        return leading, csr_array(codes @ joins)


def open_concepts(collection: Collection, checkpoint: Checkpoint) -> Concepts:
    """Return the concepts of a checkpoint on a collection, computed once and cached."""

    def compute() -> Concepts:
        if not checkpoint.codes:
            return encoder_concepts(checkpoint.encoder, collection)
        rows = sample_rows(collection.n_items)
        captions = collection.captions_of_rows(rows)
        images, texts = codes_of(collection, checkpoint)
        return _grouped(collection, rows, captions, images.take(rows), texts.take(captions))

    folder = cache_folder(collection, checkpoint, f"concepts{VERSION}")
    return read_or_compute(folder, _load, compute, _save)


def encoder_concepts(encoder: SparseEncoder, collection: Collection) -> Concepts:
    """Return the concepts of an encoder on a collection."""
    rows = sample_rows(collection.n_items)
    captions = collection.captions_of_rows(rows)
    images = encode_codes(encoder, np.asarray(collection.image_embeddings[rows]), IMAGE)
    texts = encode_codes(encoder, np.asarray(collection.text_embeddings[captions]), TEXT)
    return _grouped(collection, rows, captions, images, texts)


def _grouped(
    collection: Collection,
    rows: np.ndarray,
    captions: np.ndarray,
    images: SparseCodes,
    texts: SparseCodes,
) -> Concepts:
    owner = collection.item_positions(rows, captions)
    return group_dimensions(images.by_row, mean_caption_codes(texts, owner, len(rows)))


def _save(concepts: Concepts, folder: Path) -> None:
    np.save(folder / _FILE, concepts.of_dimension)


def _load(folder: Path) -> Concepts:
    return Concepts(np.load(folder / _FILE, allow_pickle=False))


def group_dimensions(images: csr_array, texts: csr_array) -> Concepts:
    """Group the dimensions of codes into concepts.

    Parameters
    ----------
    images, texts : (n, m) float32, sparse, non-negative
        Codes of the images, and mean codes of the captions of each; all zero without captions.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    active = np.diff(csc_array(images).indptr)
    _, m = shape_of(images)
    of_dimension = np.arange(m, dtype=np.int32)
    live = np.flatnonzero(active >= _LEAST_ACTIVE)
    if not 1 < len(live) <= MOST_GROUPED:
        return Concepts(of_dimension)
    similarity = _correlation(csc_array(images)[:, live])
    if texts.nnz:
        similarity = (similarity + _correlation(csc_array(texts)[:, live])) / 2
    distance = np.clip(1 - similarity, 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average")
    group = fcluster(tree, 1 - SIMILARITY, "distance")
    for number in range(1, group.max() + 1):
        members = live[group == number]
        within = similarity[np.ix_(group == number, group == number)]
        of_dimension[members] = members[np.argmax(within.sum(axis=0))]
    return Concepts(of_dimension)


def _correlation(codes: csc_array) -> np.ndarray:
    """Return the correlations of all columns: (n, c) → (c, c) float32, 0 for constant columns."""
    n, _ = shape_of(codes)
    mean = np.asarray(codes.mean(0)).ravel()
    covariance = (codes.T @ codes).toarray() / n - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0))
    scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
    return (covariance * np.outer(scale, scale)).astype(np.float32)
