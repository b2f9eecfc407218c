"""Latency of `LocalIndex` compared with a sparse matrix product on the GPU."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import torch

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Query
from sieve.model.index import LocalIndex
from tests.benchmarks.gpu.measuring import Case, Row, Setup, seconds_per_call, synchronize

_BLOCK = 100_000
_QUERIES, _TOP, _OFF = 12, 24, 5


def synthetic_codes(n: int, m: int, active: int, device: torch.device) -> SparseCodes:
    """Generate unit codes whose dimensions fire at rates that follow a power law."""
    generator = torch.Generator(device).manual_seed(0)
    log_rate = -torch.arange(10, m + 10, device=device).float().log()
    indices, values = np.empty((n, active), np.int32), np.empty((n, active), np.float32)
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        uniform = torch.rand(size, m, generator=generator, device=device).clamp_(1e-12, 1 - 1e-7)
        # Gumbel-top-k: sampling without replacement in proportion to the rates.
        chosen = (log_rate - (-uniform.log()).log()).topk(active).indices.sort(1).values
        strength = torch.rand(size, active, generator=generator, device=device) + 0.05
        unit = torch.nn.functional.normalize(strength, dim=1)
        indices[start : start + size] = chosen.int().cpu().numpy()
        values[start : start + size] = unit.cpu().numpy()
    starts = np.arange(n + 1, dtype=np.int64) * active
    return SparseCodes(starts, indices.ravel(), values.ravel(), m)


def queries(codes: SparseCodes) -> list[Query]:
    """Make queries of random rows, with some dimensions of another row off."""
    random = np.random.default_rng(1)
    made = []
    for one, other in random.integers(codes.n, size=(_QUERIES, 2)):
        dimensions, weights = codes.row(int(other))
        off = tuple(map(int, dimensions[:_OFF]))
        made.append(Query(codes.dense(int(one)), off, tuple(map(float, weights[:_OFF]))))
    return made


def measure_search(setup: Setup, n: int) -> Row:
    """Measure both indexes on the same queries."""
    device, sizes = setup.device, setup.sizes
    codes = synthetic_codes(n, sizes.encoder[0], sizes.active, device)
    asked = queries(codes)
    started = time.perf_counter()
    index = LocalIndex(codes, np.ones(codes.m, np.float32))
    index.search(asked[0], _TOP)  # builds the postings
    row: Row = {"building_postings_s": time.perf_counter() - started}
    found = [index.search(query, _TOP) for query in asked]
    local = [_seconds(partial(index.search, query, _TOP)) for query in asked]

    started = time.perf_counter()
    by_row = codes.by_row
    parts = (by_row.indptr.astype(np.int32), by_row.indices, by_row.data)
    pointers, columns, values = (torch.from_numpy(part).to(device) for part in parts)
    matrix = torch.sparse_csr_tensor(
        pointers, columns, values, size=(n, codes.m), check_invariants=False
    )
    synchronize(device)
    row["copying_to_device_s"] = time.perf_counter() - started

    def on_device(query: Query) -> tuple[np.ndarray, np.ndarray]:
        factors = torch.from_numpy(query.factors).to(device)
        best = (matrix @ factors[:, None])[:, 0].topk(_TOP)
        return best.indices.cpu().numpy(), best.values.cpu().numpy()

    theirs = [on_device(query) for query in asked]
    taken = [_seconds(partial(on_device, query)) for query in asked]
    factors = torch.from_numpy(np.stack([query.factors for query in asked], 1)).to(device)
    batch = seconds_per_call(lambda: (matrix @ factors).topk(_TOP, dim=0), device, 5)
    error = max(
        float(np.abs(ours.scores - scores[: len(ours.scores)]).max())
        for ours, (_, scores) in zip(found, theirs, strict=True)
    )
    same = np.mean([
        len(np.intersect1d(ours.rows, rows)) / len(ours.rows)
        for ours, (rows, _) in zip(found, theirs, strict=True)
    ])  # fmt: skip
    one_local, one_device = float(np.median(local)), float(np.median(taken))
    return row | {
        "passed": error <= 1e-5,
        "local_index_ms": 1000 * one_local,
        "sparse_product_ms": 1000 * one_device,
        "ratio": one_local / one_device,
        f"sparse_product_ms_per_query_of_{_QUERIES}": 1000 * batch / _QUERIES,
        "largest_score_difference": error,
        "same_rows": float(same),
        "must": "equal scores",
    }


def _seconds(call: partial) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cases(setup: Setup) -> list[Case]:
    """Return one case for each number of items."""
    return [
        Case(f"{n:,} items", partial(measure_search, setup, n), 10 + n / 200_000)
        for n in setup.sizes.search_items
    ]
