from __future__ import annotations

import numpy as np
import pytest

from sieve.model.words.text import concept_presence, hypernyms_of, with_hypernyms, word_presence


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("dog", {"dog", "animal"}),
        ("girl", {"girl", "child", "person"}),
        ("men", {"men", "man", "person"}),
        ("bike", {"bicycle", "vehicle"}),
        ("shorts", {"shorts", "clothing"}),
        ("hamburger", {"food"}),
        ("football", {"sport"}),
    ],
)
def test_words_imply_their_hypernyms(word: str, kinds: set[str]) -> None:
    assert kinds <= hypernyms_of(word)


@pytest.mark.parametrize("word", ["white", "young", "running", "qwertz"])
def test_non_nouns_imply_only_themselves(word: str) -> None:
    assert hypernyms_of(word) == {word}


def test_hypernyms_do_not_imply_each_other() -> None:
    assert "dog" not in hypernyms_of("animal")
    assert "animal" not in hypernyms_of("hot dog")


def test_items_have_the_hypernyms_of_their_words() -> None:
    captions = [["a dog on grass"], ["a cat"], ["a red bicycle", "a girl"], ["grass"]]
    words = concept_presence(captions, min_items=1)
    found = with_hypernyms(words, min_items=1)
    table = {word: found.presence[:, [at]].toarray().ravel() for at, word in enumerate(found.words)}
    assert table["animal"].tolist() == [1, 1, 0, 0]
    assert table["vehicle"].tolist() == [0, 0, 1, 0]
    assert table["person"].tolist() == [0, 0, 1, 0]
    for at, word in enumerate(words.words):
        assert (table[word] >= words.presence[:, [at]].toarray().ravel()).all(), word
    assert set(np.unique(found.presence.data)) == {1.0}


def test_rare_hypernyms_are_dropped() -> None:
    words = word_presence([["dog"], ["cat"], ["tree"]], min_items=1)
    found = with_hypernyms(words, min_items=2)
    assert "animal" in found.words
    assert "dog" not in found.words


def test_plural_with_its_own_meaning_is_preserved() -> None:
    words = word_presence([["a boy in shorts"], ["a short boy"], ["boys"]], min_items=1)
    assert {"shorts", "short", "boy"} <= set(words.words)
    assert "boys" not in words.words


def test_empty_vocabulary_has_no_hypernyms() -> None:
    assert with_hypernyms(word_presence([[], []])).words == []
