"""Test the metrics of how much of A is preserved when B is excluded."""

from __future__ import annotations

import numpy as np
import pytest

from sieve.model.benchmark.baselines import TRAINING_FREE
from sieve.model.benchmark.measurement import draw_resamples, measure
from sieve.model.benchmark.results import MethodResult
from sieve.model.evaluation.pairs import PairCriteria, PairSet, TrackPairs
from sieve.model.evaluation.rules import Rule, Space

N_ITEMS = 60


def measured(rule: Rule) -> MethodResult:
    """Measure one pair over items whose first column is A with noise and whose second is B."""
    generator = np.random.default_rng(3)
    has_a, has_b = np.zeros((2, 1, N_ITEMS), bool)
    has_a[0, :30], has_b[0, 12:40] = True, True
    items = np.stack([has_a[0] + generator.normal(0, 0.8, N_ITEMS), has_b[0]], 1)
    questions = PairSet(
        np.arange(N_ITEMS), ("dog",), ("beach",), ("a dog",),
        ("a beach",), has_a, has_b,
    )  # fmt: skip
    a, b = np.eye(2, dtype=np.float32)[:, None]
    spaces = {"items": Space(items.astype(np.float32), a, b, a)}
    draws = draw_resamples(("dog",), N_ITEMS, 5, 0)
    requested = TrackPairs(questions, questions, PairCriteria(), PairCriteria())
    return measure("rule", (rule,), [spaces], [spaces], requested, draws, 1).result


def faultless(space: Space, _: object) -> np.ndarray:
    return np.where(space.score(space.b) > 0, -np.inf, space.score(space.a)).astype(np.float32)


def test_perfect_exclusion_has_no_violations_and_preserves_a() -> None:
    found = measured(Rule("faultless", faultless, {}))
    assert found.violation == 0
    assert found.spared_ap == found.spared_plain_ap == found.kept_ap
    assert found.kept_ap < found.plain_ap  # half of the items with A are removed, the noise is not


def test_subtracting_only_b_preserves_the_ranking_of_items_without_b() -> None:
    found = measured(TRAINING_FREE["subtraction"].rule)
    assert found.spared_ap == found.spared_plain_ap
    assert found.kept_ap != found.plain_ap


def test_rule_that_harms_a_lowers_spared_ap() -> None:
    def score(space: Space, _: object) -> np.ndarray:
        return space.score(-space.a)

    found = measured(Rule("harmful", score, {}))
    assert found.spared_ap < found.spared_plain_ap
    assert found.plain_ap == pytest.approx(measured(TRAINING_FREE["subtraction"].rule).plain_ap)
