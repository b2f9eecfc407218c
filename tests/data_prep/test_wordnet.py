from __future__ import annotations

from pathlib import Path

import pytest

from sieve.data_prep.wordnet import WordNet, noun_hypernyms

DATA = """  1 This software and database is being provided to you
00000001 03 n 01 entity 0 000 | all there is
00000002 05 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | a living thing
00000003 05 n 02 dog 0 domestic_dog 0 002 @ 00000002 n 0000 ~ 00000004 n 0000 | barks; a | bar
00000004 05 n 01 puppy 0 001 @ 00000003 n 0000 | a young dog
00000005 18 n 02 guy 0 dog 1 001 @ 00000001 n 0000 | a man
00000006 09 n 01 idea 0 001 @ 00000001 n 0000 | cannot be seen
00000007 05 n 01 young 0 001 @ 00000002 n 0000 | young animals
"""
INDEX = """  1 This software and database is being provided to you
animal n 1 2 @ ~ 1 1 00000002
beast n 1 1 @ 1 0 00000002
dog n 2 2 @ ~ 2 1 00000003 00000005
domestic_dog n 1 1 @ 1 0 00000003
entity n 1 0 1 0 00000001
guy n 1 1 @ 1 1 00000005
idea n 1 1 @ 1 1 00000006
puppy n 1 1 @ 1 0 00000004
young n 1 1 @ 1 1 00000007
"""
COUNTS = """dog%1:05:00:: 1 40
young%1:05:00:: 1 3
young%3:00:00:: 1 90
"""


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    for name, text in (("data.noun", DATA), ("index.noun", INDEX), ("cntlist.rev", COUNTS)):
        (tmp_path / name).write_text(text)
    return WordNet(tmp_path)


def test_hypernyms_include_synonyms_and_all_ancestors(wordnet: WordNet) -> None:
    assert wordnet.hypernyms("puppy") == {"dog", "domestic dog", "animal", "beast"}
    assert wordnet.hypernyms("dog") == {"domestic dog", "animal", "beast"}


def test_only_the_first_sense_of_a_word_is_used(wordnet: WordNet) -> None:
    assert wordnet.hypernyms("guy") == frozenset()


@pytest.mark.parametrize("word", ["young", "idea", "unheard"])
def test_only_nouns_of_visible_things_have_hypernyms(wordnet: WordNet, word: str) -> None:
    assert wordnet.hypernyms(word) == frozenset()


def test_table_has_only_listed_hypernyms(wordnet: WordNet) -> None:
    assert noun_hypernyms(wordnet)["puppy"] == ("animal", "beast", "dog")


def test_folder_without_wordnet_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="WordNet 3.0's data.noun"):
        WordNet(tmp_path)
