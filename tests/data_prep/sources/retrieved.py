"""Synthetic embeddings in the layout of clip-retrieval, prepared without a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sieve.data_prep.prepare import prepare
from sieve.data_prep.sources.embeddings import Embeddings
from sieve.model.collection import BackboneIdentity, Collection

D = 16
PARTS = ("img_emb", "text_emb", "metadata")


def unit(count: int, seed: int = 0, width: int = D) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def write_shard(
    folder: Path, number: int, images: np.ndarray, texts: np.ndarray | None, facts: dict[str, Any]
) -> None:
    """Write a shard as clip-retrieval does: three files with the same number."""
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", images)
    if texts is None:
        (folder / "text_emb").rmdir()
    else:
        np.save(folder / "text_emb" / f"text_emb_{number}.npy", texts)
    pd.DataFrame(facts).to_parquet(folder / "metadata" / f"metadata_{number}.parquet")


def retrieval(folder: Path, sizes: tuple[int, ...] = (3, 2), **facts: Any) -> Path:
    start = 0
    for number, size in enumerate(sizes):
        rows = range(start, start + size)
        known = {
            "image_path": [f"/data/set/{row:03}.jpg" for row in rows],
            "caption": [f"caption {row}" for row in rows],
            "url": [f"http://x.org/{row}" for row in rows],
        }
        images, texts = (unit(size, seed + number) for seed in (10, 20))
        write_shard(folder, number, images, texts, known | facts)
        start += size
    return folder


def identity(width: int = D) -> BackboneIdentity:
    return BackboneIdentity.unknown("some-clip", width)


def prepared(source: Embeddings, out: Path, **options: Any) -> Collection:
    return prepare(
        source, identity(), out, precomputed=source.precomputed(), progress=False, **options
    )
