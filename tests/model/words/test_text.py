from __future__ import annotations

from sieve.model.words.text import (
    concept_presence,
    content_words,
    presence_in,
    singular_forms,
    word_presence,
)


def test_content_words_exclude_function_words() -> None:
    found = content_words("Two DOGS are on the grass, a dog's ball!")
    assert found == ["dogs", "grass", "dog's", "ball"]


def test_hot_dog_is_no_dog() -> None:
    found = content_words("Two hot dogs and a dog in the hot sun")
    assert found == ["hot dogs", "dog", "hot", "sun"]
    captions = [["a hot dog"], ["three hot dogs", "a dog"], ["a palm tree"], ["two palm trees"]]
    found = concept_presence(captions, min_items=1)
    has = {
        word: found.presence[:, [j]].toarray().ravel().tolist()
        for j, word in enumerate(found.words)
    }
    assert has["dog"] == [0, 1, 0, 0]
    assert has["hot dog"] == [1, 1, 0, 0]
    assert has["palm tree"] == has["tree"] == [0, 0, 1, 1]


def test_plurals_are_mapped_to_listed_singulars() -> None:
    assert singular_forms(["dog", "dogs", "grass", "puppies", "puppy", "bus", "buses"]) == {
        "dogs": "dog",
        "puppies": "puppy",
        "buses": "bus",
    }


def test_presence_marks_which_words_occur_in_which_items() -> None:
    found = word_presence([["a dog", "two dogs"], ["a cat and a dog"], [], ["the"]], min_items=1)
    assert found.words == ["cat", "dog"]
    assert found.presence.toarray().tolist() == [[0, 1], [1, 1], [0, 0], [0, 0]]
    assert found.counts.tolist() == [1, 2]
    assert word_presence([[], ["the of"]]).presence.shape == (2, 0)


def test_words_of_one_text_include_phrases_and_hypernyms() -> None:
    words = ["animal", "dog", "palm tree", "tree"]
    texts = ["Two dogs run", "a dog", "a palm tree", "the sea"]
    assert presence_in(words, texts, kinds=True).toarray().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
    ]
    assert presence_in(words, texts).toarray().tolist()[0] == [0, 1, 0, 0]
