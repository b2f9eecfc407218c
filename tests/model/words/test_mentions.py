from __future__ import annotations

import pytest

from sieve.model.words.nouns import benchmark_nouns, mentions


@pytest.mark.parametrize(
    ("wanted", "captions", "labels", "message"),
    [
        ("a beach", ["two dogs run along the beach"], [], True),
        ("beaches", ["a man on a beach"], [], True),
        ("a beach", ["a man in a city"], ["beach"], True),
        ("a beach", ["a man in a city"], ["street"], False),
        ("a dog", ["a puppy sleeps"], [], True),
        ("a dog", ["a hot dog on a plate"], [], False),
        ("an animal", ["a dog barks"], [], True),
        ("a dog", ["some animal"], [], False),
        ("a dog and a ball", ["a dog sleeps"], [], False),
        ("a dog and a ball", ["a dog sleeps", "a ball lies there"], [], True),
        ("a zyzzyx", ["the zyzzyx, seen from afar"], [], True),
        ("a zyzzyx", ["zyzzyxes"], [], False),
        ("", ["a dog"], ["dog"], False),
        ("the", ["the the"], [], False),
        ("<b>", ["<b> b"], [], True),
    ],
)
def test_only_stated_nouns_are_mentioned(
    wanted: str, captions: list[str], labels: list[str], message: bool
) -> None:
    assert mentions(wanted, captions, labels, benchmark_nouns()) is message
