from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sieve.model.dimensions.concepts import Concepts, group_dimensions, open_concepts
from sieve.model.engine import SearchEngine


def codes(generator: np.random.Generator, texts: bool) -> csr_array:
    """Dimensions 0 to 2 fire together, 3 on other items; only captions tell 0 from 1 and 2."""
    beach, dog = generator.random(400) < 0.3, generator.random(400) < 0.3
    sea = generator.random(400) < 0.3 if texts else beach
    fires = np.stack([sea, beach, beach & (generator.random(400) < 0.9), dog], 1)
    values = fires * generator.uniform(0.5, 1, fires.shape)
    return csr_array(np.hstack([values, np.zeros((400, 1))]).astype(np.float32))


def test_dimensions_that_fire_together_are_one_concept() -> None:
    images, nothing = codes(np.random.default_rng(0), False), csr_array((400, 5), dtype=np.float32)
    found = group_dimensions(images, nothing)
    assert set(found.members(1).tolist()) == {0, 1, 2}
    assert found.members(3).tolist() == [3]
    assert found.members(4).tolist() == [4], "never active"
    assert found.members(2)[0] == found.of_dimension[0], "the leading dimension comes first"


def test_both_modalities_count() -> None:
    generator = np.random.default_rng(0)
    images = codes(generator, False)
    texts = csr_array(images.toarray() * [-1, 1, 1, 1, 1] + [1, 0, 0, 0, 0], dtype=np.float32)
    assert group_dimensions(images, texts).members(0).tolist() == [0]


def test_activations_of_a_concept_are_summed() -> None:
    concepts = Concepts(np.array([1, 1, 2], np.int32))
    leading, summed = concepts.sum(csr_array(np.array([[1, 2, 4], [0, 0, 8]], np.float32)))
    assert leading.tolist() == [1, 2]
    assert summed.toarray().tolist() == [[3, 4], [0, 8]]


def test_concepts_are_cached(engine: SearchEngine) -> None:
    first = open_concepts(engine.collection, engine.checkpoint)
    again = open_concepts(engine.collection, engine.checkpoint)
    np.testing.assert_array_equal(first.of_dimension, engine.concepts.of_dimension)
    np.testing.assert_array_equal(first.of_dimension, again.of_dimension)
