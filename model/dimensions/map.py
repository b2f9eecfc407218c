"""A map of the dimensions: two coordinates each, near each other where they mean alike things.

Laid out by t-SNE (van der Maaten and Hinton, 2008) over the cosines between decoder directions.
Codes that were made elsewhere have no decoder: their dimensions are compared by where they fire.
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
from sieve.model.dimensions.cache import (
    CodeCache,
    check_derived,
    derived_folder,
    forget_derived,
    keep_derived,
)

log = logging.getLogger(__name__)

VERSION = 1
"""Of the layout; a cached map of another version is made anew."""
FEWEST = 12
"""Fewer dimensions have too few neighbours for t-SNE."""
MOST = 5000
"""t-SNE takes about 1 s of a core for 1,000 dimensions, 8 for these, 23 for 10,000."""
_PERPLEXITY = 30
_STEPS = 500
"""As trustworthy as 1,000 (.796 of ten neighbours, on photographs at m = 1,024) in half the time;
300 are not (.674)."""
_PROFILE = 64
_FILE = "map.parquet"
T_SNE, BY_PCA = "t-SNE", "PCA"


class DimensionMap(NamedTuple):
    """Where each live dimension stands."""

    dimensions: np.ndarray
    """(l,) int64, ascending: those that fire for any image or caption."""
    positions: np.ndarray
    """(l, 2) float32 in [-1, 1]"""
    method: str
    """t-SNE, or PCA where there are too few dimensions for it, or too many."""


def dimension_map(
    collection: Collection, checkpoint: Checkpoint, derived: CodeCache
) -> DimensionMap:
    """Read the cached map of all live dimensions, or lay it out and cache it.

    A cache that cannot be read or written is not an error: the map is then laid out again.
    """
    folder = derived_folder(collection, checkpoint, f"map{VERSION}")
    if folder.is_dir():
        try:
            check_derived(folder)
            return _load(folder)
        except (OSError, ValueError, KeyError) as error:
            log.warning("the map in %s cannot be read (%s)", folder, error)
            forget_derived(folder)
    live = live_dimensions(derived)
    log.info("laying out %s dimensions", len(live))
    if checkpoint.codes:
        features = firing_profiles(derived, live)
    else:
        features = checkpoint.encoder.directions[live]
    positions, method = lay_out(features)
    found = DimensionMap(live, positions, method)
    keep_derived(folder, lambda draft: _save(found, draft))
    return found


def live_dimensions(derived: CodeCache) -> np.ndarray:
    """Dimensions that fire for any image or caption: (l,) int64."""
    counts = [np.diff(c.by_dimension.indptr) for c in (derived.image_codes, derived.text_codes)]
    return np.flatnonzero(counts[0] + counts[1])


def firing_profiles(derived: CodeCache, dimensions: np.ndarray) -> np.ndarray:
    """Tell where dimensions fire in few numbers, whose cosines are those of their co-activation.

    Parameters
    ----------
    derived : CodeCache
    dimensions : (l,) int

    Returns
    -------
    (l, at most 64) floating
        The leading singular directions of their activations over all images and captions, each
        dimension's scaled to norm 1 before.
    """
    codes = csc_array(vstack([derived.image_codes.by_row, derived.text_codes.by_row]))
    profiles = csr_array(normalize(csr_array(codes[:, dimensions].T)))
    width = min(_PROFILE, *(size - 1 for size in shape_of(profiles)))
    if width < 2:
        return profiles.toarray()
    return TruncatedSVD(width, random_state=0).fit_transform(profiles)


def lay_out(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Place rows in the plane, alike ones near each other; the same rows always alike.

    Parameters
    ----------
    features : (l, f) floating

    Returns
    -------
    (l, 2) float32 in [-1, 1], and t-SNE or PCA, by which they were placed.
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
        kept = min(2, n, features.shape[1])
        placed = np.zeros((n, 2), np.float32)
        if differ:
            placed[:, :kept] = PCA(kept, random_state=0).fit_transform(features)
    if n:
        placed = placed - (placed.min(0) + placed.max(0)) / 2
    return (placed / max(np.abs(placed).max(initial=0), 1e-12)).astype(np.float32), method


def _save(found: DimensionMap, folder: Path) -> None:
    x, y = found.positions.T
    columns = {"dimension": found.dimensions, "x": x, "y": y, "method": found.method}
    pd.DataFrame(columns).to_parquet(folder / _FILE, index=False)


def _load(folder: Path) -> DimensionMap:
    table = pd.read_parquet(folder / _FILE)
    method = str(table["method"].iloc[0]) if len(table) else BY_PCA
    positions = table[["x", "y"]].to_numpy(np.float32)
    return DimensionMap(table["dimension"].to_numpy(np.int64), positions, method)
