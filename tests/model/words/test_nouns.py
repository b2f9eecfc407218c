from __future__ import annotations

import json

from sieve import assets
from sieve.model.words.nouns import benchmark_nouns


def test_text_has_its_nouns_and_their_hypernyms() -> None:
    found = benchmark_nouns().nouns_in("Two boys and a Puppy by the lake.")
    assert found == {"boy", "child", "person", "puppy", "dog", "animal", "lake", "water"}


def test_longest_form_matches() -> None:
    for text, has, has_not in (
        ("a hot dog on a plate", "hot dog", "dog"),
        ("a teddy bear", "toy", "bear"),
        ("a tennis racket", "tennis racket", "tennis"),
        ("people in black trousers", "pants", "shorts"),
    ):
        found = benchmark_nouns().nouns_in(text)
        assert has in found and has_not not in found, text


def test_word_is_never_paired_with_its_hypernym() -> None:
    nouns = benchmark_nouns()
    for one, other in (("boy", "child"), ("boy", "person"), ("lake", "water"), ("surfer", "wave")):
        assert not nouns.can_pair(one, other)
        assert not nouns.can_pair(other, one)
    assert nouns.can_pair("dog", "beach")
    assert not any(nouns.can_pair(lemma, lemma) for lemma in nouns.lemmas)


def test_shipped_table_is_large_complete_and_hashed() -> None:
    nouns = benchmark_nouns()
    assert len(nouns.lemmas) > 300
    assert len(nouns.sha256) == 64
    for lemma in nouns.lemmas:
        assert lemma in nouns.nouns_in(lemma), lemma
        assert nouns.query_text(lemma).split()[-1] == lemma.split()[-1]


def test_shipped_table_has_each_form_once() -> None:
    table = json.loads((assets.ROOT / "benchmark" / "nouns.json").read_bytes())["nouns"]
    forms = [
        form
        for noun in table.values()
        for form in {*noun["forms"], *noun["synonyms"]}  # a form may be a synonym of its noun
    ]
    assert len(forms) == len(set(forms))
