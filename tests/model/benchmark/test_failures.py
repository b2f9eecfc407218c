"""Test that failures get the kind of what was made to go wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sieve.model.benchmark.failures import FAILURE_KINDS, sort_failures
from sieve.model.benchmark.measurement import draw_resamples, measure
from sieve.model.benchmark.results import Failure
from sieve.model.evaluation.pairs import PairCriteria, PairSet, TrackPairs
from sieve.model.evaluation.rules import PUSH, Range, Space

N = 80
A, B, OTHER = np.eye(3, dtype=np.float32)[:, None]


def failure_of(
    items: np.ndarray,
    *,
    a: np.ndarray = A,
    b: np.ndarray = B,
    silent: bool = False,
    push: float = 1.0,
) -> Failure:
    """Sort one pair over items with three dimensions: A, B and another."""
    has_a, has_b = np.zeros((2, 1, N), bool)
    has_a[0, :30], has_b[0, 20:70] = True, True
    pairs = PairSet(
        np.arange(N), ("dog",), ("beach",), ("a dog",), ("a beach",), has_a, has_b,
    )  # fmt: skip
    space = Space(items.astype(np.float32), a, b, a)
    # The backbone is sure of A in all items if captions are silent, else only where it is.
    backbone = replace(space, images=np.ones((N, 3), np.float32) if silent else _truth(), a=A)
    rule = replace(PUSH, hyperparameters={"ratio": Range(1, 1, 1), "push": Range(push, push, push)})
    track = TrackPairs(pairs, pairs, PairCriteria(), PairCriteria())
    draws = draw_resamples(("dog",), N, 2, 0)
    spaces = [{"codes": space}]
    sieve = measure("Sieve", (rule,), spaces, spaces, track, draws, 1)
    ids = [f"{row:016x}" for row in range(N)]
    (failure,) = sort_failures(sieve, space, backbone, pairs, ids, is_complete=not silent)
    assert len(failure.items) == len(failure.marks) == 10
    return failure


def _truth() -> np.ndarray:
    items = np.zeros((N, 3), np.float32)
    items[:30, 0], items[20:70, 1], items[::2, 2] = 1, 1, 1
    return items + 0.01 * np.random.default_rng(0).random((N, 3)).astype(np.float32)


def test_first_rule_that_holds_gives_the_kind() -> None:
    noise = np.random.default_rng(1).random((N, 3)).astype(np.float32)
    good = _truth()
    kinds = {
        "caption silent": failure_of(good[:, [2, 1, 0]], silent=True),
        "name ambiguous": failure_of(good, a=OTHER),
        "B not recognised": failure_of(np.stack([good[:, 0], noise[:, 1], good[:, 2]], 1)),
        "B absorbed in A": failure_of(
            np.stack([good[:, 0], good[:, 1] * (1 - good[:, 0]), good[:, 2]], 1)
        ),
        "calibration": failure_of(good, push=0.001),
    }
    assert {kind: failure.kind for kind, failure in kinds.items()} == {kind: kind for kind in kinds}
    assert set(kinds) < set(FAILURE_KINDS)
