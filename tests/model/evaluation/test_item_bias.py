from __future__ import annotations

import numpy as np
import pytest

from sieve.model.evaluation import rules
from sieve.model.evaluation.rules import ItemBias

# Scores of three bank queries for three items: means 2, 4, 0 and standard deviations 1, 4, 2.
BANK = np.array([[1, 0, -2], [2, 4, 0], [3, 8, 2]], np.float32)


def test_scores_are_standardised_by_item_and_then_by_query() -> None:
    scores = np.array([[3, 8, 4]], np.float32)
    # By item: (3 - 2) / 1, (8 - 4) / 4, (4 - 0) / 2 = 1, 1, 2; their mean is 4/3, their sample
    # standard deviation √(1/3).
    expected = np.array([[1, 1, 2]]) - 4 / 3
    np.testing.assert_allclose(
        ItemBias(BANK).standardise(scores), expected / np.sqrt(1 / 3), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("k", "highest"), [(1, [3, 8, 2]), (2, [2.5, 6, 1]), (3, [2, 4, 0]), (99, [2, 4, 0])]
)
def test_the_mean_of_the_nearest_queries_is_subtracted(k: int, highest: list[float]) -> None:
    scores = np.array([[3, 8, 4], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(
        ItemBias(BANK).subtract_nearest(scores, 0.75, k), scores - 0.75 * np.array(highest)
    )


@pytest.fixture
def space() -> rules.Space:
    """Items whose scores for a, b and the bank are their coordinates."""
    images = np.array([[3, 1, *BANK[:, 0]], [8, 6, *BANK[:, 1]], [4, 2, *BANK[:, 2]]], np.float32)
    axes = np.eye(5, dtype=np.float32)
    return rules.Space(images, a=axes[:1], b=axes[1:2], literal=axes[:1], bank=axes[2:])


def test_item_standardised_rules_use_standardised_a_and_b(space: rules.Space) -> None:
    bias = ItemBias(BANK)
    a, b = (bias.standardise(np.array([s], np.float32)) for s in ([3, 8, 4], [1, 6, 2]))
    np.testing.assert_allclose(
        rules.STANDARDISED.scores(space, {"weight": 0.5}), a - 0.5 * b, rtol=1e-5
    )
    limit = 0.5 * np.quantile(b, 0.99)
    np.testing.assert_allclose(
        rules.STANDARDISED_ABOVE.scores(space, {"weight": 2.0, "limit": 0.5}),
        a - 2 * np.maximum(b - limit, 0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(rules.STANDARDISED.plain(space), a)


def test_nearest_neighbour_rules_correct_a_and_b(space: rules.Space) -> None:
    bias = np.array([2.5, 6, 1])
    a, b = np.array([3, 8, 4]) - 0.5 * bias, np.array([1, 6, 2]) - 0.5 * bias
    values = {"weight": 0.4, "share": 0.5, "nearest": 2.0}
    np.testing.assert_allclose(rules.NEAREST.scores(space, values), [a - 0.4 * b], rtol=1e-5)
    limit = 0.5 * np.quantile(b, 0.99)
    np.testing.assert_allclose(
        rules.NEAREST_ABOVE.scores(space, values | {"limit": 0.5}),
        [a - 0.4 * np.maximum(b - limit, 0)],
        rtol=1e-5,
    )
