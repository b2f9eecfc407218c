from __future__ import annotations

import numpy as np
import pytest
import torch
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
    knobs = {
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

        np.testing.assert_allclose(rules.PUSH.scores(space, knobs)[p], found(), atol=1e-5)
        np.testing.assert_allclose(
            rules.ZERO.scores(space, knobs)[p], found(strictness=0), atol=1e-5
        )
        np.testing.assert_allclose(
            rules.NEVER.scores(space, knobs)[p], found(never=True), atol=1e-5
        )


def plane(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), np.sin(angle)]], np.float32)


def test_dense_rules_match_known_geometry() -> None:
    images = np.concatenate([plane(d) for d in (-30, 0, 30, 60, 90)])
    space = rules.Space(images, a=plane(30), b=plane(90), literal=plane(60))
    # a - b points to -30°, a without its part along b to 0°.
    assert rules.SUBTRACT.scores(space, {"weight": 1.0}).argmax() == 0
    assert rules.SUBTRACT.scores(space, {"weight": 0.0}).argmax() == 2
    np.testing.assert_allclose(
        rules.ORTHOGONAL.scores(space, {})[0],
        np.cos(np.radians(30)) * images @ plane(0)[0],
        atol=1e-6,
    )
    # Caps of α = 60° around 30° and 90°: [-30°, 90°] less [30°, 150°] is [-30°, 30°], around 0°.
    assert rules.SPACEVLM.scores(space, {"t": 0.5}).argmax() == 1
    # Caps that do not intersect leave a unchanged.
    assert rules.SPACEVLM.scores(space, {"t": 0.99}).argmax() == 2
    left = rules.FILTER.scores(space, {"quantile": 0.75})[0]
    assert np.isneginf(left).tolist() == [False, False, False, False, True]


def test_signed_space_is_subtracted_towards_minus_b() -> None:
    images = rules.unit(np.array([[1, 1, 0], [1, -1, 0], [1, 0, 0]], np.float32))
    a, b = np.array([[1, 0, 0]], np.float32), rules.unit(np.array([[0.1, -1, 0]], np.float32))
    space = rules.Space(images, a, b, a)
    pushed = rules.PUSH.scores(space, {"ratio": 1.0, "floor": 0.0, "push": 1.0})[0]
    assert pushed.argmax() == 0
    assert pushed.argmin() == 1
    zeroed = rules.ZERO.scores(space, {"ratio": 1.0, "floor": 0.0})[0]
    assert zeroed[0] == pytest.approx(zeroed[1])


def test_values_below_the_threshold_are_not_penalised() -> None:
    images = np.concatenate([plane(d) for d in (-30, 0, 30, 60, 90)])
    space = rules.Space(images, a=plane(30), b=plane(90), literal=plane(60))
    # B's maximum is 1 except for the quantile: at half of it, sin 60° and sin 90° exceed it.
    above = rules.SUBTRACT_ABOVE.scores(space, {"weight": 1.0, "limit": 0.5})[0]
    plain = rules.ONLY_A.scores(space, {})[0]
    assert (above < plain - 1e-6).tolist() == [False, False, True, True, True]
    assert (above[2] - plain[2]) == pytest.approx(0.5 * _strongest(space) - 0.5, abs=1e-6)
    np.testing.assert_allclose(
        rules.SUBTRACT_ABOVE.scores(space, {"weight": 0.7, "limit": 0.0})[0][1:],
        rules.SUBTRACT.scores(space, {"weight": 0.7})[0][1:],
        atol=1e-6,
    )


def _strongest(space: rules.Space) -> float:
    return float(np.quantile(space.score(space.b), 0.99))


def test_deo_equals_adam_of_pytorch() -> None:
    generator = np.random.default_rng(0)
    a, b, literal = (rules.unit(generator.standard_normal((3, 8))) for _ in range(3))
    space = rules.Space(np.eye(8, dtype=np.float32), a, b, literal)
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
        np.testing.assert_allclose(
            rules.DEO.scores(space, values)[p], u.detach().numpy(), atol=1e-5
        )


def test_deo_moves_from_a_towards_a_and_away_from_b() -> None:
    images = np.concatenate([plane(d) for d in (-30, 0, 30, 60, 90)])
    space = rules.Space(images, a=plane(30), b=plane(90), literal=plane(60))
    found = rules.DEO_FROM_A.scores(space, {"weight": 3.0, "rate": 0.05, "stay": 0.0})
    assert found.argmax() < 2
    unchanged = rules.DEO_FROM_A.scores(space, {"weight": 0.0, "rate": 0.01, "stay": 1.0})
    assert unchanged.argmax() == 2


def test_anchored_projection_removes_b_and_adds_the_anchor() -> None:
    axes = np.eye(3, dtype=np.float32)
    a, b = np.array([[0.6, 0.8, 0]], np.float32), np.array([[0, 2, 0]], np.float32)
    anchor = np.array([0.1, 0.1, 0.3], np.float32)
    space = rules.Space(axes, a=a, b=b, literal=a[:, [1, 0, 2]], anchor=anchor)
    # The part of a along b is (0, 0.8, 0), that of the literal query (0, 0.6, 0).
    np.testing.assert_allclose(
        rules.ANCHORED_FROM_A.scores(space, {"weight": 1.0}), [[0.7, 0.1, 0.3]], atol=1e-6
    )
    np.testing.assert_allclose(
        rules.ANCHORED.scores(space, {"weight": 0.5}), [[0.85, 0.35, 0.15]], atol=1e-6
    )
