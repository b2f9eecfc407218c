"""The contract of `Index`, checked for every implementation with the same codes.

Qdrant's in-memory client replaces the server; if QDRANT_URL is set, a server is tested too.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import Calibration, Query, contributions
from sieve.model.index import Index, LocalIndex
from sieve.model.index.qdrant import IndexIdentity, QdrantIndex, upload

N, M, K = 160, 30, 6
CALIBRATION = Calibration(push=1.3)
THRESHOLD = 0.25
ENGINES = ["local", "qdrant", pytest.param("server", marks=pytest.mark.external)]


def made_up_codes() -> SparseCodes:
    random = np.random.default_rng(0)
    indices = np.stack([random.permutation(M)[:K] for _ in range(N)])
    values = random.random((N, K)).astype(np.float32) * (random.random((N, K)) < 0.8)
    return SparseCodes.from_active(values, indices, M)


CODES = made_up_codes()
MEAN = np.linspace(0.1, 0.5, M, dtype=np.float32)
IDENTITY = IndexIdentity("photos", "a" * 64, "codes", "b" * 64, N, M, CALIBRATION.push)
IDS = [f"{row:016x}" for row in range(N)]


def qdrant(client: Any, name: str) -> QdrantIndex:
    upload(client, name, IDENTITY, CODES, MEAN, IDS, where=name, batch=50)
    return QdrantIndex(client, name, IDENTITY, name)


@pytest.fixture(scope="module", params=ENGINES)
def index(request: pytest.FixtureRequest) -> Iterator[Index]:
    if request.param == "local":
        yield LocalIndex(CODES, MEAN)
        return
    qdrant_client = pytest.importorskip("qdrant_client")
    url = os.environ.get("QDRANT_URL", "")
    if request.param == "qdrant":
        yield qdrant(qdrant_client.QdrantClient(":memory:"), "photos")
    elif not url:
        pytest.skip("QDRANT_URL names no server")
    else:
        key = os.environ.get("QDRANT_API_KEY") or None
        client, name = qdrant_client.QdrantClient(url=url, api_key=key), f"test-{uuid.uuid4().hex}"
        try:
            yield qdrant(client, name)
        finally:
            client.delete_collection(name)


def ask(seed: int, off: int = 3, never: bool = False, strictness: float = 1.0) -> Query:
    random = np.random.default_rng(seed)
    code = random.random(M).astype(np.float32) * (random.random(M) < 0.3)
    code /= np.linalg.norm(code)
    chosen = tuple(random.permutation(M)[:off].tolist())
    weights = tuple((0.2 + random.random(off)).tolist())

    def hides(codes: csr_array, rows: np.ndarray) -> np.ndarray:
        assert np.array_equal(codes.toarray(), CODES.by_row[rows].toarray())
        return (codes[:, list(chosen)] > THRESHOLD).sum(axis=1) > 0

    return Query(code, chosen, weights, strictness, hides if never else None, CALIBRATION)


def reference(query: Query) -> np.ndarray:
    """Scores of all rows, computed densely; NaN where there is no result."""
    dense = CODES.by_row.toarray().astype(np.float64)
    factors = query.code.astype(np.float64)
    factors[list(query.off)] = -query.push * np.array(query.weights)
    total = np.where((dense[:, factors != 0] > 0).any(1), dense @ factors, np.nan)
    if query.never and query.off:
        total[(dense[:, list(query.off)] > THRESHOLD).any(1)] = np.nan
    return total


@pytest.mark.parametrize("never", [False, True], ids=["push", "never"])
@pytest.mark.parametrize(("off", "strictness"), [(0, 1.0), (4, 0.0), (4, 0.5), (4, 1.0)])
def test_rows_and_scores_equal_the_formula(
    index: Index, never: bool, off: int, strictness: float
) -> None:
    for seed in range(5):
        query = ask(seed, off, never, strictness)
        expected = reference(query)
        order = np.argsort(-np.nan_to_num(expected, nan=-np.inf), kind="stable")[:24]
        found = index.search(query, 24)
        np.testing.assert_allclose(found.scores, expected[order], atol=2e-6)
        np.testing.assert_allclose(expected[found.rows], found.scores, atol=2e-6)
        assert len(set(found.rows.tolist())) == 24


@pytest.mark.parametrize("never", [False, True], ids=["push", "never"])
def test_filtered_rows_are_ranked_alone(index: Index, never: bool) -> None:
    query = ask(4, off=2, never=never)
    among = np.arange(N) % 3 == 0
    expected = np.where(among, np.nan_to_num(reference(query), nan=-np.inf), -np.inf)
    order = np.argsort(-expected, kind="stable")[:8]
    found = index.search(replace(query, among=among), 8)
    assert found.rows.tolist() == order.tolist()


def test_contributions_sum_to_the_score(index: Index) -> None:
    query = ask(1)
    found = index.search(query, 10)
    for place, (row, score) in enumerate(zip(found.rows, found.scores, strict=True)):
        parts = contributions(found.codes, query, place)
        assert parts.values.sum() == pytest.approx(score, abs=2e-6)
        own = contributions(CODES, query, int(row))
        np.testing.assert_array_equal(parts.dimensions, own.dimensions)
        np.testing.assert_array_equal(parts.values, own.values)


def test_off_then_on_restores_the_results(index: Index) -> None:
    query = ask(2, off=0)
    before = index.search(query, 24)
    index.search(ask(2, off=3), 24)
    after = index.search(query, 24)
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_never_returns_exactly_the_rows_that_are_not_hidden(index: Index) -> None:
    query = ask(3, off=2, never=True)
    found = index.search(query, N)
    off = CODES.by_row[:, list(query.off)].toarray()
    assert (off[found.rows] <= THRESHOLD).all()
    assert (off[found.rows] > 0).any(), "what is below it stays"
    assert sorted(found.rows.tolist()) == np.flatnonzero(~np.isnan(reference(query))).tolist()


def test_large_top_returns_all_rows_that_share_a_dimension(index: Index) -> None:
    query = ask(4)
    found = index.search(query, 10 * N)
    assert sorted(found.rows.tolist()) == np.flatnonzero(~np.isnan(reference(query))).tolist()
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores[-1] < 0, "what is pushed away comes last"


def test_empty_query_returns_nothing(index: Index) -> None:
    empty = Query(np.zeros(M, np.float32))
    assert len(index.search(empty, 24).rows) == 0
    assert len(index.search(ask(0), 0).rows) == 0


def test_row_codes_are_read_exactly(index: Index) -> None:
    np.testing.assert_array_equal(index.code(7), CODES.dense(7))
    np.testing.assert_array_equal(index.mean_positive, MEAN)
