"""Images that a collection holds more than once: listed in `duplicates.csv`, and left in.

Two images are near if their embeddings are and their thumbnails look alike: some backbones embed
unlike pictures close to each other. Among those, one whose thumbnail is the same byte by byte is
the same picture. Large collections are cut into cells of like embeddings (k-means by FAISS)
and compared inside each, so that the work grows with n and not with n²; near pairs on either side
of a cell's border are then missed, equal ones never.
"""

from __future__ import annotations

import csv
import filecmp
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from sieve.data_prep.csv_safety import safe_cell
from sieve.data_prep.images import load_image_bytes
from sieve.data_prep.precomputed import forget_pages, read_rows
from sieve.data_prep.records import SPLITS
from sieve.data_prep.thumbnails import read_thumbnail
from sieve.model import collection as layout
from sieve.model.collection import thumbnail_path

NEAR = 0.97
"""Least cosine of near duplicates. Of 1,077 Flickr8k photographs by ViT-B/32 no two reach .93, of
3,591 by sieve-lite 3 pairs reach .95."""
_GRID = 8
_ALIKE = 45
"""Of 256 levels: the most that a cell of an 8 × 8 grid may differ between near duplicates. On 120
photographs, JPEG at quality 30, half the size, 10 % more light or 2 % cut from each side changed a
cell by 41 at most; two photographs differed by 66 at least."""
CENTRED_NEAR = 0.9
"""Least cosine of near duplicates after the mean of all is subtracted."""
EQUAL = 0.9999
"""Least cosine of equal pictures: batches of another size change the last bits."""
COLUMNS = ("id", "image", "duplicate_of", "duplicate_of_image", "kind", "cosine")

_CELL_ITEMS = 2_000
_ONE_CELL_BELOW = 20_000
_SAMPLED_A_CELL = 40
_BLOCK = 1_024
_SLICE = 1 << 13


class Duplicate(NamedTuple):
    """An item, and one that is near to it."""

    row: int
    of: int
    cosine: float


def write_duplicates(folder: Path) -> int:
    """Write `duplicates.csv` of a collection whose other files are there.

    An item is listed with the most similar item before it and, where that is another, with the most
    similar item of a split that is used before its own: train before select before test.

    Returns
    -------
    int
        How many items are listed.
    """
    listed: set[int] = set()
    look = lru_cache(maxsize=1024)(partial(_look, folder))
    embeddings = np.load(folder / layout.IMAGE_EMBEDDINGS, mmap_mode="r", allow_pickle=False)
    splits = pq.read_table(folder / layout.ITEMS, columns=["split"])["split"]
    found = sorted(find_duplicates(embeddings, used_in=_order_of_use(splits)))
    places = np.unique([place for row, of, _ in found for place in (row, of)]).astype(np.int64)
    items = dict(zip(places.tolist(), _items(folder / layout.ITEMS, places), strict=True))
    with (folder / layout.DUPLICATES).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, of, cosine in found:
            one, other = items[row], items[of]
            sizes = [(item["width"], item["height"]) for item in (one, other)]
            paths = [folder / thumbnail_path(item["id"]) for item in (one, other)]
            same = sizes[0] == sizes[1] and filecmp.cmp(*paths, shallow=False)
            if not same and np.abs(look(one["id"]) - look(other["id"])).max() > _ALIKE:
                continue
            kind = "same" if same else "near"
            listed.add(row)
            names = (one["id"], one["image"], other["id"], other["image"])
            writer.writerow((*map(safe_cell, names), kind, f"{cosine:.4f}"))
    return len(listed)


def _look(folder: Path, item_id: str) -> np.ndarray:
    """Average a thumbnail's colours over a grid: (8, 8, 3) float32, from 0 to 255."""
    try:
        thumbnail = load_image_bytes(read_thumbnail(folder, item_id))
    except ValueError as error:
        path = folder / thumbnail_path(item_id)
        raise ValueError(f"{path}: {error}; prepare that part again") from None
    return np.asarray(thumbnail.resize((_GRID, _GRID), Image.Resampling.BOX), np.float32)


def _order_of_use(splits: pa.ChunkedArray) -> np.ndarray:
    """Return the place of each item's split among train, select and test: (n,) int8."""
    ranks = pc.index_in(splits, pa.array(SPLITS))  # pyright: ignore[reportAttributeAccessIssue]
    return ranks.to_numpy().astype(np.int8)


def _items(path: Path, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """Read what is told of some rows, ascending; the whole table is never there at once."""
    start = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(columns=["id", "image", "width", "height"]):
            first, end = np.searchsorted(rows, (start, start + len(batch)))
            yield from batch.take(pa.array(rows[first:end] - start)).to_pylist()
            start += len(batch)


def find_duplicates(
    embeddings: np.ndarray, least: float = NEAR, used_in: np.ndarray | None = None
) -> Iterator[Duplicate]:
    """Find items that are near to one before, or to one of a split that is used before.

    Parameters
    ----------
    embeddings : (n, d) float16
        Of length 1.
    least : float
        Cosine from which on two are near.
    used_in : (n,) int, optional
        Place of each item's split: lower ones are used before.

    Yields
    ------
    Duplicate
        An item with the most similar of those before it; and, if `used_in` is given, with the most
        similar of those of a lower split, unless it is the same one.
    """
    centre = _mean(embeddings)
    for rows in _cells(embeddings):
        own = _gather(embeddings, rows)
        alike = _Alike(own, centre, least)
        for start in range(0, len(rows), _BLOCK):
            block = own[start : start + _BLOCK]
            cosines = block @ own[: start + len(block)].T
            # Only what stands before an item counts.
            cosines[:, start:][np.triu_indices(len(block))] = -1
            before = {}
            for i, of, cosine in alike.nearest(cosines, start):
                before[i] = of
                yield Duplicate(int(rows[i]), int(rows[of]), cosine)
            if used_in is None:
                continue
            used = used_in[rows]
            cosines = block @ own.T
            cosines[used[start : start + _BLOCK, None] <= used] = -1
            for i, of, cosine in alike.nearest(cosines, start):
                if before.get(i) != of:
                    yield Duplicate(int(rows[i]), int(rows[of]), cosine)


class _Alike:
    """Decides which of the most similar items are near.

    The embeddings of some backbones are all close to their mean. A near pair must therefore also
    stand out from it: its cosine after the mean is subtracted is at least `CENTRED_NEAR`.
    """

    def __init__(self, own: np.ndarray, centre: np.ndarray, least: float) -> None:
        self._centred = own - centre
        lengths = np.linalg.norm(self._centred, axis=1, keepdims=True)
        self._centred /= np.maximum(lengths, np.finfo(np.float32).tiny)
        self._least = least

    def nearest(self, cosines: np.ndarray, start: int) -> Iterator[tuple[int, int, float]]:
        """Yield the near ones of a block of items, each with the other and their cosine.

        Parameters
        ----------
        cosines : (b, r) float32
            Of items from `start` on with others; -1 if a pair does not count.
        start : int
        """
        best = cosines.argmax(axis=1)
        for i in np.flatnonzero(cosines.max(axis=1) >= self._least).tolist():
            row, of, cosine = start + i, int(best[i]), min(float(cosines[i, best[i]]), 1.0)
            centred = float(self._centred[row] @ self._centred[of])
            if cosine >= EQUAL or centred >= CENTRED_NEAR:
                yield row, of, cosine


def _mean(embeddings: np.ndarray) -> np.ndarray:
    """Return the mean of at most 20,000 embeddings: (d,) float32."""
    step = -(-len(embeddings) // _ONE_CELL_BELOW) or 1
    return _gather(embeddings, np.arange(0, len(embeddings), step)).mean(axis=0)


def _cells(embeddings: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of like embeddings, ascending in each cell."""
    n, width = embeddings.shape
    if n <= _ONE_CELL_BELOW:
        yield np.arange(n)
        return
    import faiss

    n_cells = n // _CELL_ITEMS
    n_sampled = min(n, n_cells * _SAMPLED_A_CELL)
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
    """Read rows from all over a mapped file, a few thousand at a time: (r, d) float32."""
    own = np.empty((len(rows), embeddings.shape[1]), np.float32)
    for start in range(0, len(rows), _BLOCK):
        own[start : start + _BLOCK] = embeddings[rows[start : start + _BLOCK]]
        forget_pages(embeddings)
    return own
