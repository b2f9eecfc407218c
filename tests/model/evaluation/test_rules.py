from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.evaluation import rules
from sieve.model.exclusion import Calibration, Query, RowFilter, off_weights, propose_off, scores


def above(threshold: float, off: np.ndarray) -> RowFilter:
    return lambda codes, _: (codes[:, off] > threshold).sum(axis=1) > 0


def random_codes(generator: np.random.Generator, n: int, m: int) -> np.ndarray:
    values = generator.random((n, m)) * (generator.random((n, m)) < 0.4)
    return rules.unit(values.astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.125, 3, width=16),
    st.floats(0, 0.5, width=16),
    st.floats(0, 3, width=16),
    st.floats(0, 0.25, width=16),
    st.integers(0, 4),
)
def test_code_rules_equal_search(
    seed: int, ratio: float, floor: float, push: float, threshold: float, limit: int
) -> None:
    generator = np.random.default_rng(seed)
    images, a, b = (random_codes(generator, n, 12) for n in (20, 3, 3))
    evidence = generator.random((3, 12)).astype(np.float32)
    space = rules.Space(csr_array(images), a, b, a, evidence)
    codes = SparseCodes.from_active(images, np.tile(np.arange(12), (20, 1)), 12)
    values = {
        "ratio": ratio, "floor": floor, "push": push, "threshold": threshold, "limit": limit,
    }  # fmt: skip
    calibration = Calibration(push, ratio, floor, limit)
    for p in range(3):
        off, without = propose_off(a[p], b[p], calibration, evidence[p])
        weights = tuple(off_weights(a[p], without, off, np.ones(12, np.float32)).tolist())

        def found(never: bool = False, strictness: float = 1.0, p=p, off=off, weights=weights):  # noqa: ANN202
            hides = above(threshold, off) if never else None
            query = Query(a[p], tuple(off.tolist()), weights, strictness, hides, calibration)
            return scores(codes, query)

        np.testing.assert_allclose(rules.PUSH.scores(space, values)[p], found(), atol=1e-5)
        np.testing.assert_allclose(
            rules.ZERO.scores(space, values)[p], found(strictness=0), atol=1e-5
        )
        np.testing.assert_allclose(
            rules.NEVER.scores(space, values)[p], found(never=True), atol=1e-5
        )


def test_signed_space_is_subtracted_towards_minus_b() -> None:
    images = rules.unit(np.array([[1, 1, 0], [1, -1, 0], [1, 0, 0]], np.float32))
    a, b = np.array([[1, 0, 0]], np.float32), rules.unit(np.array([[0.1, -1, 0]], np.float32))
    space = rules.Space(images, a, b, a)
    pushed = rules.PUSH.scores(space, {"ratio": 1.0, "floor": 0.0, "push": 1.0})[0]
    assert pushed.argmax() == 0
    assert pushed.argmin() == 1
    zeroed = rules.ZERO.scores(space, {"ratio": 1.0, "floor": 0.0})[0]
    assert zeroed[0] == pytest.approx(zeroed[1])


# Scores of three bank queries for three items: means 2, 4, 0 and standard deviations 1, 4, 2.
BANK = np.array([[1, 0, -2], [2, 4, 0], [3, 8, 2]], np.float32)


def test_scores_are_standardised_by_item_and_then_by_query() -> None:
    scores = np.array([[3, 8, 4]], np.float32)
    # By item: (3 - 2) / 1, (8 - 4) / 4, (4 - 0) / 2 = 1, 1, 2; their mean is 4/3, their sample
    # standard deviation √(1/3).
    expected = np.array([[1, 1, 2]]) - 4 / 3
    np.testing.assert_allclose(
        rules.ItemBias(BANK).standardise(scores), expected / np.sqrt(1 / 3), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("k", "highest"), [(1, [3, 8, 2]), (2, [2.5, 6, 1]), (3, [2, 4, 0]), (99, [2, 4, 0])]
)
def test_the_mean_of_the_nearest_queries_is_subtracted(k: int, highest: list[float]) -> None:
    scores = np.array([[3, 8, 4], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(
        rules.ItemBias(BANK).subtract_nearest(scores, 0.75, k), scores - 0.75 * np.array(highest)
    )
