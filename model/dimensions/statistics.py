"""Activity of dimensions, and the quality of codes."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from sieve.model.evaluation import recall_at


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


def recall_of_split(
    images: SparseCodes, texts: SparseCodes, collection: Collection, split: str
) -> dict[str, dict[str, float]]:
    """Return the text-to-image recall in a split, by `codes` and by `backbone` embeddings.

    `images` and `texts` are the codes of the whole collection. Near duplicates of items in an
    earlier split are left out.
    """
    rows = evaluation_rows(collection, split)
    captions = collection.captions_of_rows(rows)
    item = collection.item_positions(rows, captions)
    by_code = (texts.by_row[captions] @ images.by_row[rows].T).toarray()
    dense_texts = collection.text_embeddings[captions].astype(np.float32)
    dense_images = collection.image_embeddings[rows].astype(np.float32)
    return {
        "codes": recall_at(by_code, item),
        "backbone": recall_at(dense_texts @ dense_images.T, item),
    }


def code_quality(
    encoder: SparseEncoder, collection: Collection, split: str = "select"
) -> dict[str, dict[str, float]]:
    """Measure an encoder on a split of a collection: see `recall_of_split`.

    Also returns, as `dimensions`, the `live_shares` over the whole collection.
    """
    images = encode_codes(encoder, collection.image_embeddings, IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings, TEXT)
    recall = recall_of_split(images, texts, collection, split)
    return {**recall, "dimensions": live_shares(images, texts)}
