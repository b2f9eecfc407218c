from __future__ import annotations

import pytest

from sieve.model.phrasing import split_exclusion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog but not on a beach", ("a dog", "a beach")),
        ("A dog without a beach.", ("A dog", "a beach")),
        ("people, except children", ("people", "children")),
        ("a street with no cars", ("a street", "cars")),
        ("a dog on a beach", None),
        ("nothing but blue sky", None),
        ("without", None),
        ("not a dog", None),
    ],
)
def test_only_clear_words_split_a_question(text: str, expected: tuple[str, str] | None) -> None:
    assert split_exclusion(text) == expected
