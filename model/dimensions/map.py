"""Two-dimensional maps of the dimensions and of the items, with similar ones close to each other.

Computed by t-SNE (van der Maaten and Hinton, 2008) from the cosines of the dimensions' activations
over images and captions, or of the items' codes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array, vstack

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import SparseCodes, shape_of
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import CodeCache, cache_folder, read_or_compute

log = logging.getLogger(__name__)

VERSION = 3
"""Version of the layouts; a cached map of another version is computed again."""
FEWEST = 12
"""Minimum number of rows for t-SNE."""
MOST = 5000
"""Maximum for t-SNE, which takes about 1 s of a core for 1,000, 8 s for 5,000, 23 s for 10,000.
With more rows, it places a sample of this size, and each other row among its nearest ones."""
_NEAREST = 5
"""Trustworthiness .987 on the items of scenes, with 2,000 of them in the sample (ten neighbours);
t-SNE of all has .995, PCA .849."""
_PERPLEXITY = 30
_STEPS = 500
"""Trustworthiness 0.796 (ten neighbours, photographs, m = 1,024), as with 1,000 steps; 300 steps
give 0.674."""
_PROFILE = 64
_CANDIDATES = 5
"""Candidates for each neighbour that is returned: 99.9% of the ten nearest are found on scenes."""
_AT_ONCE = 256
_FILE, _ITEMS = "map.parquet", "items.npy"
T_SNE, BY_PCA = "t-SNE", "PCA"


class DimensionMap(NamedTuple):
    """Position of each live dimension."""

    dimensions: np.ndarray
    """(l,) int64, ascending: dimensions that fire for any image or caption."""
    positions: np.ndarray
    """(l, 2) float32 in [-1, 1]"""
    method: str
    """t-SNE, or PCA if there are too few dimensions."""


def dimension_map(collection: Collection, checkpoint: Checkpoint, cache: CodeCache) -> DimensionMap:
    """Return the map of all live dimensions, from the cache or computed and cached."""

    def compute() -> DimensionMap:
        live = live_dimensions(cache)
        log.info("computing the map of %s dimensions", len(live))
        return DimensionMap(live, *lay_out(firing_profiles(cache, live)))

    folder = cache_folder(collection, checkpoint, f"map{VERSION}")
    return read_or_compute(folder, _load, compute, _save)


def live_dimensions(cache: CodeCache) -> np.ndarray:
    """Return the dimensions that fire for any image or caption: (l,) int64."""
    counts = [np.diff(c.by_dimension.indptr) for c in (cache.image_codes, cache.text_codes)]
    return np.flatnonzero(counts[0] + counts[1])


def firing_profiles(cache: CodeCache, dimensions: np.ndarray) -> np.ndarray:
    """Return low-rank activation profiles, whose cosines approximate co-activation.

    Truncated SVD of the activations over all images and captions, with each dimension scaled to
    norm 1: (l, at most 64) floating.
    """
    from sklearn.preprocessing import normalize

    codes = csc_array(vstack([cache.image_codes.by_row, cache.text_codes.by_row]))
    profiles = csr_array(normalize(csr_array(codes[:, dimensions].T)))
    width = min(_PROFILE, *(size - 1 for size in shape_of(profiles)))
    return _reduced(profiles, width)


def lay_out(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Embed rows in the plane deterministically, with similar rows close to each other.

    (l, f) floating → (l, 2) float32 in [-1, 1], and the method, t-SNE or PCA.
    """
    from sklearn.decomposition import PCA  # most commands need no map

    n = len(features)
    differ = n > 1 and bool((features != features[0]).any())
    if n >= FEWEST and differ:
        method = T_SNE
        placed = _by_t_sne(np.asarray(features, np.float32))
    else:
        method = BY_PCA
        width = min(2, n, features.shape[1])
        placed = np.zeros((n, 2), np.float32)
        if differ:
            placed[:, :width] = PCA(width, random_state=0).fit_transform(features)
    if n:
        placed = placed - (placed.min(0) + placed.max(0)) / 2
    return (placed / max(np.abs(placed).max(initial=0), 1e-12)).astype(np.float32), method


def _by_t_sne(features: np.ndarray) -> np.ndarray:
    """Place rows by t-SNE of at most `MOST` of them: (n, f) float32 → (n, 2) float."""
    from sklearn.manifold import TSNE
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.preprocessing import normalize

    n = len(features)
    unit = normalize(features)
    chosen = np.arange(n)
    if n > MOST:
        chosen = np.sort(np.random.default_rng(0).choice(n, MOST, replace=False))
    tsne = TSNE(
        metric="cosine",
        init="pca",
        perplexity=min(_PERPLEXITY, (len(chosen) - 1) / 3),
        max_iter=_STEPS,
        random_state=0,
    )
    placed = tsne.fit_transform(unit[chosen])
    if n <= MOST:
        return placed
    among = KNeighborsRegressor(_NEAREST, weights="distance", algorithm="brute")
    return among.fit(unit[chosen], placed).predict(unit)


def project_items(collection: Collection, checkpoint: Checkpoint, codes: SparseCodes) -> np.ndarray:
    """Return the map of all items: (n, 2) float32 in [-1, 1], similar items close to each other.

    By t-SNE of the codes' truncated SVD; deterministic, computed once and cached with the codes.
    Takes about 20 s of a core for 5,000 items.

    Parameters
    ----------
    collection : Collection
    checkpoint : Checkpoint
    codes : (n, m) SparseCodes
        Codes of the collection's images: `SearchEngine.image_codes`.
    """

    def compute() -> np.ndarray:
        log.info("computing the map of %s items", codes.n)
        return lay_out(item_profiles(codes))[0]

    def save(positions: np.ndarray, folder: Path) -> None:
        np.save(folder / _ITEMS, positions)

    def load(folder: Path) -> np.ndarray:
        return np.load(folder / _ITEMS, allow_pickle=False)

    return read_or_compute(
        cache_folder(collection, checkpoint, f"items{VERSION}"), load, compute, save
    )


def item_profiles(codes: SparseCodes) -> np.ndarray:
    """Return the truncated SVD of codes, whose cosines approximate theirs: (n, at most 64)."""
    return _reduced(codes.by_row, min(_PROFILE, codes.n - 1, codes.m - 1))


def _reduced(matrix: csr_array, width: int) -> np.ndarray:
    """Return the truncated SVD of the rows of a matrix, or its rows if they are few."""
    from sklearn.decomposition import TruncatedSVD

    if width < 2:
        return matrix.toarray()
    return TruncatedSVD(width, random_state=0).fit_transform(matrix)


def nearest_items(codes: SparseCodes, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return the items with the most similar codes for each item, itself left out.

    Candidates are found by the codes' truncated SVD, and ranked by the exact cosine.

    Parameters
    ----------
    codes : (n, m) SparseCodes
    count : int
        k, at most n - 1 are returned.

    Returns
    -------
    rows : (n, k) int64
        The most similar first.
    cosines : (n, k) float32
    """
    import faiss
    from sklearn.preprocessing import normalize

    count = min(count, codes.n - 1)
    profiles = np.ascontiguousarray(normalize(item_profiles(codes)), np.float32)
    index = faiss.IndexFlatIP(profiles.shape[1])
    index.add(profiles)  # pyright: ignore[reportCallIssue]
    found = np.zeros((codes.n, count), np.int64)
    cosines = np.zeros((codes.n, count), np.float32)
    wanted = min(_CANDIDATES * count + 1, codes.n)
    for start in range(0, codes.n, _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, codes.n))
        near = index.search(profiles[rows], wanted)[1]  # pyright: ignore[reportCallIssue]
        pairs = codes.by_row[np.repeat(rows, wanted)].multiply(codes.by_row[near.ravel()])
        exact = np.asarray(pairs.sum(1)).reshape(near.shape)
        exact[near == rows[:, None]] = -np.inf
        order = np.argsort(-exact, axis=1, kind="stable")[:, :count]
        found[rows] = np.take_along_axis(near, order, 1)
        cosines[rows] = np.take_along_axis(exact, order, 1)
    return found, cosines


def _save(result: DimensionMap, folder: Path) -> None:
    x, y = result.positions.T
    columns = {"dimension": result.dimensions, "x": x, "y": y, "method": result.method}
    pd.DataFrame(columns).to_parquet(folder / _FILE, index=False)


def _load(folder: Path) -> DimensionMap:
    table = pd.read_parquet(folder / _FILE)
    method = str(table["method"].iloc[0]) if len(table) else BY_PCA
    positions = table[["x", "y"]].to_numpy(np.float32)
    return DimensionMap(table["dimension"].to_numpy(np.int64), positions, method)
