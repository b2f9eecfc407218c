"""Test the comparison of two methods on one query."""

from __future__ import annotations

import numpy as np
import pytest

from sieve.model.compare import (
    DENSE_METHODS,
    QueryEmbeddings,
    Relevance,
    dense_scores,
    embed_query,
    find_concept,
    load_concepts,
    measure,
    relevance_of,
    shown_rows,
    sparse_scores,
    trained_share,
)  # fmt: skip
from sieve.model.engine import SearchEngine
from sieve.model.evaluation.rules import Space, unit
from sieve.model.exclusion import Strictness, best


def encode_query(engine: SearchEngine, text: str, without: str) -> QueryEmbeddings:
    return embed_query(engine, engine.encode(text, without))


@pytest.mark.parametrize("name", DENSE_METHODS)
def test_dense_method_scores_as_in_the_benchmark(engine: SearchEngine, name: str) -> None:
    method = DENSE_METHODS[name]
    images = np.asarray(engine.collection.image_embeddings, np.float32)
    a, b, literal = (
        engine.encode_text(text).embedding[None]
        for text in ("a dog", "a beach", "a dog without a beach")
    )
    if method.centred:
        image, text = engine.checkpoint.encoder.centre.numpy()
        images, a, b, literal = images - image, a - text, b - text, literal - text
    space = Space(*map(unit, (images, a, b, literal)))
    values = {name: each.start for name, each in method.rule.hyperparameters.items()}
    values |= {method.hyperparameter: method.value} if method.hyperparameter else {}
    expected = method.rule.scores(space, values)[0]
    found = dense_scores(engine, encode_query(engine, "a dog", "a beach"), method)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DENSE_METHODS)
def test_without_exclusion_a_is_searched(engine: SearchEngine, name: str) -> None:
    method = DENSE_METHODS[name]
    found = best(dense_scores(engine, encode_query(engine, "a dog", ""), method), 10).rows
    has = np.array(["dog" in labels for labels in engine.collection.items["labels"]])
    assert has[found].mean() > has.mean()


def test_hyperparameter_out_of_range_is_rejected(engine: SearchEngine) -> None:
    with pytest.raises(ValueError, match="weight of subtraction must be from 0.05 to 2; got 9"):
        dense_scores(
            engine,
            encode_query(engine, "a dog", "a beach"),
            DENSE_METHODS["subtraction"],
            9.0,
        )


@pytest.mark.parametrize("top", [10, 200])
@pytest.mark.parametrize("never", [False, True])
def test_shown_results_equal_those_of_search(engine: SearchEngine, never: bool, top: int) -> None:
    query = engine.encode("a dog", "a beach")
    strictness = Strictness(never=never)
    results = engine.search(query, strictness=strictness, top=top).results
    found = shown_rows(sparse_scores(engine, query, strictness=strictness), top)
    assert found == [result.row for result in results]


def test_ranks_of_hidden_results_are_empty() -> None:
    relevant = np.arange(30) < 12
    truth = Relevance("label", "a", "b", relevant, ~relevant)
    total = np.zeros(30, np.float32)
    total[[3, 20]] = 2, 1
    assert measure(total, truth) == pytest.approx((0.1, 0.1, 0.1))


def test_metrics_are_of_the_shown_ranking(engine: SearchEngine) -> None:
    concepts = load_concepts(engine.collection, "label")
    truth = relevance_of(concepts, "label", "dog", "beach")
    labels = engine.collection.items["labels"]
    assert truth.relevant.sum() == sum("dog" in l and "beach" not in l for l in labels)  # noqa: E741
    query = engine.encode("a dog", "a beach")
    found = measure(sparse_scores(engine, query), truth)
    first = [set(result.labels) for result in engine.search(query, top=10).results]
    assert found is not None
    assert found.precision == pytest.approx(
        sum("dog" in had and "beach" not in had for had in first) / 10
    )
    assert found.violation == pytest.approx(sum({"dog", "beach"} <= had for had in first) / 10)
    perfect = measure(np.where(truth.relevant, 1, -1).astype(np.float32), truth)
    assert perfect is not None
    assert perfect == (1, 1, 0)


def test_no_relevant_item_gives_no_metric(engine: SearchEngine) -> None:
    concepts = load_concepts(engine.collection, "label")
    truth = relevance_of(concepts, "label", "dog", "dog")
    assert measure(np.ones(engine.collection.n_items, np.float32), truth) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a dog", "dog"), ("Dogs", "dog"), ("the doggy", "dog"), ("hot dogs", "hot dog"),
        ("police car", "Police Car"), ("kites", "kite"), ("a wet dog", ""), ("", ""),
        ("a spaceship", ""), ("zorbs", "zorb"),
    ],
)  # fmt: skip
def test_words_are_matched_to_labels(text: str, found: str) -> None:
    names = ("dog", "hot dog", "kite", "Police Car", "zorb")
    assert find_concept(text, names) == found


def test_captions_match_by_synonyms_and_hypernyms(engine: SearchEngine) -> None:
    concepts = load_concepts(engine.collection, "caption")
    dogs = relevance_of(concepts, "caption", "dog", "").relevant
    animals = relevance_of(concepts, "caption", "animal", "").relevant
    assert dogs.any()
    assert (animals >= dogs).all()
    with pytest.raises(ValueError, match="no noun of the benchmark 'zorb'"):
        relevance_of(concepts, "caption", "zorb", "")


def test_other_checkpoint_shares_the_backbone(engine: SearchEngine) -> None:
    other = engine.with_checkpoint(engine.checkpoint)
    assert other is not engine
    assert other.backbone is engine.backbone
    query = engine.encode("a dog", "a beach")
    assert (sparse_scores(other, query) == sparse_scores(engine, query)).all()


def test_training_items_are_reported(engine: SearchEngine) -> None:
    train = (engine.collection.items["split"] == "train").mean()
    assert trained_share(engine.checkpoint, engine.collection) == pytest.approx(train)
