from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sieve.model.dimension_name import DimensionName
from sieve.model.dimensions.concepts import (
    Concepts,
    DimensionNames,
    describe_concepts,
    group_dimensions,
    open_concepts,
)
from sieve.model.engine import SearchEngine
from sieve.model.words.text import WordPresence

N = 600


def sparse(values: np.ndarray) -> csr_array:
    return csr_array(values.astype(np.float32))


def fires(generator: np.random.Generator, *present: np.ndarray) -> np.ndarray:
    """Return activations of one dimension for each mask, and one that is never active."""
    values = np.stack([*present, np.zeros(len(present[0]))], 1)
    return values * generator.uniform(0.5, 1, values.shape)


def test_dimensions_that_fire_together_and_mean_the_same_are_one_concept() -> None:
    generator = np.random.default_rng(0)
    beach, dog = (generator.random(N) < 0.3 for _ in range(2))
    images = sparse(fires(generator, beach, beach, beach & (generator.random(N) < 0.9), dog))
    nothing = csr_array((N, 5), dtype=np.float32)
    found = group_dimensions(images, nothing, csr_array((N, 0), dtype=np.float32))
    assert set(found.members(1).tolist()) == {0, 1, 2}
    assert found.members(3).tolist() == [3]
    assert found.members(4).tolist() == [4], "never active"
    assert found.members(2)[0] == found.of_dimension[0], "the leading dimension comes first"


def test_what_only_occurs_together_is_two_concepts() -> None:
    """Every camel is in a desert, and captions say both, but some deserts have no camel."""
    generator = np.random.default_rng(0)
    desert = generator.random(N) < 0.5
    camel = desert & (generator.random(N) < 0.6)
    images = sparse(fires(generator, camel, camel, desert, desert))
    words = sparse(np.stack([camel, desert], 1))
    found = group_dimensions(images, images, words)
    assert set(found.members(0).tolist()) == {0, 1}
    assert set(found.members(2).tolist()) == {2, 3}


def test_activations_of_a_concept_are_summed() -> None:
    concepts = Concepts(np.array([1, 1, 2], np.int32))
    leading, summed = concepts.sum(csr_array(np.array([[1, 2, 4], [0, 0, 8]], np.float32)))
    assert leading.tolist() == [1, 2]
    assert summed.toarray().tolist() == [[3, 4], [0, 8]]


def test_siblings_are_named_by_what_differs() -> None:
    """Of three beaches, one is full of umbrellas, and one has a name that says how it differs."""
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 4, N)
    shore = kind < 3
    images = np.stack([shore, kind == 1, kind == 2], 1) * [0.6, 0.9, 0.9]
    words = WordPresence(
        ["beach", "umbrella", "seaside", "dog"],
        sparse(np.stack([shore, kind == 1, kind == 1, generator.random(N) < 0.5], 1)),
    )
    named = {
        j: DimensionName(name, 0.9, "", auc=0.9)
        for j, name in enumerate(("beach", "shore", "sandy beach"))
    }
    grouped = Concepts(np.array([2, 2, 2], np.int32))
    found = describe_concepts(grouped, sparse(images), words, np.arange(N) % 3 == 2, named)
    assert found.of_dimension.tolist() == [0, 0, 0], "the name that fits all of them leads"
    names = DimensionNames(lambda j: named[j].name, {}, lambda: found)
    assert [names.in_concept(j) for j in range(3)] == ["beach", "beach: umbrella", "sandy beach"]
    renamed = DimensionNames(lambda j: named[j].name, {0: "my beach", 1: "sun"}, lambda: found)
    assert renamed.concept(1) == (0, "my beach")
    assert [renamed.in_concept(j) for j in range(2)] == ["my beach", "sun"]


def test_concepts_are_cached(engine: SearchEngine) -> None:
    first = open_concepts(engine.collection, engine.checkpoint)
    again = open_concepts(engine.collection, engine.checkpoint)
    np.testing.assert_array_equal(first.of_dimension, engine.concepts.of_dimension)
    np.testing.assert_array_equal(first.of_dimension, again.of_dimension)
    assert first.differences == again.differences
