"""A collection for benchmark tests whose image embeddings equal its caption embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from collection_files import write_collection

from sieve.model.backbone.clip import Backbone
from sieve.model.collection import BackboneIdentity

WORDS = ("dog", "beach", "snow", "car", "tree")


def write_caption_collection(folder: Path, backbone: Backbone, seed: int = 0) -> Path:
    """Write 600 items whose image embeddings equal their captions'; ids begin with the seed."""
    generator = np.random.default_rng(seed)
    has = generator.random((600, len(WORDS))) < 0.5
    labels = [[w for w, there in zip(WORDS, line, strict=True) if there] for line in has]
    captions = [" and ".join(f"a {word}" for word in line) or "nothing" for line in labels]
    texts = backbone.encode_texts(captions)
    noisy = texts + 0.02 * generator.standard_normal(texts.shape)
    images = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    splits = ("train", "train", "select", "test")
    return write_collection(
        folder,
        BackboneIdentity(backbone.name, backbone.sha256, backbone.width),
        name="captioned",
        captions=[[caption] for caption in captions],
        images=images,
        texts=texts,
        labels=labels,
        split=[splits[i % 4] for i in range(600)],
        first_digit=seed,
    )
