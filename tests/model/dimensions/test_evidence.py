from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from sieve.model.dimensions.statistics import MATCHING, ZeroShotEvidence

N, D = 400, 16


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of which 5% show B, their codes, and the text embedding of B.

    Dimension 0 fires for B's images alone, 1 for a random half of them and as many others, 2 for
    all but B's images, and 3 for none.
    """
    generator = np.random.default_rng(0)
    has_b = np.arange(N) < MATCHING * N
    text = np.eye(D, dtype=np.float32)[:1]
    images = generator.standard_normal((N, D)).astype(np.float32) + 2  # 2: a modality gap
    images[:, 0] += 20 * has_b
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    activations = generator.uniform(0.5, 1, (N, 4))
    random = generator.random(N) < 0.5
    codes = activations * np.stack([has_b, random, ~has_b, np.zeros(N)], 1)
    return codes.astype(np.float32), images.astype(np.float16), text


def test_evidence_is_the_auc_for_the_images_that_match_a_text(
    world: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    codes, images, text = world
    (auc,) = ZeroShotEvidence(csr_array(codes), images).auc(text)
    assert auc[0] == 1
    assert 0.3 < auc[1] < 0.7
    assert auc[2] == 0
    assert auc[3] == 0.5


def test_only_the_wanted_dimensions_are_computed(
    world: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    codes, images, text = world
    evidence = ZeroShotEvidence(csr_array(codes), images)
    texts = np.concatenate([text, -text])
    some = evidence.auc(texts, np.array([2]))
    np.testing.assert_array_equal(some[:, 2], evidence.auc(texts)[:, 2])
    np.testing.assert_array_equal(np.delete(some, 2, axis=1), 0.5)
