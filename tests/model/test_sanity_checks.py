from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK, WordBackbone
from scipy.sparse import csr_array

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine
from sieve.model.hyperparameters import IMAGE
from sieve.model.sanity_checks import (
    CONTROLS,
    CounterfactualPair,
    Estimate,
    Metric,
    MetricCheck,
    checkpoint_consistency,
    control_encoder,
    counterfactual_falls,
    encoder_metrics,
    engine_falls,
    estimate,
    match_dimensions,
    sanity_checks,
    seed_consistency,
)

SHORT = replace(QUICK, epochs=1)


def random_codes(seed: int, n: int = 300, m: int = 8) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.random((n, m)) * (generator.random((n, m)) < 0.3)


def test_permuted_dimensions_are_found_again() -> None:
    codes = random_codes(0)
    order = np.random.default_rng(1).permutation(8)
    found = seed_consistency([csr_array(codes), csr_array(codes[:, order])])
    assert found.units == 8
    assert found.mean_correlation == pytest.approx(1)
    assert found.recurring == 1


def test_dimensions_recur_only_if_every_seed_has_them() -> None:
    codes = random_codes(0)
    # The second seed lost dimensions 0 and 1, the third dimension 2.
    second = np.hstack([random_codes(2, m=2), codes[:, 2:]])
    third = np.hstack([codes[:, :2], random_codes(3, m=1), codes[:, 3:]])
    found = seed_consistency(list(map(csr_array, (codes, second, third))))
    assert found.recurring == pytest.approx(5 / 8)
    assert (found.stability[:3] < 0.5).all()
    np.testing.assert_allclose(found.stability[3:], 1)


def test_silent_dimensions_have_no_stability() -> None:
    codes = random_codes(0)
    codes[:, 4] = 0
    assert np.isnan(match_dimensions(csr_array(codes), csr_array(random_codes(0)))).tolist() == [
        j == 4 for j in range(8)
    ]


def test_correlations_equal_those_of_numpy() -> None:
    one, other = random_codes(0, m=3), random_codes(1, m=3) + 0.5 * random_codes(0, m=3)
    expected = np.corrcoef(one.T, other.T)[:3, 3:]
    found = match_dimensions(csr_array(one), csr_array(other))
    np.testing.assert_allclose(found, np.diag(expected), atol=1e-8)


def test_estimates_are_weighted_means_with_intervals() -> None:
    values, weights = np.array([0.0, 1.0, 1.0]), np.array([2.0, 1.0, 1.0])
    found = estimate(Metric(values, weights))
    assert found.value == pytest.approx(0.5)
    assert 0 <= found.low < 0.5 < found.high <= 1
    constant = estimate(Metric(np.full(9, 0.25), np.ones(9)))
    assert constant == pytest.approx((0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("lower", "trained", "untrained", "told"),
    [
        (False, Estimate(0.8, 0.7, 0.9), Estimate(0.5, 0.4, 0.6), True),
        (False, Estimate(0.8, 0.5, 0.9), Estimate(0.5, 0.4, 0.6), False),
        (False, Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 0.9), False),
        (True, Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 0.9), True),
    ],
)
def test_metrics_must_separate_the_intervals(
    lower: bool, trained: Estimate, untrained: Estimate, told: bool
) -> None:
    found = MetricCheck("metric", lower, trained, {"untrained": untrained, "PCA": trained})
    assert found.not_distinguished_from == (("PCA",) if told else ("untrained", "PCA"))


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_have_the_width_and_sparsity_of_the_encoder(
    name: str, word_collection: Collection
) -> None:
    encoder = control_encoder(name, word_collection, SHORT, WordBackbone().encode_texts, "cpu")
    codes = encode_codes(encoder, word_collection.image_embeddings, IMAGE)
    assert codes.m == SHORT.m
    assert codes.by_row.nnz
    assert np.diff(codes.by_row.indptr).max() <= SHORT.k
    again = control_encoder(name, word_collection, SHORT, WordBackbone().encode_texts, "cpu")
    assert torch.equal(encoder.encode_md, again.encode_md)


def test_frozen_decoders_stay_random(word_collection: Collection) -> None:
    start, frozen, shuffled = (
        control_encoder(name, word_collection, SHORT, WordBackbone().encode_texts, "cpu")
        for name in ("untrained", "frozen decoder", "shuffled pairs")
    )
    torch.testing.assert_close(frozen.decode_md, start.decode_md)
    assert not torch.equal(frozen.encode_md, start.encode_md)
    assert not torch.equal(shuffled.decode_md, start.decode_md)


def test_label_metrics_tell_a_trained_encoder_from_an_untrained_one(
    word_collection: Collection, word_checkpoint: Checkpoint, home: Path
) -> None:
    encoder: Any = WordBackbone()
    engine = SearchEngine(word_collection, word_checkpoint, open_backbone=lambda: encoder)
    shown: list[str] = []
    checks = sanity_checks(engine, controls=["untrained"], device="cpu", on_control=shown.append)
    assert shown == ["trained", "untrained"]
    by_name = {check.name: check for check in checks}
    assert set(by_name) == set(encoder_metrics(engine, {}))
    own = by_name["AUC of a label's dimension"]
    assert own.trained.value > own.controls["untrained"].value
    assert len(list((home / "controls").iterdir())) == 1


def test_a_dimension_falls_with_its_own_object() -> None:
    # Items 0, 2, 4 are originals with a dog and a ball. The dog leaves items 1 and 3, and the ball
    # leaves item 5. Dimension 0 is of the dog, 1 of the ball, and 2 has no label.
    codes = csr_array(
        np.array(
            [
                [0.8, 0.5, 0.1],
                [0.2, 0.5, 0.1],
                [0.4, 0.5, 0],
                [0, 0.6, 0],
                [0.6, 1, 0],
                [0.57, 0, 0],
            ]
        )
    )
    dog, ball = frozenset({"dog"}), frozenset({"ball"})
    pairs = [
        CounterfactualPair(0, 1, dog),
        CounterfactualPair(2, 3, dog),
        CounterfactualPair(4, 5, ball),
    ]
    labels = [["dog", "ball"], ["ball"], ["dog", "ball"], ["ball"], ["dog", "ball"], ["dog"]]
    found = counterfactual_falls(codes, pairs, labels, ["dog", "ball", ""], min_pairs=1)
    # The dog's dimension falls from 0.8 + 0.4 to 0.2 + 0, and from 0.6 to 0.57 without the ball.
    np.testing.assert_allclose(found.own, [1 - 0.2 / 1.2, 1, np.nan])
    np.testing.assert_allclose(found.other, [0.05, -0.1, np.nan])
    np.testing.assert_allclose(found.selectivity, [(1 - 0.2 / 1.2) / 0.05, 10, np.nan])
    few = counterfactual_falls(codes, pairs, labels, ["dog", "ball", ""], min_pairs=2)
    np.testing.assert_allclose(few.own, [1 - 0.2 / 1.2, np.nan, np.nan])


@pytest.mark.usefixtures("home")
def test_measured_falls_and_stability_are_in_the_dimension_table(
    word_collection: Collection, word_checkpoint: Checkpoint
) -> None:
    encoder: Any = WordBackbone()
    engine = SearchEngine(word_collection, word_checkpoint, open_backbone=lambda: encoder)
    assert "own_fall" not in engine.dimension(0).statistics
    labels = list(map(frozenset, word_collection.items["labels"]))
    pairs = [
        CounterfactualPair(one, other, labels[one] - labels[other])
        for one, other in zip(range(200), range(200, 400), strict=True)
    ]
    falls, _ = engine_falls(engine, word_collection, pairs)
    measured = np.flatnonzero(~np.isnan(falls.own + falls.other))
    # A word of another item that does not have it: its dimension falls more than for others.
    assert np.median(falls.own[measured]) > np.median(falls.other[measured])
    shown = engine.dimension(int(measured[0])).statistics
    assert shown["own_fall"] == pytest.approx(falls.own[measured[0]], abs=1e-3)
    assert shown["other_fall"] == pytest.approx(falls.other[measured[0]], abs=1e-3)
    checkpoint_consistency([engine, engine])
    table = engine.dimension_table()  # the falls are kept beside the stability
    assert set(table["stability"].dropna()) == {1.0}
    np.testing.assert_allclose(table["own_fall"], falls.own, atol=1e-3)
