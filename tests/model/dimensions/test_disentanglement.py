from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sieve.model.dimensions.labels import disentanglement, probe_importances


def test_one_to_one_scores_1_and_uniform_scores_0() -> None:
    one_to_one = disentanglement(np.eye(4) * [1, 2, 3, 4])
    assert (one_to_one.disentanglement, one_to_one.completeness) == pytest.approx((1, 1))
    even = disentanglement(np.ones((6, 4)))
    assert (even.disentanglement, even.completeness) == pytest.approx((0, 0))


def test_two_dimensions_for_one_label_are_disentangled_but_incomplete() -> None:
    found = disentanglement(np.array([[1.0, 0], [1.0, 0], [0, 1.0], [0, 0]]))
    assert found.disentanglement == pytest.approx(1)
    assert found.by_label == pytest.approx([1 - np.log(2) / np.log(4), 1])
    assert found.completeness == pytest.approx((2 * 0.5 + 1) / 3)
    assert np.isnan(found.by_dimension[3])


@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_scores_are_in_range_and_invariant_to_order_and_scale(seed: int, factor: float) -> None:
    generator = np.random.default_rng(seed)
    importances = generator.random((7, 5)) * (generator.random((7, 5)) < 0.6)
    found = disentanglement(importances)
    turned = disentanglement(factor * importances[generator.permutation(7)][:, ::-1])
    if importances.any():
        assert 0 <= found.disentanglement <= 1 and 0 <= found.completeness <= 1
        assert turned[:2] == pytest.approx(found[:2])


def test_probes_find_the_dimension_of_each_label() -> None:
    generator = np.random.default_rng(0)
    has = generator.random((400, 3)) < 0.3
    codes = np.zeros((400, 10))
    codes[:, [2, 5, 7]] = has * generator.uniform(0.5, 1, (400, 3))
    codes[:, [0, 1, 3]] = generator.random((400, 3)) * (generator.random((400, 3)) < 0.3)
    rows = np.arange(300), np.arange(300, 400)
    importances, auc = probe_importances(csr_array(codes), csr_array(has.astype(float)), *rows)
    assert importances.argmax(0).tolist() == [2, 5, 7]
    assert auc == pytest.approx([1, 1, 1])
    assert disentanglement(importances).disentanglement > 0.95
