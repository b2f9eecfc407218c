"""Generate any number of codes and queries with the statistics of a trained encoder.

Each code is a mixture of two real codes of the bundled collection, truncated to its strongest
dimensions, so that firing rates and co-occurrences are realistic.
"""

from __future__ import annotations

import numpy as np

from sieve.data_prep.bundled import locate_collection
from sieve.model.codes import SparseCodes
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Query

_BLOCK = 4096


def codes_like(real: SparseCodes, n: int, k: int, seed: int = 0) -> SparseCodes:
    """Generate codes of `n` items with at most `k` active dimensions each.

    Parameters
    ----------
    real : SparseCodes
    n, k : int
    seed : int
    """
    random = np.random.default_rng(seed)
    dense = real.by_row.toarray()
    values, indices = [], []
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        first, second = dense[random.integers(real.n, size=(2, size))]
        share = random.uniform(0.2, 0.8, (size, 1)).astype(np.float32)
        mixed = share * first + (1 - share) * second
        mixed *= random.uniform(0.8, 1.25, mixed.shape).astype(np.float32)
        active = np.argpartition(-mixed, k, axis=1)[:, :k]
        values.append(np.take_along_axis(mixed, active, 1))
        indices.append(active.astype(np.int32))
    return SparseCodes.from_active(np.concatenate(values), np.concatenate(indices), real.m)


def questions(
    engine: SearchEngine, count: int, active: int, off: int, seed: int = 0
) -> list[Query]:
    """Generate queries from captions, with some dimensions of another caption off.

    Parameters
    ----------
    engine : SearchEngine
    count : int
    active : int
        Number of active dimensions of each query.
    off : int
        Number of dimensions that are off.
    """
    random = np.random.default_rng(seed)
    mean = engine.derived.mean_positive
    queries = []
    for a, b in random.integers(engine.text_codes.n, size=(count, 2)):
        code, without = (_strongest(engine.text_codes.dense(int(row)), active) for row in (a, b))
        chosen = np.argsort(-without, kind="stable")[:off]
        weights = np.where(without[chosen] > 0, without[chosen], mean[chosen])
        places, amounts = tuple(map(int, chosen)), tuple(map(float, weights))
        queries.append(Query(code, places, amounts, calibration=engine.checkpoint.calibration))
    return queries


def bundled_engine() -> SearchEngine:
    """Open the bundled collection."""
    return SearchEngine.open(locate_collection("scenes"), device="cpu")


def _strongest(code: np.ndarray, active: int) -> np.ndarray:
    saved = np.where(code >= np.sort(code)[-active], code, 0)
    return (saved / np.linalg.norm(saved)).astype(np.float32)
