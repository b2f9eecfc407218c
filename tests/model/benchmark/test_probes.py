from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from sieve.model.benchmark.methods import MIN_ITEMS, fit_probe, word_weights


@pytest.fixture
def has() -> np.ndarray:
    return np.random.default_rng(1).random(400) < 0.3


@pytest.fixture
def codes(has: np.ndarray) -> np.ndarray:
    """Dimensions 0 and 1 predict the word, 2 its absence, and the others nothing."""
    generator = np.random.default_rng(0)
    values = generator.random((400, 6)).astype(np.float32)
    values[:, 0] += has
    values[:, 1] += 0.5 * has
    values[:, 2] += ~has
    return values


def test_probe_of_signed_codes_is_a_logistic_regression(codes: np.ndarray, has: np.ndarray) -> None:
    signed = codes - codes.mean(0)
    expected = LogisticRegression(C=1 / (0.01 * len(has)), tol=1e-8).fit(signed, has).coef_[0]
    found = fit_probe(signed, has, penalty=0.01)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=2e-3)
    assert found[2] < 0


@pytest.mark.parametrize("sparse", [False, True])
def test_probe_of_non_negative_codes_finds_the_dimensions_of_a_word(
    codes: np.ndarray, has: np.ndarray, sparse: bool
) -> None:
    found = fit_probe(csr_array(codes) if sparse else codes, has)
    assert (found >= 0).all()
    assert found[2] == 0
    assert found.argsort()[::-1][:2].tolist() == [0, 1]
    assert np.linalg.norm(found) == pytest.approx(1)


def test_words_that_are_rare_in_captions_have_no_weights(
    codes: np.ndarray, has: np.ndarray
) -> None:
    captions = [["a dog runs" if one else "a street"] for one in has]
    for row in range(MIN_ITEMS - 1):
        captions[row].append("a quokka")
    found = word_weights(["dog", "quokka", "animal", "dog", "unicorn"], csr_array(codes), captions)
    assert set(found) == {"dog", "animal"}
    np.testing.assert_array_equal(found["dog"], fit_probe(csr_array(codes), has))
    # A dog is an animal, and no other caption mentions one, apart from that of a quokka.
    assert found["animal"] @ found["dog"] > 0.9
