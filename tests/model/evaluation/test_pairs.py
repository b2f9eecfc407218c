from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sieve.model.collection import Collection
from sieve.model.evaluation.pairs import (
    JudgedConcepts,
    PairCriteria,
    PairSet,
    label_concepts,
    select_pairs,
    track_pairs,
)
from sieve.model.words.nouns import benchmark_nouns

NAMES = ("dog", "cat", "beach", "snow", "car", "boat", "tree", "girl")


def concepts(seed: int, n: int, share: float) -> JudgedConcepts:
    has = np.random.default_rng(seed).random((n, len(NAMES))) < share
    apart = np.ones((len(NAMES), len(NAMES)), bool)
    apart[0, 1] = apart[1, 0] = False
    return JudgedConcepts(NAMES, tuple(f"a {name}" for name in NAMES), has, apart)


def names_of(pairs: PairSet) -> set[tuple[str, str]]:
    return set(zip(pairs.a_names, pairs.b_names, strict=True))


@settings(max_examples=40, deadline=None)
@example(62, 199, 0.44921875, False)  # a pair has exactly the share of B
@given(st.integers(0, 1000), st.integers(20, 200), st.floats(0.1, 0.9), st.booleans())
def test_exactly_the_valid_pairs_are_selected(
    seed: int, n: int, share: float, tuning: bool
) -> None:
    criteria = PairCriteria(relevant=5, violating=4, share=0.3)
    table = concepts(seed, n, share)
    rows = np.arange(0, n, 2)
    requested, others = (
        names_of(select_pairs(table, rows, criteria, which)) for which in (tuning, not tuning)
    )
    for a in range(len(NAMES)):
        for b in range(len(NAMES)):
            has_a, has_b = table.has[rows, a], table.has[rows, b]
            both, alone = (has_a & has_b).sum(), (has_a & ~has_b).sum()
            lawful = a != b and {a, b} != {0, 1} and alone >= 5 and both >= 4
            lawful = bool(lawful and both >= 0.3 * has_a.sum())
            assert ((NAMES[a], NAMES[b]) in requested | others) == lawful
    # Neither a pair nor its mirror image is used for both tuning and reporting.
    assert not {frozenset(pair) for pair in requested} & {frozenset(pair) for pair in others}


def test_pair_set_marks_relevant_and_violating_items() -> None:
    table = concepts(3, 60, 0.5)
    rows = np.arange(30, 60)
    questions = select_pairs(table, rows, PairCriteria(2, 2, 0.1), tuning=False)
    assert questions.literal[0] == f"{questions.a[0]} without {questions.b[0]}"
    for p, names in enumerate(zip(questions.a_names, questions.b_names, strict=True)):
        a, b = map(NAMES.index, names)
        np.testing.assert_array_equal(
            questions.relevant[p], table.has[rows, a] & ~table.has[rows, b]
        )
        np.testing.assert_array_equal(
            questions.violating[p], table.has[rows, a] & table.has[rows, b]
        )


def test_pair_limit_selects_the_same_pairs() -> None:
    table = concepts(3, 200, 0.5)
    everything = select_pairs(table, np.arange(200), PairCriteria(), tuning=False)
    some = select_pairs(table, np.arange(200), PairCriteria(at_most=5), tuning=False)
    assert len(some) == 5
    assert names_of(some) < names_of(everything)


def test_small_select_split_scales_the_criteria(large_word_collection: Collection) -> None:
    found = track_pairs(
        large_word_collection,
        "label",
        benchmark_nouns(),
        PairCriteria(10, 10, tuning=0.5, enough=10**6),
    )
    assert found.tuning_criteria.relevant == 10 * len(found.tuning.rows) // len(found.report.rows)
    assert found.report.relevant.sum(1).min() >= 10


def test_label_that_implies_another_is_its_hyponym(
    large_word_collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = large_word_collection.items.copy()
    items["labels"] = [
        [*labels, "pet"] if "dog" in labels or "cat" in labels else labels
        for labels in items["labels"]
    ]
    monkeypatch.setitem(large_word_collection.__dict__, "items", items)
    found = label_concepts(large_word_collection, benchmark_nouns(), PairCriteria())
    place = {name: j for j, name in enumerate(found.names)}
    assert not found.apart[place["dog"], place["pet"]]
    assert not found.apart[place["pet"], place["cat"]]
    assert found.apart[place["dog"], place["cat"]]


def test_too_few_items_are_reported(word_collection: Collection) -> None:
    with pytest.raises(ValueError, match="no label pair for"):
        track_pairs(
            word_collection, "label", benchmark_nouns(), PairCriteria(relevant=30, fewest=30)
        )
