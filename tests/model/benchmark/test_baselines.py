"""Test the scores of the training-free baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from sieve.model.benchmark.baselines import TRAINING_FREE, decompose
from sieve.model.evaluation.rules import ItemBias, Rule, Space, unit

RULES: dict[str, Rule] = {
    rule.name: rule
    for baseline in TRAINING_FREE.values()
    for rule in (baseline.rule, *baseline.alternatives, *baseline.variants)
}

# Scores of three bank queries for three items: means 2, 4, 0 and standard deviations 1, 4, 2.
BANK = np.array([[1, 0, -2], [2, 4, 0], [3, 8, 2]], np.float32)


def score(name: str, space: Space, values: dict[str, float]) -> np.ndarray:
    """Score by the rule of a name, with a value for each of its hyperparameters."""
    assert values.keys() == RULES[name].hyperparameters.keys()
    return RULES[name].scores(space, values)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_every_rule_scores_all_items_of_every_pair(rule: Rule) -> None:
    generator = np.random.default_rng(0)
    images, a, b, literal = (unit(generator.standard_normal((n, 8))) for n in (30, 3, 3, 3))
    space = Space(images, a, b, literal)
    if rule.needs_bank:
        bank = unit(generator.standard_normal((5, 8)))
        space = replace(space, bank=bank, anchor=bank.mean(0))
    ranges = rule.hyperparameters.items()
    for seed in range(5):
        values = {name: allowed.draw(np.random.default_rng(seed)) for name, allowed in ranges}
        for scores in (rule.scores(space, values), rule.plain(space)):
            assert scores.shape == (3, 30)
            assert scores.dtype == np.float32
            assert not np.isnan(scores).any()
            assert np.isfinite(scores).any(1).all()
    for name, allowed in ranges:
        assert allowed.low <= allowed.start <= allowed.high, name


def plane(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), np.sin(angle)]], np.float32)


def test_dense_rules_match_known_geometry() -> None:
    images = np.concatenate([plane(d) for d in (-30, 0, 30, 60, 90)])
    space = Space(images, a=plane(30), b=plane(90), literal=plane(60))
    # a - b points to -30°, a without its part along b to 0°.
    assert score("subtract", space, {"weight": 1.0}).argmax() == 0
    assert score("subtract", space, {"weight": 0.0}).argmax() == 2
    np.testing.assert_allclose(
        score("orthogonal", space, {})[0],
        np.cos(np.radians(30)) * images @ plane(0)[0],
        atol=1e-6,
    )
    # Caps of α = 60° around 30° and 90°: [-30°, 90°] less [30°, 150°] is [-30°, 30°], around 0°.
    assert score("SpaceVLM", space, {"t": 0.5}).argmax() == 1
    # Caps that do not intersect leave a unchanged.
    assert score("SpaceVLM", space, {"t": 0.99}).argmax() == 2
    left = score("filter", space, {"quantile": 0.75})[0]
    assert np.isneginf(left).tolist() == [False, False, False, False, True]


def test_values_below_the_threshold_are_not_penalised() -> None:
    images = np.concatenate([plane(d) for d in (-30, 0, 30, 60, 90)])
    space = Space(images, a=plane(30), b=plane(90), literal=plane(60))
    # B's maximum is 1 except for the quantile: at half of it, sin 60° and sin 90° exceed it.
    above = score("subtract above a threshold", space, {"weight": 1.0, "limit": 0.5})[0]
    plain = score("only A", space, {})[0]
    assert (above < plain - 1e-6).tolist() == [False, False, True, True, True]
    assert (above[2] - plain[2]) == pytest.approx(0.5 * _strongest(space) - 0.5, abs=1e-6)
    np.testing.assert_allclose(
        score("subtract above a threshold", space, {"weight": 0.7, "limit": 0.0})[0][1:],
        score("subtract", space, {"weight": 0.7})[0][1:],
        atol=1e-6,
    )


def _strongest(space: Space) -> float:
    return float(np.quantile(space.score(space.b), 0.99))


def test_deo_equals_adam_of_pytorch() -> None:
    generator = np.random.default_rng(0)
    a, b, literal = (unit(generator.standard_normal((3, 8))) for _ in range(3))
    space = Space(np.eye(8, dtype=np.float32), a, b, literal)
    values = {"weight": 1.5, "rate": 0.03, "stay": 0.2}
    for p in range(3):
        start = torch.from_numpy(literal[p])
        u = start.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([u], lr=0.03)
        for _ in range(20):
            optimiser.zero_grad()
            near, far = (
                torch.norm(u - torch.from_numpy(a[p])),
                torch.norm(u - torch.from_numpy(b[p])),
            )
            (near + 0.2 * torch.norm(u - start) - 1.5 * far).backward()
            optimiser.step()
            with torch.no_grad():
                u /= u.norm()
        # The items are the axes, so the scores are the query.
        np.testing.assert_allclose(score("DEO", space, values)[p], u.detach().numpy(), atol=1e-5)


def test_deo_moves_from_a_towards_a_and_away_from_b() -> None:
    images = np.concatenate([plane(d) for d in (-30, 0, 30, 60, 90)])
    space = Space(images, a=plane(30), b=plane(90), literal=plane(60))
    found = score("DEO from A", space, {"weight": 3.0, "rate": 0.05, "stay": 0.0})
    assert found.argmax() < 2
    unchanged = score("DEO from A", space, {"weight": 0.0, "rate": 0.01, "stay": 1.0})
    assert unchanged.argmax() == 2


def test_anchored_projection_removes_b_and_adds_the_anchor() -> None:
    axes = np.eye(3, dtype=np.float32)
    a, b = np.array([[0.6, 0.8, 0]], np.float32), np.array([[0, 2, 0]], np.float32)
    anchor = np.array([0.1, 0.1, 0.3], np.float32)
    space = Space(axes, a=a, b=b, literal=a[:, [1, 0, 2]], anchor=anchor)
    # The part of a along b is (0, 0.8, 0), that of the literal query (0, 0.6, 0).
    np.testing.assert_allclose(
        score("anchored projection of A", space, {"weight": 1.0}), [[0.7, 0.1, 0.3]], atol=1e-6
    )
    np.testing.assert_allclose(
        score("anchored projection", space, {"weight": 0.5}), [[0.85, 0.35, 0.15]], atol=1e-6
    )


@pytest.fixture
def space() -> Space:
    """Items whose scores for a, b and the bank are their coordinates."""
    images = np.array([[3, 1, *BANK[:, 0]], [8, 6, *BANK[:, 1]], [4, 2, *BANK[:, 2]]], np.float32)
    axes = np.eye(5, dtype=np.float32)
    return Space(images, a=axes[:1], b=axes[1:2], literal=axes[:1], bank=axes[2:])


def test_item_standardised_rules_use_standardised_a_and_b(space: Space) -> None:
    bias = ItemBias(BANK)
    a, b = (bias.standardise(np.array([s], np.float32)) for s in ([3, 8, 4], [1, 6, 2]))
    np.testing.assert_allclose(
        score("item-standardised", space, {"weight": 0.5}), a - 0.5 * b, rtol=1e-5
    )
    limit = 0.5 * np.quantile(b, 0.99)
    np.testing.assert_allclose(
        score("item-standardised above a threshold", space, {"weight": 2.0, "limit": 0.5}),
        a - 2 * np.maximum(b - limit, 0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(RULES["item-standardised"].plain(space), a)


def test_nearest_neighbour_rules_correct_a_and_b(space: Space) -> None:
    bias = np.array([2.5, 6, 1])
    a, b = np.array([3, 8, 4]) - 0.5 * bias, np.array([1, 6, 2]) - 0.5 * bias
    values = {"weight": 0.4, "share": 0.5, "nearest": 2.0}
    np.testing.assert_allclose(score("NNN", space, values), [a - 0.4 * b], rtol=1e-5)
    limit = 0.5 * np.quantile(b, 0.99)
    np.testing.assert_allclose(
        score("NNN above a threshold", space, values | {"limit": 0.5}),
        [a - 0.4 * np.maximum(b - limit, 0)],
        rtol=1e-5,
    )


def test_splice_solves_the_lasso() -> None:
    generator = np.random.default_rng(0)
    dictionary = unit(generator.standard_normal((40, 16)))
    embeddings = unit(generator.standard_normal((5, 16)))
    found = decompose(embeddings, dictionary, 0.1, iterations=500)
    lasso = Lasso(alpha=0.1 / 16, positive=True, fit_intercept=False, max_iter=10_000)
    for one, target in zip(found, embeddings, strict=True):
        np.testing.assert_allclose(one, lasso.fit(dictionary.T, target).coef_, atol=2e-3)
