"""Test example queries from captions."""

from __future__ import annotations

from sieve.explorer.tabs.search import N_EXAMPLES, examples_from_captions

BEACH = ["a brown dog runs on the beach", "a dog on a sandy beach"]
GRASS = ["a black and white dog on green grass", "two dogs are playing on the grass"]
CAT = ["a small cat is sitting on the sofa", "the cat sleeps"]


def test_example_pair_is_a_subject_and_a_frequent_context() -> None:
    found = examples_from_captions([BEACH] * 20 + [GRASS] * 40 + [CAT] * 40)
    assert ("dog", "grass") in found or ("dog", "beach") in found
    assert all(q not in ("brown", "black", "playing", "white") for q, _ in found)
    assert len(found) <= N_EXAMPLES


def test_collection_without_captions_has_no_examples() -> None:
    assert examples_from_captions([]) == ()
    assert examples_from_captions([[], []]) == ()
