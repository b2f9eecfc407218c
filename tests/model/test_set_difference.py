"""Tests of the concepts that distinguish two sets of items."""

from __future__ import annotations

import numpy as np
import pytest

from sieve.explorer.errors import json_errors
from sieve.explorer.tabs.compare import CompareHandlers
from sieve.explorer.tabs.search import SearchHandlers
from sieve.model.engine import SearchEngine
from sieve.model.set_difference import compare_sets, select_items, set_title, strongest_items


def test_a_label_is_distinguished_by_its_own_concept(tiny_engine: SearchEngine) -> None:
    label = tiny_engine.collection.items["labels"].iloc[0][0]
    found = compare_sets(tiny_engine, f"label:{label}")
    top = found.significant.iloc[0]
    with_it = tiny_engine.image_codes.by_row[found.left][
        :, tiny_engine.concepts.members(top.concept)
    ]
    assert top.left_rate == pytest.approx((with_it.sum(1) > 0).mean())
    assert top.low <= top.difference <= top.high
    assert len(found.left) + len(found.right) == tiny_engine.collection.n_items
    strongest = strongest_items(tiny_engine, top.concept, found.left)
    assert set(strongest) <= set(found.left)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("label:dog split:test", "dog split test"),
        ("map:0,0,1,0,1,1 label:dog", "selection dog"),
        ("id:00c0ffee00c0ffee", "1 image"),
        ("id:00c0ffee00c0ffee,10c0ffee00c0ffee", "2 images"),
        ('label:"map:x" not concept:17', "map:x not concept 17"),
        ('concept:"hot dog">0.7 file:a/*', "hot dog file a/*"),
        ("all", "all"),
        ("", ""),
    ],
)
def test_titles_of_sets_have_no_coordinates_or_ids(text: str, title: str) -> None:
    assert set_title(text) == title


def test_random_halves_do_not_differ(tiny_engine: SearchEngine) -> None:
    ids = np.random.default_rng(0).permutation(tiny_engine.collection.items["id"].to_numpy(str))
    half = ",".join(ids[: len(ids) // 2])
    assert compare_sets(tiny_engine, f"id:{half}", f"not id:{half}").significant.empty


def test_items_of_both_sets_count_in_neither(tiny_engine: SearchEngine) -> None:
    ids = tiny_engine.collection.items["id"].tolist()
    found = compare_sets(tiny_engine, f"id:{','.join(ids[:20])}", f"id:{','.join(ids[10:30])}")
    assert found.shared == 10
    assert (found.left.tolist(), found.right.tolist()) == ([*range(10)], [*range(20, 30)])


def test_the_rest_of_a_set_is_its_complement(tiny_engine: SearchEngine) -> None:
    chosen, rest = (select_items(tiny_engine, f"{is_not}split:test") for is_not in ("", "not "))
    assert set(chosen) | set(rest) == set(range(tiny_engine.collection.n_items))
    assert not set(chosen) & set(rest)


def test_a_word_is_found_in_captions_in_singular_and_plural(tiny_engine: SearchEngine) -> None:
    singular, plural = (select_items(tiny_engine, f"caption:{w}") for w in ("circle", "circles"))
    assert singular.tolist() == plural.tolist()
    captions = tiny_engine.collection.items["captions"]
    assert all("circle" in " ".join(captions.iloc[row]) for row in singular)


@pytest.mark.parametrize(
    ("left", "right", "line"),
    [
        ("a dog", "", "set of items is label:…"),
        ("label:", "", "set of items is label:…"),
        ("label:unicorn", "", "selects no item"),
        ("all", "", "at least 5 items"),
        ("id:0123456789abcdef", "", "has no item"),
    ],
)
def test_faulty_sets_are_named(
    tiny_engine: SearchEngine, tmp_path, left: str, right: str, line: str
) -> None:
    handlers = CompareHandlers(SearchHandlers(tiny_engine, tmp_path))
    answer = json_errors(handlers.difference)({"left": left, "right": right})
    assert line in answer["error"]
    assert "\n" not in answer["error"]
