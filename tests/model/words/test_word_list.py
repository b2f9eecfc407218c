from __future__ import annotations

import pytest

from sieve.model.words.text import WordList, says_something

LISTED = WordList(["beach", "dog", "dogs", "gray", "airplane", "jogging", "two", "shorts", "short"])


@pytest.mark.parametrize(
    ("text", "read", "replaced"),
    [
        ("two dogs", "two dogs", []),
        ("a BEACH", "a BEACH", []),
        ("sunny Beaches", "sunny beach", [("Beaches", "beach")]),
        ("a grey aeroplane", "a gray airplane", [("grey", "gray"), ("aeroplane", "airplane")]),
        ("he jogs", "he jogging", [("jogs", "jogging")]),
        ("a mutt", "a dog", [("mutt", "dog")]),
        ("", "", []),
    ],
)
def test_words_are_matched_to_a_listed_form(text: str, read: str, replaced: list) -> None:
    found = LISTED.read(text)
    assert (found.text, list(found.replaced)) == (read, replaced)


def test_plurals_are_read_as_singulars_on_request() -> None:
    assert LISTED.read("two dogs in shorts", singular=True).text == "two dog in shorts"


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("a quokka beach", "a beach", ["quokka"]),
        ("beach 🏖 42", "beach", ["🏖", "42"]),
        ("butter", "", ["butter"]),
        ("the", "", []),
        ("a dog's beach", "a dog's beach", []),
    ],
)
def test_unlisted_words_are_reported(text: str, known: str, unknown: list) -> None:
    found = LISTED.read(text)
    assert (found.known, list(found.unknown)) == (known, unknown)


@pytest.mark.parametrize(
    ("text", "says"), [("a", True), ("4", True), ("🏖️", True), ("?!", False), (" \u200b", False)]
)
def test_punctuation_is_ignored(text: str, says: bool) -> None:
    assert says_something(text) == says
