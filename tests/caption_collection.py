"""A collection for benchmark tests whose image embeddings equal its caption embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sieve.model.backbone import Backbone
from sieve.model.collection import (
    CAPTION_ITEM,
    IMAGE_EMBEDDINGS,
    ITEMS,
    SKIPPED,
    TEXT_EMBEDDINGS,
    BackboneIdentity,
    write_manifest,
)

WORDS = ("dog", "beach", "snow", "car", "tree")


def write_caption_collection(folder: Path, backbone: Backbone, seed: int = 0) -> Path:
    """Write 600 items whose image embeddings equal their captions'; ids begin with the seed."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    has = generator.random((600, len(WORDS))) < 0.5
    labels = [[w for w, there in zip(WORDS, line, strict=True) if there] for line in has]
    captions = [" and ".join(f"a {word}" for word in line) or "nothing" for line in labels]
    texts = backbone.encode_texts(captions)
    noisy = texts + 0.02 * generator.standard_normal(texts.shape)
    images = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    splits = ("train", "train", "select", "test")
    pd.DataFrame(
        {
            "id": [f"{seed:x}{i:015x}" for i in range(600)],
            "image": "nowhere.jpg",
            "captions": [[caption] for caption in captions],
            "labels": labels,
            "split": [splits[i % 4] for i in range(600)],
            "width": 4,
            "height": 3,
        }
    ).to_parquet(folder / ITEMS)
    np.save(folder / IMAGE_EMBEDDINGS, images.astype(np.float16))
    np.save(folder / TEXT_EMBEDDINGS, texts.astype(np.float16))
    np.save(folder / CAPTION_ITEM, np.arange(600, dtype=np.int32))
    (folder / SKIPPED).write_text("key,image,reason\n")
    write_manifest(
        folder,
        name="captioned",
        backbone=BackboneIdentity(backbone.name, backbone.sha256, backbone.width),
        source="synthetic",
        licence="none",
        counts={"items": 600, "captions": 600},
    )
    return folder
