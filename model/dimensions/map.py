"""Two-dimensional map of the dimensions, with similar dimensions close to each other.

Computed by t-SNE (van der Maaten and Hinton, 2008) from the cosines of the dimensions' activations
over images and captions.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array, vstack
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import shape_of
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import CodeCache, cache_folder, read_or_compute

log = logging.getLogger(__name__)

VERSION = 2
"""Version of the layout; a cached map of another version is computed again."""
FEWEST = 12
"""Minimum number of dimensions for t-SNE."""
MOST = 5000
"""Maximum for t-SNE, which takes about 1 s of a core for 1,000, 8 s for 5,000, 23 s for 10,000."""
_PERPLEXITY = 30
_STEPS = 500
"""Trustworthiness 0.796 (ten neighbours, photographs, m = 1,024), as with 1,000 steps; 300 steps
give 0.674."""
_PROFILE = 64
_FILE = "map.parquet"
T_SNE, BY_PCA = "t-SNE", "PCA"


class DimensionMap(NamedTuple):
    """Position of each live dimension."""

    dimensions: np.ndarray
    """(l,) int64, ascending: dimensions that fire for any image or caption."""
    positions: np.ndarray
    """(l, 2) float32 in [-1, 1]"""
    method: str
    """t-SNE, or PCA if there are too few or too many dimensions."""


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
    codes = csc_array(vstack([cache.image_codes.by_row, cache.text_codes.by_row]))
    profiles = csr_array(normalize(csr_array(codes[:, dimensions].T)))
    width = min(_PROFILE, *(size - 1 for size in shape_of(profiles)))
    if width < 2:
        return profiles.toarray()
    return TruncatedSVD(width, random_state=0).fit_transform(profiles)


def lay_out(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Embed rows in the plane deterministically, with similar rows close to each other.

    (l, f) floating → (l, 2) float32 in [-1, 1], and the method, t-SNE or PCA.
    """
    n = len(features)
    differ = n > 1 and bool((features != features[0]).any())
    if FEWEST <= n <= MOST and differ:
        method = T_SNE
        tsne = TSNE(
            metric="cosine",
            init="pca",
            perplexity=min(_PERPLEXITY, (n - 1) / 3),
            max_iter=_STEPS,
            random_state=0,
        )
        placed = tsne.fit_transform(np.asarray(features, np.float32))
    else:
        method = BY_PCA
        width = min(2, n, features.shape[1])
        placed = np.zeros((n, 2), np.float32)
        if differ:
            placed[:, :width] = PCA(width, random_state=0).fit_transform(features)
    if n:
        placed = placed - (placed.min(0) + placed.max(0)) / 2
    return (placed / max(np.abs(placed).max(initial=0), 1e-12)).astype(np.float32), method


def _save(result: DimensionMap, folder: Path) -> None:
    x, y = result.positions.T
    columns = {"dimension": result.dimensions, "x": x, "y": y, "method": result.method}
    pd.DataFrame(columns).to_parquet(folder / _FILE, index=False)


def _load(folder: Path) -> DimensionMap:
    table = pd.read_parquet(folder / _FILE)
    method = str(table["method"].iloc[0]) if len(table) else BY_PCA
    positions = table[["x", "y"]].to_numpy(np.float32)
    return DimensionMap(table["dimension"].to_numpy(np.int64), positions, method)
