"""Draw splits from what a picture shows, so that equal pictures always share one.

A draw depends on the picture alone: shards, resumed runs and later versions of a collection agree,
and a copy under another name, or in another collection, never crosses from train to test.
"""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

_TRAIN_SHARE, _SELECT_SHARE = 0.8, 0.1


def drawn_split(content: int) -> str:
    """Draw a split: 80 % train, 10 % select, 10 % test.

    Parameters
    ----------
    content : int
        64-bit hash of the picture, or an item's id where there is no picture.
    """
    place = content / 2**64
    if place < _TRAIN_SHARE:
        return "train"
    return "select" if place < _TRAIN_SHARE + _SELECT_SHARE else "test"


def picture_hash(image: Image.Image) -> int:
    """Hash the size and the pixels of an upright RGB image, to 64 bits."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def embedding_hash(embedding: np.ndarray) -> int:
    """Hash one embedding, (d,) float16, to 64 bits."""
    return int.from_bytes(hashlib.sha256(embedding.tobytes()).digest()[:8], "big")
