"""Test losses against their formulas, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from sieve.model.training.losses import (
    assigned_presence,
    concentration,
    info_nce,
    presence,
    reconstruction,
    revive,
)

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=GENERATOR)


def test_info_nce_treats_all_captions_of_an_image_as_positives() -> None:
    images, texts = normalize(rand(4, 6)), normalize(rand(4, 6))
    images[1] = images[0]
    items = torch.tensor([7, 7, 2, 3])
    t = torch.tensor(1.3)
    cosines = [[float(cosine_similarity(i, j, dim=0)) for j in texts] for i in images]
    e = [[math.exp(math.exp(1.3) * c) for c in row] for row in cosines]
    loss = 0.0
    for i in range(4):
        positive = [j for j in range(4) if items[i] == items[j]]
        loss -= math.log(sum(e[i][j] for j in positive) / sum(e[i])) / 8
        loss -= math.log(sum(e[j][i] for j in positive) / sum(e[j][i] for j in range(4))) / 8
    assert float(info_nce(images, texts, items, t)) == pytest.approx(loss, rel=1e-5)


def test_presence_loss_is_low_if_cosines_match_the_words() -> None:
    stands = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    scale, bias = torch.tensor(math.log(20.0)), torch.tensor(-8.0)
    right = presence(stands, stands, scale, bias)
    wrong = presence(1 - stands, stands, scale, bias)
    assert right < 0.1 < wrong


def test_assigned_presence_uses_only_the_dimension_of_each_word() -> None:
    activations, dimensions = rand(3, 3), torch.tensor([4, -1, 0])
    stands = torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 0]])
    log_odds, scale, loss = torch.tensor([-2.0, -1.0, 0.5]), torch.tensor(1.2), 0.0
    for i in range(3):
        for w in (0, 2):  # word 1 has no dimension
            logit = math.exp(1.2) * float(activations[i, w]) + float(log_odds[w])
            p = 1 / (1 + math.exp(-logit))
            loss -= math.log(p if stands[i, w] else 1 - p) / 6
    omitted = torch.zeros(3, 3, dtype=torch.bool)
    found = assigned_presence(activations, dimensions, stands, omitted, log_odds, scale)
    assert float(found) == pytest.approx(loss, rel=1e-5)
    without = torch.full((3,), -1)
    assert float(assigned_presence(activations, without, stands, omitted, log_odds, scale)) == 0


def test_assigned_presence_does_not_learn_from_words_that_captions_may_omit() -> None:
    activations, dimensions = rand(3, 2).requires_grad_(), torch.tensor([4, 0])
    omitted = torch.tensor([[True, False], [False, False], [False, True]])
    targets, log_odds, scale = torch.zeros(3, 2), torch.zeros(2), torch.tensor(1.0)
    assigned_presence(activations, dimensions, targets, omitted, log_odds, scale).backward()
    assert torch.equal(activations.grad == 0, omitted)


def test_concentration_is_the_negative_log_share_of_energy_up_to_a_limit() -> None:
    words = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 5.0]])
    expected = -(math.log(16 / 25) + math.log(0.8)) / 2  # the second has all, which counts as .8
    found = concentration(normalize(words), torch.tensor([1, 0, -1]))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(concentration(normalize(words), torch.tensor([-1, -1, -1]))) == 0


def test_reconstruction_is_the_mean_squared_error_norm() -> None:
    a, b = rand(5, 3), rand(5, 3)
    expected = sum(float(((x - y) ** 2).sum()) for x, y in zip(a, b, strict=True)) / 5
    assert float(reconstruction(a, b)) == pytest.approx(expected, rel=1e-5)


def test_revive_moves_only_dead_dimensions() -> None:
    activations = rand(5, 4).requires_grad_()
    dead = torch.tensor([False, True, False, True])
    revive(activations, rand(5, 3), dead, rand(4, 3)).backward()
    assert activations.grad is not None
    assert (activations.grad[:, ~dead] == 0).all()
    assert (activations.grad[:, dead] != 0).any()
