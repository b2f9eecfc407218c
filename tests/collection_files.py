"""Write a collection of given items and embeddings, without thumbnails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sieve.model.collection import (
    CAPTION_ITEM,
    IMAGE_EMBEDDINGS,
    ITEMS,
    SKIPPED,
    TEXT_EMBEDDINGS,
    BackboneIdentity,
    write_manifest,
)


def write_collection(
    folder: Path,
    backbone: BackboneIdentity,
    *,
    name: str,
    captions: list[list[str]] | pa.ListArray,
    images: np.ndarray | None = None,
    texts: np.ndarray | None = None,
    labels: list[list[str]] | None = None,
    split: list[str] | str = "train",
    first_digit: int = 0,
    files: list[str] | None = None,
) -> Path:
    """Write `n` items of nowhere, whose ids begin with a hexadecimal digit, to a new folder.

    Parameters
    ----------
    captions
        Captions of each item.
    images, texts : np.ndarray, optional
        Embeddings of the items and of all captions, (n, d) and (c, d); without them, the caller
        writes the files.
    labels, split, files
        By default, no labels, every item is for training, and all have the same file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n, texts_of = len(captions), pa.list_(pa.string())
    table = pa.table(
        {
            "id": [f"{first_digit:x}{row:015x}" for row in range(n)],
            "image": pa.array(files) if files else pa.repeat("nowhere.jpg", n),
            "captions": pa.array(captions, texts_of) if isinstance(captions, list) else captions,
            "labels": pa.array(labels or [[]] * n, texts_of),
            "split": pa.repeat(split, n) if isinstance(split, str) else split,
            "width": pa.repeat(4, n),
            "height": pa.repeat(3, n),
        }
    )
    pq.write_table(table, folder / ITEMS)
    owners = table["captions"].combine_chunks().value_parent_indices()
    np.save(folder / CAPTION_ITEM, owners.to_numpy().astype(np.int32))
    for file, embeddings in ((IMAGE_EMBEDDINGS, images), (TEXT_EMBEDDINGS, texts)):
        if embeddings is not None:
            np.save(folder / file, embeddings.astype(np.float16))
    (folder / SKIPPED).write_text("key,image,reason\n")
    write_manifest(
        folder,
        name=name,
        backbone=backbone,
        source="synthetic",
        licence="none",
        counts={"items": n, "captions": len(owners)},
    )
    return folder
