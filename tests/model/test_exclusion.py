"""Property tests of exclusion scores over random codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve.model.codes import SparseCodes
from sieve.model.exclusion import (
    Calibration,
    Query,
    RowFilter,
    best,
    contributions,
    off_weights,
    propose_off,
    scores,
    search,
)


class World(NamedTuple):
    codes: SparseCodes
    code: np.ndarray
    off: tuple[int, ...]
    weights: tuple[float, ...]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    n, m = draw(st.integers(1, 40)), draw(st.integers(2, 24))
    k = draw(st.integers(1, m))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    indices = np.stack([generator.permutation(m)[:k] for _ in range(n)])
    # Few distinct values make ties, where rankings are most likely wrong.
    values = generator.integers(0, 3, (n, k)).astype(np.float32)
    code = generator.random(m).astype(np.float32) * (generator.random(m) < 0.6)
    code /= max(float(np.linalg.norm(code)), 1e-9)
    off = draw(st.lists(st.integers(0, m - 1), unique=True, max_size=m))
    weights = generator.random(len(off)).astype(np.float32)
    return World(
        SparseCodes.from_active(values, indices, m), code, tuple(off), tuple(weights.tolist())
    )


def above(threshold: float, off: tuple[int, ...]) -> RowFilter:
    return lambda codes, _: (codes[:, list(off)] > threshold).sum(axis=1) > 0


def dense(codes: SparseCodes) -> np.ndarray:
    return codes.by_row.toarray().astype(np.float64)


@given(worlds(), st.floats(0, 1), st.floats(0, 3))
@settings(max_examples=150, deadline=None)
def test_scores_equal_a_dense_reference(world: World, strictness: float, push: float) -> None:
    codes, code, off, weights = world
    query = Query(code, off, weights, strictness, calibration=Calibration(push=push))
    factor = code.astype(np.float64)
    factor[list(off)] = -strictness * push * np.array(weights)
    np.testing.assert_allclose(scores(codes, query), dense(codes) @ factor, atol=1e-6)


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_off_dimension_contributes_zero_at_strictness_0(world: World) -> None:
    codes, code, off, weights = world
    query = Query(code, off, weights, strictness=0)
    without = code.copy()
    without[list(off)] = 0
    assert np.array_equal(scores(codes, query), scores(codes, Query(without)))
    for row in range(codes.n):
        parts = contributions(codes, query, row)
        assert all(v == 0 for j, v in zip(*parts, strict=True) if j in off)


@given(worlds(), st.floats(0, 0.875, width=32))  # codes are float32
@settings(max_examples=100, deadline=None)
def test_never_returns_exactly_the_rows_that_are_not_hidden(world: World, threshold: float) -> None:
    codes, code, off, weights = world
    query = Query(code, off, weights, hides=above(threshold, off))
    hits = search(codes, query, codes.n)
    assert not (dense(codes)[hits.rows][:, list(off)] > threshold).any()
    has_none = ~(dense(codes)[:, list(off)] > threshold).any(1)
    assert len(hits.rows) == has_none.sum()


@given(worlds(), st.floats(0, 0.9), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_never_gives_the_same_results_for_partial_and_full_scans(
    world: World, threshold: float, top: int
) -> None:
    codes, code, off, weights = world
    query = Query(code, off, weights, hides=above(threshold, off))
    found, all_looked_at = search(codes, query, top), best(scores(codes, query), top)
    assert found.rows.tolist() == all_looked_at.rows.tolist()
    assert found.scores.tolist() == all_looked_at.scores.tolist()


@given(worlds(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_off_then_on_is_the_identity_bit_for_bit(world: World, strictness: float) -> None:
    codes, code, off, weights = world
    before = scores(codes, Query(code, strictness=strictness))
    scores(codes, Query(code, off, weights, strictness))
    after = scores(codes, Query(code, (), (), strictness))
    assert before.tobytes() == after.tobytes()


@given(worlds(), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_ties_break_by_row(world: World, top: int) -> None:
    codes, code, off, weights = world
    total = scores(codes, Query(code, off, weights))
    hits = best(total, top)
    expected = sorted(range(codes.n), key=lambda row: (-total[row], row))[:top]
    assert hits.rows.tolist() == expected


@pytest.mark.parametrize("n", [1, 255, 256, 5000])
@pytest.mark.parametrize("top", [1, 19, 24])
@pytest.mark.parametrize("left_out", [0.0, 0.5, 0.999, 1.0])
def test_top_k_equals_a_full_sort(n: int, top: int, left_out: float) -> None:
    generator = np.random.default_rng(n)
    total = generator.integers(-20, 20, n).astype(np.float32)
    total[generator.random(n) < left_out] = -np.inf
    expected = sorted(np.flatnonzero(total > -np.inf), key=lambda row: (-total[row], row))[:top]
    assert best(total, top).rows.tolist() == expected


@given(worlds(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_contributions_sum_to_the_score(world: World, strictness: float) -> None:
    codes, code, off, weights = world
    query = Query(code, off, weights, strictness)
    total = scores(codes, query)
    for row in range(codes.n):
        parts = contributions(codes, query, row)
        assert parts.values.astype(np.float64).sum() == pytest.approx(total[row], abs=1e-6)
        assert (np.diff(parts.values) <= 0).all()


def test_order_of_switching_off_does_not_matter() -> None:
    codes = SparseCodes.from_active(np.ones((3, 3)), np.array([[0, 1, 2]] * 3), 4)
    code = np.full(4, 0.5, np.float32)
    one = scores(codes, Query(code, (0, 2), (0.3, 0.7)))
    other = scores(codes, Query(code, (2, 0), (0.7, 0.3)))
    assert one.tobytes() == other.tobytes()


A = np.array([0.8, 0.5, 0.0, 0.1, 0.0], np.float32)
B = np.array([0.1, 0.6, 0.7, 0.1, 0.0], np.float32)


def test_without_proposes_dimensions_stronger_in_b() -> None:
    assert propose_off(A, B).off.tolist() == [2, 1]
    assert propose_off(A, B, Calibration(proposal_floor=0.9)).off.tolist() == [2]
    assert propose_off(A, B, Calibration(proposal_ratio=1.3)).off.tolist() == [2]
    assert not len(propose_off(A, np.zeros(5, np.float32)).off)


def test_evidence_selects_and_orders_proposals() -> None:
    b = np.array([0.2, 0.6, 0.7, 0.4, 0.0], np.float32)
    evidence = np.array([0.9, 0.95, 0.7, 0.55, 0.99], np.float32)
    # Dimension 0 belongs to A, 3 does not separate B's images, and 4 is not in B's code.
    assert propose_off(A, b, evidence=evidence).off.tolist() == [1, 2]
    assert propose_off(A, b, Calibration(proposal_limit=1), evidence).off.tolist() == [1]


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_the_limit_is_for_each_exclusion(limit: int) -> None:
    nothing = np.zeros(8, np.float32)
    first, second = np.arange(8, 0, -1, dtype=np.float32), np.arange(1, 9, dtype=np.float32)
    off = propose_off(nothing, np.stack([first, second]), Calibration(proposal_limit=limit)).off
    wanted = {*range(limit), *range(8 - limit, 8)} if limit else set(range(8))
    assert set(off.tolist()) == wanted


def test_the_limit_counts_concepts() -> None:
    b = np.array([0, 0.3, 0.4, 0.1, 0.2, 0.05], np.float32)
    concepts = np.array([0, 1, 2, 3, 1, 1])
    nothing = np.zeros(6, np.float32)
    off = propose_off(nothing, b, Calibration(proposal_limit=2), None, concepts).off
    assert off.tolist() == [2, 1, 4], "members of the two best concepts, but no weak one"


def test_a_concept_goes_off_without_members_that_belong_to_a_or_lack_evidence() -> None:
    b = np.array([0.2, 0.6, 0.7, 0.4, 0.0], np.float32)
    evidence = np.array([0.9, 0.95, 0.85, 0.55, 0.99], np.float32)
    one = np.zeros(5, np.int32)
    off = propose_off(A, b, Calibration(proposal_limit=1), evidence, one).off
    assert off.tolist() == [1, 2]


def test_proposed_dimensions_have_unit_weight_together() -> None:
    proposal = propose_off(A, np.stack([B, B[::-1]]), Calibration(proposal_limit=1))
    # B's strongest dimension weighs 1 however weak it is, and so does that of the other phrase.
    assert proposal.off.tolist() == [2]
    np.testing.assert_allclose(proposal.weights[:, 2].max(), 1)
    mean = np.full(5, 0.25, np.float32)
    weights = off_weights(A, B, np.array([0, 1, 4]), mean)
    np.testing.assert_allclose(weights, [0.8, 0.6, 0.25])


def test_calibration_rejects_non_finite_values() -> None:
    with pytest.raises(ValueError, match="push"):
        Calibration(push=float("inf"))
