"""Find equal and near-duplicate images, which stay in the collection: `duplicates.csv` lists them.

Two images are near duplicates if their embeddings and their thumbnails are similar, and the same if
their thumbnails are identical. Large collections are partitioned into cells of similar embeddings
(k-means by FAISS) and compared within each cell, so that the cost grows with n rather than n². Near
duplicates in different cells are then missed; equal images never are.
"""

from __future__ import annotations

import csv
import filecmp
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.images import load_thumbnail
from sieve.data_prep.precomputed import read_rows, release_pages
from sieve.data_prep.records import SPLITS
from sieve.model import collection as layout
from sieve.model.collection import thumbnail_path
from sieve.model.files import safe_cell

NEAR = 0.97
"""Minimum cosine of near duplicates. Of 1,077 Flickr8k photographs by ViT-B/32 no two reach .93, of
3,591 by sieve-lite 3 pairs reach .95."""
_GRID = 8
_MAX_GRID_DIFFERENCE = 45
"""Maximum difference, of 256 levels, of a cell of an 8 × 8 grid of near duplicates. On 120
photographs, JPEG at quality 30, half the size, 10 % more light or 2 % cut from each side changed a
cell by 41 at most; two photographs differed by 66 at least."""
CENTRED_NEAR = 0.9
"""Minimum cosine of near duplicates after the mean of all embeddings is subtracted."""
EQUAL = 0.9999
"""Minimum cosine of equal images: the batch size changes the last bits."""
COLUMNS = ("id", "image", "duplicate_of", "duplicate_of_image", "kind", "cosine")

_CELL_ITEMS = 2_000
_MAX_SINGLE_CELL = 20_000
_SAMPLES_PER_CELL = 40
_BLOCK = 1_024
_SLICE = 1 << 13


class Duplicate(NamedTuple):
    """An item and another that is equal or near to it."""

    row: int
    of: int
    cosine: float


def write_duplicates(folder: Path) -> int:
    """Write `duplicates.csv` of a collection whose other files exist.

    Each item is listed with the most similar earlier item and, if that is a different one, with the
    most similar item of an earlier split (train, select, test). Return the number of listed items.
    """
    grid = lru_cache(maxsize=1024)(partial(_color_grid, folder))
    embeddings = np.load(folder / layout.IMAGE_EMBEDDINGS, mmap_mode="r", allow_pickle=False)
    splits = pq.read_table(folder / layout.ITEMS, columns=["split"])["split"]
    ranks = pc.call_function("index_in", [splits], pc.SetLookupOptions(pa.array(SPLITS)))
    found = sorted(find_duplicates(embeddings, split_order=ranks.to_numpy().astype(np.int8)))
    rows = np.unique([row for one, of, _ in found for row in (one, of)]).astype(np.int64)
    scanner = ds.dataset(folder / layout.ITEMS).scanner(["id", "image", "width", "height"])
    items = dict(zip(rows.tolist(), scanner.take(pa.array(rows)).to_pylist(), strict=True))
    listed: set[int] = set()
    with (folder / layout.DUPLICATES).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, of, cosine in found:
            one, other = items[row], items[of]
            paths = [folder / thumbnail_path(item["id"]) for item in (one, other)]
            same_size = (one["width"], one["height"]) == (other["width"], other["height"])
            if same_size and filecmp.cmp(*paths, shallow=False):
                kind = "same"
            elif np.abs(grid(one["id"]) - grid(other["id"])).max() <= _MAX_GRID_DIFFERENCE:
                kind = "near"
            else:
                continue
            listed.add(row)
            names = (one["id"], one["image"], other["id"], other["image"])
            writer.writerow((*map(safe_cell, names), kind, f"{cosine:.4f}"))
    return len(listed)


def _color_grid(folder: Path, item_id: str) -> np.ndarray:
    """Return the mean colours of a thumbnail's grid cells: (8, 8, 3) float32, 0 to 255."""
    thumbnail = load_thumbnail(folder, item_id)
    return np.asarray(thumbnail.resize((_GRID, _GRID), Image.Resampling.BOX), np.float32)


def find_duplicates(
    embeddings: np.ndarray, threshold: float = NEAR, split_order: np.ndarray | None = None
) -> Iterator[Duplicate]:
    """Find items that are near to an earlier item, or to an item of an earlier split.

    The embeddings of some backbones are all close to their mean. The cosine of a near pair must
    therefore be at least `CENTRED_NEAR` after the mean is subtracted.

    Parameters
    ----------
    embeddings : (n, d) float16
        Of length 1.
    threshold : float
        Minimum cosine of two near items.
    split_order : (n,) int, optional
        Index of each item's split; lower splits are earlier.

    Yields
    ------
    Duplicate
        An item with the most similar earlier item; and with that of an earlier split, if another.
    """
    step = -(-len(embeddings) // _MAX_SINGLE_CELL) or 1
    centre = _gather(embeddings, np.arange(0, len(embeddings), step)).mean(axis=0)
    for rows in _cells(embeddings):
        own = _gather(embeddings, rows)
        centred = own - centre
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        centred /= np.maximum(lengths, np.finfo(np.float32).tiny)
        for start in range(0, len(rows), _BLOCK):
            block = own[start : start + _BLOCK]
            earlier = block @ own[: start + len(block)].T
            earlier[:, start:][np.triu_indices(len(block))] = -1
            candidates = [earlier]
            if split_order is not None:
                order = split_order[rows]
                candidates.append(block @ own.T)
                candidates[1][order[start : start + _BLOCK, None] <= order] = -1
            found = set()
            for cosines in candidates:
                best = cosines.argmax(axis=1)
                for i in np.flatnonzero(cosines.max(axis=1) >= threshold).tolist():
                    row, of, cosine = start + i, int(best[i]), min(float(cosines[i, best[i]]), 1.0)
                    near = cosine >= EQUAL or centred[row] @ centred[of] >= CENTRED_NEAR
                    if near and (row, of) not in found:
                        found.add((row, of))
                        yield Duplicate(int(rows[row]), int(rows[of]), cosine)


def _cells(embeddings: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of each cell of similar embeddings, ascending."""
    n, width = embeddings.shape
    if n <= _MAX_SINGLE_CELL:
        yield np.arange(n)
        return
    import faiss

    n_cells = n // _CELL_ITEMS
    n_sampled = min(n, n_cells * _SAMPLES_PER_CELL)
    sample = np.sort(np.random.default_rng(0).choice(n, n_sampled, replace=False))
    kmeans = faiss.Kmeans(width, n_cells, niter=8, seed=0, spherical=True)
    kmeans.train(_gather(embeddings, sample))
    cell = np.empty(n, np.int32)
    for start in range(0, n, _SLICE):
        block = read_rows(embeddings, start, start + _SLICE).astype(np.float32)
        cell[start : start + _SLICE] = kmeans.index.search(block, 1)[1][:, 0]
    order = np.argsort(cell, kind="stable")
    ends = np.searchsorted(cell[order], np.arange(cell.max() + 2))
    for start, end in zip(ends, ends[1:], strict=False):
        yield order[start:end]


def _gather(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Read scattered rows of a memory-mapped file, a block at a time: (r, d) float32."""
    own = np.empty((len(rows), embeddings.shape[1]), np.float32)
    for start in range(0, len(rows), _BLOCK):
        own[start : start + _BLOCK] = embeddings[rows[start : start + _BLOCK]]
        release_pages(embeddings)
    return own
