"""What must hold for a trained encoder: live dimensions, both modalities, retrieval."""

from __future__ import annotations

import numpy as np

from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimensions.statistics import firing_rate
from sieve.model.duplicates import evaluation_rows
from sieve.model.encoder import IMAGE, TEXT, SparseEncoder, encode_codes
from sieve.model.questions import recall_at


def live_shares(images: SparseCodes, texts: SparseCodes) -> dict[str, float]:
    """Share of live dimensions, and of those live in both modalities.

    A dimension lives if it fires for some row; it lives in both modalities if the smaller of its
    two firing rates is at least a tenth of the larger.
    """
    rates = np.stack([firing_rate(images), firing_rate(texts)])
    live = rates.max(0) > 0
    both = live & (rates.min(0) >= 0.1 * rates.max(0))
    return {
        "live": float(live.mean()),
        "live_in_both": float(both.sum() / max(live.sum(), 1)),
    }


def recall_of_split(
    images: SparseCodes, texts: SparseCodes, collection: Collection, split: str
) -> dict[str, dict[str, float]]:
    """Text-to-image recall among the items of one split, by codes and by the backbone alone.

    Parameters
    ----------
    images, texts : SparseCodes
        Of the whole collection.
    collection : Collection
    split : str
        Without items that resemble those of an earlier split.

    Returns
    -------
    dict
        `codes` and `backbone`: see `recall_at`.
    """
    rows = evaluation_rows(collection, split)
    captions = collection.captions_of_rows(rows)
    item = collection.place_among(rows, captions)
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
    """Measure an encoder on one split of a collection, beside the backbone alone.

    Returns
    -------
    dict
        `codes` and `backbone`: recalls; `dimensions`: live shares over the whole collection.
    """
    images = encode_codes(encoder, collection.image_embeddings, IMAGE)
    texts = encode_codes(encoder, collection.text_embeddings, TEXT)
    found = recall_of_split(images, texts, collection, split)
    return {**found, "dimensions": live_shares(images, texts)}
