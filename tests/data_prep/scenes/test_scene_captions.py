"""Captions of scenes are correct English and true of the layout."""

from __future__ import annotations

import re

from sieve.data_prep.records import Record
from sieve.data_prep.scenes import record_of
from sieve.data_prep.scenes.captions import full_caption
from sieve.data_prep.scenes.catalogue import PLACES, catalogue
from sieve.data_prep.scenes.compose import Scene

LEFT_RIGHT = re.compile(
    r"an? ([a-z -]+?) to the (left|right) of an? ([a-z -]+?)(?: (?:in|on|at|by|near) .*)?\.?$"
)


def test_captions_are_grammatical(records: list[Record]) -> None:
    for record in records:
        assert len(record.captions) == 5
        assert len({text.lower().rstrip(".") for text in record.captions}) == 5
        for text in record.captions:
            assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiouA]|  |\bone \w+s\b| ,", text), text
            assert 4 <= len(text) <= 140, text
            assert text[0].isupper() or not text.endswith("."), text
    distinct = {text for record in records for text in record.captions}
    assert len(distinct) > 20_000


def test_captions_name_only_present_objects(scenes: list[Scene], records: list[Record]) -> None:
    words = {
        label: [w.lower() for n in (what.name, *what.synonyms) for w in (n.singular, n.plural)]
        for label, what in catalogue().items()
    }
    checked = 0
    for scene, record in zip(scenes[:500], records, strict=False):
        text = " ".join(record.captions).lower()
        for phrase in sorted(_true_phrases(scene, words), key=len, reverse=True):
            text = text.replace(phrase, "")
        for label, options in words.items():
            if label not in scene.labels:
                for word in options:
                    if word in text:
                        assert not re.search(rf"\b{re.escape(word)}\b", text), (record, word)
                    checked += 1
    assert checked > 100_000


def _true_phrases(scene: Scene, words: dict[str, list[str]]) -> set[str]:
    """Return all phrases that captions may use: objects, place and categories."""
    place = PLACES[scene.place]
    footing = (text for _, text in place.footing)
    objects = (word for label in scene.counts for word in words[label])
    return {*place.words, *place.noun, *footing, *objects, *scene.categories, "coffee cup"}


def test_relations_in_captions_are_true(scenes: list[Scene], records: list[Record]) -> None:
    checked = 0
    plain = {what.name.singular: label for label, what in catalogue().items()}
    for scene, record in zip(scenes, records, strict=True):
        middle = {placed.label: placed.x for placed in scene.placements}
        for text in record.captions:
            found = LEFT_RIGHT.match(text.lower())
            if found and found[1] in plain and found[3] in plain:
                first, second = middle[plain[found[1]]], middle[plain[found[3]]]
                assert (first < second) == (found[2] == "left"), (scene.reference, text)
                checked += 1
    assert checked > 300


def test_full_caption_names_all_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        text = full_caption(scene)
        for label, count in scene.counts.items():
            name = catalogue()[label].name
            assert (name.singular if count == 1 else name.plural) in text
    usual = 0
    for scene in scenes[:1000]:
        most = max(record_of(scene).captions, key=len).lower()
        usual += all(
            any(
                word.lower() in most
                for name in (what.name, *what.synonyms)
                for word in (name.singular, name.plural)
            )
            for what in (catalogue()[label] for label in scene.counts)
        )
    assert usual > 750
