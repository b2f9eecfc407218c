from __future__ import annotations

import numpy as np
import pytest

from sieve.model.benchmark.measurement import (
    DEPTH,
    Resampled,
    draw_resamples,
    interval,
    paired_ratio,
    resample,
)
from sieve.model.evaluation.metrics import measure_rankings, ranked_rows

N_ITEMS, N_PAIRS = 80, 6


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    scores = generator.random((N_PAIRS, N_ITEMS))
    scores[0, 5:] = -np.inf  # a rule that excludes nearly everything
    relevant = generator.random((N_PAIRS, N_ITEMS)) < 0.3
    violating = (generator.random((N_PAIRS, N_ITEMS)) < 0.3) & ~relevant
    return scores, relevant, violating


def test_resampling_equals_repeating_items() -> None:
    scores, relevant, violating = world(0)
    names = ["dog", "dog", "cat", "car", "car", "car"]
    draws = draw_resamples(names, N_ITEMS, 12, seed=3)
    found = resample([ranked_rows(scores, DEPTH)], relevant, violating, draws)
    for r, drawn in enumerate(draws.items):
        copies = np.repeat(np.arange(N_ITEMS), drawn)
        # Copies of an item tie and remain adjacent, because ties break by row.
        measured = measure_rankings(scores[:, copies], relevant[:, copies], violating[:, copies])
        weights = draws.pairs[r]
        assert found.ap[r] == pytest.approx(np.average(measured.ap, weights=weights))
        assert found.violation[r] == pytest.approx(np.average(measured.violation, weights=weights))


def test_pairs_of_one_a_word_are_resampled_together() -> None:
    draws = draw_resamples(["dog", "cat", "dog"], 10, 200, seed=0)
    np.testing.assert_array_equal(draws.pairs[:, 0], draws.pairs[:, 2])
    assert set(draws.pairs[:, 0].tolist()) == {0.0, 1.0, 2.0}
    assert (draws.items.sum(1) == 10).all()
    again = draw_resamples(["dog", "cat", "dog"], 10, 200, seed=0)
    np.testing.assert_array_equal(draws.items, again.items)


def test_seeds_are_averaged() -> None:
    scores, relevant, violating = world(1)
    other, _, _ = world(2)
    draws = draw_resamples(list("abcdef"), N_ITEMS, 5, seed=0)
    one, two = (ranked_rows(line, DEPTH) for line in (scores, other))
    both = resample([one, two], relevant, violating, draws).ap
    apart = [resample([ranking], relevant, violating, draws).ap for ranking in (one, two)]
    np.testing.assert_allclose(both, np.mean(apart, axis=0))


def test_intervals_contain_the_estimate() -> None:
    values = np.random.default_rng(0).normal(5.3, 1, 4000)
    low, high = interval(values, 5.0)
    assert low == pytest.approx(5 - 1.96, abs=0.1)
    assert high == pytest.approx(5 + 1.96, abs=0.1)
    base = Resampled(values, values)
    twice = Resampled(2 * values, values)
    assert paired_ratio(twice, base, 2.0) == pytest.approx((2.0, 2.0))
