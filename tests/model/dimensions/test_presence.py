from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sieve.model.codes import SparseCodes
from sieve.model.dimensions.concepts import Concepts
from sieve.model.dimensions.presence import (
    CONCEPT_PRIOR,
    Examples,
    ExcludedConcepts,
    Phrase,
    PresenceModel,
    fit_logistic,
    sigmoid,
)
from sieve.model.engine import SearchEngine
from sieve.model.exclusion import Strictness
from sieve.model.index.qdrant import IndexIdentity, QdrantIndex, upload
from sieve.model.words.text import mentioned_words

M = 4


def examples_of(values: np.ndarray, captions: Sequence[str]) -> Examples:
    codes = SparseCodes.from_rows(csr_array(values.astype(np.float32)))
    return Examples(np.arange(len(values)), codes, mentioned_words(captions))


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations, the probability of a dog in each image, and which images have one."""
    generator = np.random.default_rng(seed)
    values = generator.random((n, M)) * (generator.random((n, M)) < 0.4)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)  # codes are unit
    probability = sigmoid(-4 + 6 * np.sqrt(values[:, 0]))
    return values, probability, generator.random(n) < probability


def dog_presence(values: np.ndarray, has: np.ndarray):  # noqa: ANN201
    captions = ["a dog runs" if one else "a red house" for one in has]
    return PresenceModel(examples_of(values, captions)).of_dimensions("dog", True, (0,))


def test_probabilities_equal_those_that_made_the_data() -> None:
    values, _, has = world(4000, 0)
    presence = dog_presence(values, has)
    unseen, expected, _ = world(2000, 1)
    found = presence.probability(csr_array(unseen.astype(np.float32)), np.zeros((0, 0)))
    assert np.abs(found - expected).mean() < 0.02
    for low in np.arange(0, 1, 0.2):
        inside = (found >= low) & (found < low + 0.2)
        if inside.sum() > 30:
            assert abs(found[inside].mean() - expected[inside].mean()) < 0.05


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_more_activation_is_never_less_probable(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.random((60, M)) * (generator.random((60, M)) < 0.5)
    presence = dog_presence(values, generator.random(60) < share)  # also unrelated to dimension 0
    steps = np.zeros((20, M), np.float32)
    steps[:, 0] = np.linspace(0, 1, 20)
    found = presence.probability(csr_array(steps), np.zeros((0, 0)))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_rare_concept_stays_close_to_the_prior() -> None:
    feature, target = np.full((3, 1), 2.0), np.ones(3)
    intercept, slope = fit_logistic(feature, target, CONCEPT_PRIOR)
    assert slope == pytest.approx(CONCEPT_PRIOR.mean[1], abs=1)
    assert 0.5 < sigmoid(np.array(intercept + 2 * slope)) < 0.99


@pytest.mark.parametrize(
    ("captions", "name", "certain", "basis"),
    [
        (["two dogs"] * 3 + ["a house"] * 7, "dog", True, "mentions"),
        (["a puppy"] * 3 + ["a house"] * 7, "dog", True, "mentions"),
        (["a palm tree"] * 3 + ["a palm", "a tree"] * 3, "palm tree", True, "mentions"),
        (["a dog in snow"] * 3 + ["a dog", "snow"] * 3, "dog · snow", True, "mentions"),
        (["a dog"] * 2 + ["a house"] * 8, "dog", True, "active"),
        (["a dog"] * 3 + ["a house"] * 7, "perhaps dog", False, "active"),
        (["", "", ""], "dog", True, "active"),
    ],
)
def test_probability_needs_a_certain_name_and_enough_mentions(
    captions: list[str], name: str, certain: bool, basis: str
) -> None:
    values = np.tile([1.0, 0, 0, 0], (len(captions), 1))
    presence = PresenceModel(examples_of(values, captions)).of_dimensions(name, certain, (0, 1))
    assert presence.basis == basis
    if basis == "active":
        codes = csr_array(np.array([[0.01, 0, 0, 0], [0, 0, 1, 0]], np.float32))
        assert presence.probability(codes, np.zeros((0, 0))).tolist() == [1, 0]


def test_hypernym_is_mentioned_by_its_kinds_and_a_phrase_by_its_words_together() -> None:
    model = PresenceModel(
        examples_of(np.eye(4), ["a puppy", "a palm tree", "a palm and a tree", "a dog in snow"])
    )
    assert model.mentions("an animal").tolist() == [True, False, False, True]
    assert model.mentions("palm tree").tolist() == [False, True, False, False]
    assert model.mentions("dog · snow").tolist() == [False, False, False, True]
    assert not model.mentions("a quokka").any()
    assert not model.mentions("the").any()


def test_phrase_without_mentions_is_fitted_to_the_closest_images() -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(200, 8)).astype(np.float32)
    closeness = embeddings[:, 0]
    values = np.zeros((200, M))
    values[:, 2] = np.clip(closeness / 3, 0, 1)
    values[:, 3] = np.sqrt(1 - values[:, 2] ** 2)
    model = PresenceModel(examples_of(values, [""] * 200), embeddings)
    phrase = Phrase("a quokka", np.eye(M, dtype=np.float32)[2], np.eye(8, dtype=np.float32)[0])
    concepts = Concepts(np.arange(M, dtype=np.int32))
    (presence,) = model.exclude([2], [2], [phrase], concepts, lambda j: (f"dimension {j}", False))
    assert presence.basis == "zero-shot"
    found = presence.probability(csr_array(values.astype(np.float32)), embeddings)
    assert found[closeness.argmax()] > 0.5 > found[closeness <= 0].max()


def test_rarely_mentioned_concept_is_fitted_to_the_images_closest_to_its_name() -> None:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(200, 8)).astype(np.float32)
    values = np.zeros((200, M))
    values[:, 2] = np.clip(embeddings[:, 0] / 3, 0, 1)
    values[:, 3] = np.sqrt(1 - values[:, 2] ** 2)
    asked = []

    def embed(name: str) -> np.ndarray:
        asked.append(name)
        return np.eye(8, dtype=np.float32)[0]

    model = PresenceModel(examples_of(values, [""] * 200), embeddings, embed)
    presence = model.of_dimensions("palm · sunset", True, (2,))
    assert (presence.basis, asked) == ("zero-shot", ["palm sunset"])
    found = presence.probability(csr_array(values.astype(np.float32)), embeddings)
    assert found[embeddings[:, 0].argmax()] > 0.5 > found[embeddings[:, 0] <= 0].max()
    unknown = PresenceModel(examples_of(values, [""] * 200), embeddings)
    assert unknown.of_dimensions("palm · sunset", True, (2,)).basis == "active"


def test_off_dimensions_are_grouped_by_phrase_and_concept() -> None:
    model = PresenceModel(examples_of(np.eye(8), ["a dog", "a beach"] * 4))
    concepts = Concepts(np.array([0, 0, 2, 3, 3, 5, 6, 7], np.int32))
    codes = np.zeros((2, 8), np.float32)
    codes[0, 0], codes[1, 2] = 1, 1
    phrases = [
        Phrase(text, code, np.zeros(0, np.float32))
        for text, code in zip(("a beach", "a street"), codes, strict=True)
    ]
    names = {3: ("perhaps rope", False), 4: ("dog", True)}

    def groups(*off: int) -> dict[str, tuple[int, ...]]:
        found = model.exclude(off, [0, 2], phrases, concepts, lambda j: names.get(j, ("", False)))
        return {one.name: one.dimensions for one in found}

    # Dimension 1 belongs to the concept of dimension 0, which “a beach” proposes.
    assert groups(0, 1, 2, 3, 4) == {"a beach": (0, 1), "a street": (2,), "dog": (3, 4)}
    assert groups(1, 3) == {"": (1,), "dog": (3,)}, "dimension 0 has been switched on again"
    assert groups() == {}


@pytest.mark.parametrize("limit", [0.2, 0.5, 0.8])
def test_never_hides_exactly_what_reaches_the_limit(engine: SearchEngine, limit: float) -> None:
    query = engine.encode("a dog", "a beach")
    outcome = engine.search(query, None, Strictness(never=True, limit=limit), 200, fold=False)
    excluded = engine.excluded(query, query.proposed)
    rows = np.arange(engine.collection.n_items)
    probability = excluded.probabilities(engine.image_codes.by_row, rows).max(axis=1)
    shown = {result.row for result in outcome.results}
    assert shown and (probability[[*shown]] < limit).all()
    assert outcome.limit == limit
    wanted = np.maximum(engine.question(query).factors, 0)
    has_dog = engine.image_codes.by_row @ wanted > 0
    expected = np.flatnonzero(has_dog & (probability < limit))
    assert shown == {*expected} if len(expected) <= 200 else len(shown) == 200
    for result in outcome.results:
        (found,) = result.presence
        assert found.name == "a beach"
        assert found.probability == pytest.approx(probability[result.row], abs=1e-6)


def test_several_exclusions_each_have_a_probability(engine: SearchEngine) -> None:
    outcome = engine.search(engine.encode("a dog", "a beach, snow"), None, Strictness(never=True))
    assert {one.name for one in outcome.excluded} == {"a beach", "snow"}
    for result in outcome.results:
        probabilities = [one.probability for one in result.presence]
        assert probabilities == sorted(probabilities, reverse=True)
        assert max(probabilities) < 0.5


def test_remote_index_gives_the_same_results_with_never(engine: SearchEngine) -> None:
    qdrant_client = pytest.importorskip("qdrant_client")
    client = qdrant_client.QdrantClient(":memory:")
    identity = IndexIdentity.of(engine.collection, engine.checkpoint)
    mean, ids = engine.index.mean_positive, engine.collection.items["id"].tolist()
    upload(client, "words", identity, engine.image_codes, mean, ids, where="here")
    remote = SearchEngine(
        engine.collection,
        engine.checkpoint,
        index=QdrantIndex(client, "words", identity, "here"),
        open_backbone=lambda: engine.backbone,
    )
    for limit in (0.1, 0.5, 0.9):
        for without, off in (("a beach", None), ("", (3, 5)), ("a beach, snow", None)):
            query = engine.encode("a dog", without)
            ours, theirs = (
                one.search(query, off, Strictness(never=True, limit=limit), 10).results
                for one in (engine, remote)
            )
            np.testing.assert_allclose(
                [r.score for r in ours], [r.score for r in theirs], atol=2e-6
            )
            assert [r.presence for r in ours] == [r.presence for r in theirs]


def test_probabilities_are_computed_in_blocks(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    excluded = engine.excluded(engine.encode("a dog", "a beach"), (1,))
    rows, codes = np.arange(engine.collection.n_items), engine.image_codes.by_row
    whole = excluded.probabilities(codes, rows)
    monkeypatch.setattr("sieve.model.dimensions.presence._ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(excluded.probabilities(codes, rows), whole)
    assert isinstance(excluded, ExcludedConcepts)
