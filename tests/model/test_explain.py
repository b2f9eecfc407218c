"""Test explanations: contributions sum to the score, and ranks equal those of search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve.model.codes import SparseCodes
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Calibration, Query, search
from sieve.model.explain import compare_items, cosine, explain, overlap

M = 12


def random_codes(n: int, seed: int) -> SparseCodes:
    generator = np.random.default_rng(seed)
    values = generator.random((n, 4), np.float32)
    values[generator.random((n, 4)) < 0.3] = 0
    indices = np.array([generator.choice(M, 4, replace=False) for _ in range(n)])
    return SparseCodes.from_active(values, indices, M)


def random_query(codes: SparseCodes, seed: int, never: bool) -> Query:
    generator = np.random.default_rng(seed)
    off = tuple(sorted(generator.choice(M, 3, replace=False).tolist()))
    weights = tuple(generator.random(3).tolist())
    calibration = Calibration(push=1.3)
    hides = (lambda rows, _: (rows[:, list(off)] > 0.2).sum(axis=1) > 0) if never else None
    return Query(codes.dense(0), off, weights, 0.7, hides, calibration)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_shares_sum_to_the_cosine(one: int, other: int) -> None:
    codes = random_codes(2, one + other)
    left, right = codes.dense(0), codes.dense(1)
    found = overlap(left, right)
    assert found.cosine == pytest.approx(float(left @ right), abs=1e-6)
    assert sum(part.product for part in found.shared) == pytest.approx(found.cosine)
    if found.shared:
        assert sum(part.share for part in found.shared) == pytest.approx(1)
    products = [part.product for part in found.shared]
    assert products == sorted(products, reverse=True)
    common = {part.dimension for part in found.shared}
    for code, only in ((left, found.left), (right, found.right)):
        mine = {j for j, _ in only}
        assert not mine & common
        assert mine | common == set(np.flatnonzero(code).tolist())


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), st.integers(0, 19), st.integers(0, 19))
def test_contributions_sum_to_scores_and_ranks_equal_search(
    seed: int, never: bool, left: int, right: int
) -> None:
    codes = random_codes(20, seed)
    query = random_query(codes, seed + 1, never)
    found = compare_items(codes, query, left, right)
    hits = search(codes, query, 20)
    ranked = [r for r, s in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True) if s != 0]
    assert found.ranked == len(ranked)
    for side, row in (("left", left), ("right", right)):
        standing = getattr(found, side)
        assert sum(getattr(part, side) for part in found.parts) == pytest.approx(
            standing.score, abs=1e-5
        )
        assert standing.rank == (ranked.index(row) + 1 if row in ranked else None)
        assert standing.removed == (row not in hits.rows)
    gaps = [abs(part.difference) for part in found.parts]
    assert gaps == sorted(gaps, reverse=True)


def test_item_removed_by_never_has_its_hypothetical_rank() -> None:
    codes = SparseCodes.from_active(
        np.array([[1, 0], [1, 1], [1, 2]], np.float32), np.array([[0, 1]] * 3), 3
    )
    query = Query(np.array([1, 0, 0], np.float32), (1,), (0.4,), hides=lambda _, rows: rows > 0)
    found = compare_items(codes, query, 0, 2)
    assert (found.left.rank, found.left.removed, found.ranked) == (1, False, 1)
    assert (found.right.rank, found.right.removed, found.right.rank_if_kept) == (None, True, 3)
    assert [(part.dimension, part.off) for part in found.reasons] == [(0, False)]


def test_reasons_are_few_and_favour_the_higher_item() -> None:
    codes = random_codes(40, 3)
    query = random_query(codes, 4, never=False)
    for right in range(1, 40):
        found = compare_items(codes, query, 0, right)
        ahead = 1 if found.left.score >= found.right.score else -1
        assert len(found.reasons) <= 3
        assert all(ahead * part.difference > 0 for part in found.reasons)


def test_engine_ranks_equal_search_ranks(engine: SearchEngine) -> None:
    query = engine.encode("a dog", "a beach")
    results = engine.search(query, top=20).results
    found = explain(engine, query, results[2].id, results[17].id)
    assert (found.left.rank, found.right.rank) == (3, 18)
    assert found.left.score == pytest.approx(results[2].score)
    own = {part.dimension: part.value for part in results[2].contributions}
    explained = {part.dimension: part.left for part in found.parts if part.left}
    assert explained == pytest.approx({j: value for j, value in own.items() if value})


def test_query_item_is_not_a_result(engine: SearchEngine) -> None:
    item = engine.collection.items["id"].iloc[3]
    query = engine.encode(item=item)
    first = engine.search(query).results[0]
    found = explain(engine, query, item, first.id)
    assert found.left.rank is None
    assert not found.left.removed
    assert found.right.rank == 1


@pytest.mark.parametrize("bad", [{"left": "f" * 16}, {"off": (64,)}])
def test_unknown_items_are_rejected(engine: SearchEngine, bad: dict) -> None:
    item = engine.collection.items["id"].iloc[0]
    with pytest.raises(ValueError, match="no item|no dimension"):
        explain(engine, engine.encode("a dog"), **{"left": item, "right": item, **bad})


def test_missing_embeddings_have_no_cosine() -> None:
    assert cosine(np.zeros(0), np.zeros(0)) is None
    assert cosine(np.array([3.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(0.5**0.5)
