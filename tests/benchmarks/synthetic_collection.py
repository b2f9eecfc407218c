"""Write a collection of any size whose codes have the statistics of the bundled one.

Each item has one caption. All embeddings are zero, because no benchmark reads them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sieve.model import collection as parts
from sieve.model.collection import Collection, thumbnail_path, write_manifest
from sieve.model.dimensions.code_cache import CodeCache, cache_folder, write_cache
from sieve.model.dimensions.table import VERSION
from sieve.model.engine import SearchEngine
from sieve.model.files import atomic_folder
from tests.benchmarks.memory import caption
from tests.benchmarks.synthetic_codes import bundled_engine, codes_like

_SLICE = 100_000
_PICTURES = 500
"""Number of thumbnails shared by hard links; a file can have about 65,000."""


def make(folder: Path, n: int, home: str, *, pictures: bool = False) -> None:
    """Write the collection, and its codes to a separate $SIEVE_HOME.

    Parameters
    ----------
    folder : Path
        Receives `collection`, and the path of its checkpoint in the file `checkpoint`.
    n : int
        Number of items.
    home : str
        Set as $SIEVE_HOME of this process.
    pictures : bool
        Whether items have thumbnails, taken from the bundled collection.
    """
    real = bundled_engine()
    os.environ["SIEVE_HOME"] = home
    path = folder / "collection"
    with atomic_folder(path) as draft:
        _write_items(draft / parts.ITEMS, n)
        d = real.collection.backbone.width
        for name in (parts.IMAGE_EMBEDDINGS, parts.TEXT_EMBEDDINGS):
            np.lib.format.open_memmap(draft / name, "w+", np.float16, (n, d))
        np.save(draft / parts.CAPTION_ITEM, np.arange(n, dtype=np.int32))
        if pictures:
            _link_thumbnails(draft, n, real)
        (draft / parts.SKIPPED).write_text("key,image,reason\n")
        write_manifest(
            draft,
            name="synthetic",
            backbone=real.collection.backbone,
            source="synthetic",
            licence="CC0",
            counts={"items": n, "captions": n},
        )
    codes = codes_like(real.image_codes, n, real.checkpoint.encoder.config.k)
    made = CodeCache(Collection.open(path), codes, codes, real.derived.dimensions)
    write_cache(cache_folder(made.collection, real.checkpoint, str(VERSION)), made.save)
    (folder / "checkpoint").write_text(str(real.checkpoint.path))


def _write_items(path: Path, n: int) -> None:
    """Write `items.parquet` like Conceptual Captions: a long address, one caption."""
    with pq.ParquetWriter(path, _rows(0, 1).schema) as writer:
        for start in range(0, n, _SLICE):
            writer.write_table(_rows(start, min(start + _SLICE, n)))


def _rows(start: int, end: int) -> pa.Table:
    numbers = range(start, end)
    texts = pa.list_(pa.string())
    return pa.table(
        {
            "id": [_item_id(row) for row in numbers],
            "image": [f"https://images.example.org/{row:07}/p.jpg" for row in numbers],
            "captions": pa.array([[caption(row)] for row in numbers], texts),
            "labels": pa.array([[] for _ in numbers], texts),
            "split": ["train" if row % 10 else "test" for row in numbers],
            "width": pa.array([640] * len(numbers), pa.int32()),
            "height": pa.array([480] * len(numbers), pa.int32()),
        }
    )


def _item_id(row: int) -> str:
    return f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _link_thumbnails(draft: Path, n: int, real: SearchEngine) -> None:
    """Link every item to one of the bundled collection's thumbnails."""
    pictures = []
    for row, item in enumerate(real.collection.items["id"].iloc[:_PICTURES]):
        pictures.append(draft / thumbnail_path(_item_id(row)))
        pictures[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real.thumbnail(item), pictures[-1])
    for row in range(len(pictures), n):
        path = draft / thumbnail_path(_item_id(row))
        path.parent.mkdir(exist_ok=True)
        os.link(pictures[row % len(pictures)], path)
