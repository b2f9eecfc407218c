"""Test similarity scores against brute force with known geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array

from sieve.model.dimensions.statistics import (
    centred_features,
    clarity,
    example_scores,
    monosemanticity,
    polysemanticity,
    redundancy,
    strongest,
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Activations (n, m) with zeros, and unit features (n, d)."""
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, m, d = draw(st.integers(2, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    codes = generator.random((n, m)) * (generator.random((n, m)) < draw(st.floats(0, 1)))
    return codes.astype(np.float32), unit(generator.standard_normal((n, d))).astype(np.float32)


def pairwise_monosemanticity(activations: np.ndarray, features: np.ndarray) -> float:
    """Compute the formula of Pach et al. pair by pair."""
    low, high = activations.min(), activations.max()
    scaled = (activations - low) / (high - low) if high > low else 0 * activations
    above = below = 0.0
    for i in range(len(scaled)):
        for other in range(len(scaled)):
            if i != other:
                above += scaled[i] * scaled[other] * float(features[i] @ features[other])
                below += scaled[i] * scaled[other]
    return above / below if below > 0 else np.nan


@given(worlds())
def test_monosemanticity_is_the_sum_over_pairs(world: tuple[np.ndarray, np.ndarray]) -> None:
    codes, features = world
    found = monosemanticity(csr_array(codes), features)
    expected = [pairwise_monosemanticity(column.astype(float), features) for column in codes.T]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_monosemanticity_of_a_dimension_that_fires_everywhere_is_min_max_scaled() -> None:
    features = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    codes = np.array([[0.9], [0.9], [0.2]], np.float32)  # scaled: 1, 1, 0
    assert monosemanticity(csr_array(codes), features) == pytest.approx([1.0])


@given(worlds(), st.floats(0.1, 9))
def test_scores_do_not_depend_on_the_scale_of_a_dimension(
    world: tuple[np.ndarray, np.ndarray], factor: float
) -> None:
    codes, features = world
    scaled = (codes * np.float32(factor)).astype(np.float32)
    first, then = (
        (*example_scores(csc_array(one), features), monosemanticity(csr_array(one), features))
        for one in (codes, scaled)
    )
    for before, after in zip(first, then, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-4)


@given(worlds())
def test_scores_stay_in_range(world: tuple[np.ndarray, np.ndarray]) -> None:
    codes, features = world
    scores = example_scores(csc_array(codes), features)
    for values, low, high in zip(scores, (-1, -1, 0), (1, 1, 2), strict=True):
        there = values[~np.isnan(values)]
        assert ((there >= low - 1e-5) & (there <= high + 1e-5)).all()
    too_few = (codes > 0).sum(0) < 2
    assert (np.isnan(scores.clarity) == too_few).all()
    assert (np.isnan(scores.polysemanticity) == too_few).all()


def test_clarity_is_the_mean_cosine_of_pairs() -> None:
    examples = unit(np.random.default_rng(0).standard_normal((4, 7, 5)))
    there = np.ones((4, 7), bool)
    there[1, 4:] = False
    there[2, 1:] = False
    found = clarity(examples, there)
    for j in (0, 1, 3):
        saved = examples[j][there[j]]
        cosines = (saved @ saved.T)[~np.eye(len(saved), dtype=bool)]
        assert found[j] == pytest.approx(cosines.mean())
    assert np.isnan(found[2])


def test_redundancy_is_the_nearest_other_dimension() -> None:
    centres = np.array([[1.0, 0], [2.0, 0], [0, 1.0], [0, 0]])
    np.testing.assert_allclose(redundancy(centres), [1, 1, 0, np.nan], atol=1e-6)


@pytest.mark.parametrize(("angle", "expected"), [(0, 0), (60, 0.5), (90, 1), (180, 2)])
def test_polysemanticity_is_the_angle_between_two_meanings(angle: float, expected: float) -> None:
    turned = [np.cos(np.radians(angle)), np.sin(np.radians(angle))]
    examples = np.array([[[1.0, 0]] * 4 + [turned] * 4])
    found = polysemanticity(examples, np.ones((1, 8), bool))
    assert found == pytest.approx([expected], abs=1e-6)


def test_one_outlier_is_no_second_meaning() -> None:
    examples = np.array([[[1.0, 0]] * 9 + [[0, 1.0]]])
    assert polysemanticity(examples, np.ones((1, 10), bool))[0] < 0.2


def test_polysemanticity_equals_k_means() -> None:
    from sklearn.cluster import KMeans

    generator = np.random.default_rng(3)
    ends = unit(generator.standard_normal((6, 2, 8)))
    examples = unit(np.repeat(ends, 10, 1) + 0.1 * generator.standard_normal((6, 20, 8)))
    found = polysemanticity(examples, np.ones((6, 20), bool))
    for j in range(6):
        one, two = KMeans(2, n_init=10, random_state=0).fit(examples[j]).cluster_centers_
        cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
        assert found[j] == pytest.approx(1 - cosine, abs=1e-6)


def test_strongest_rows_come_first_and_ties_by_row() -> None:
    codes = csc_array(np.array([[0.5, 0], [0.9, 0], [0.5, 0], [0, 0.1]], np.float32))
    rows, there = strongest(codes, 2)
    assert rows.tolist() == [[1, 0], [3, 0]]
    assert there.tolist() == [[True, True], [True, False]]


def test_centring_separates_similar_images() -> None:
    features = centred_features(np.array([[1, 0.1], [1, -0.1]], np.float16))
    assert features[0] @ features[1] == pytest.approx(-1, abs=1e-3)
    assert centred_features(np.empty((0, 3))).shape == (0, 3)
