from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, WordBackbone
from corruption import reseal
from scipy.sparse import csr_array
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.dimension_name import CAPTIONS, CONFIDENT, VOCABULARY, DimensionName
from sieve.model.dimensions.naming import (
    add_vocabulary,
    expected_auc,
    held_out_items,
    name_encoder,
    names_from_captions,
)
from sieve.model.dimensions.vocabulary import (
    WordFit,
    are_related,
    best_words,
    english_words,
    fit_words,
    vocabulary_of,
    word_embeddings,
)
from sieve.model.encoder import SparseEncoder
from sieve.model.hyperparameters import SparseEncoderConfig
from sieve.model.words.text import WordPresence, with_phrases, word_presence

N = 900
GENERATOR = np.random.default_rng(0)
HAS = {"dog": GENERATOR.random(N) < 0.4, "snow": GENERATOR.random(N) < 0.4}
HAS["palm"] = HAS["palm tree"] = GENERATOR.random(N) < 0.3


def names(*fires: np.ndarray, has: dict[str, np.ndarray] | None = None) -> dict[int, DimensionName]:
    """Name dimensions that fire for some items, at different strengths."""
    has = has or HAS
    words = WordPresence([*has], csr_array(np.stack([*has.values()], 1).astype(np.float32)))
    strength = np.random.default_rng(1).uniform(0.5, 1, N)
    codes = csr_array(np.stack([each * strength for each in fires], 1).astype(np.float32))
    return names_from_captions(codes, codes, words, np.arange(N) % 3 == 2)


def test_dimensions_get_different_names_of_one_or_two_words() -> None:
    both = HAS["dog"] & HAS["snow"]
    found = names(HAS["dog"], both, HAS["dog"], np.zeros(N), HAS["palm"])
    assert {found[0].name, found[2].name} > {"dog"}, "two dimensions of one meaning"
    assert set(found[1].name.split(" · ")) == {"dog", "snow"}
    assert len({name.name for name in found.values()}) == 4
    assert 3 not in found, "it never fires"
    assert found[4].name == "palm tree", "the phrase fits as well as the word"
    assert all(name.source == CAPTIONS and 0 <= name.score <= 1 for name in found.values())


def test_name_is_tested_on_items_that_did_not_choose_it() -> None:
    by_chance = np.random.default_rng(2).random(N) < 0.3
    fits_choosers = by_chance.copy()
    chooses = np.arange(N) % 3 != 2
    fits_choosers[chooses] = HAS["snow"][chooses]
    found = names(HAS["dog"], fits_choosers)
    assert (found[0].name, found[0].confident) == ("dog", True)
    assert found[0].auc == pytest.approx(1, abs=0.02)
    assert found[1].name == "snow" and not found[1].confident
    assert found[1].auc == pytest.approx(0.5, abs=0.1)


def test_items_with_equal_captions_do_not_test_each_other() -> None:
    captions = [["a dog"], ["a cat"], ["snow"], ["a dog"], ["a cat"], ["snow"]] * 2
    assert held_out_items(captions).tolist() == [False, False, True] * 4


def test_few_items_prove_little() -> None:
    found = expected_auc(np.array([1.0, 0.9, 0.3]), np.array([2, 300, 0]), 900, np.ones(3))
    assert found[0] < 0.9 and found[1] == pytest.approx(0.9) and found[2] == 0.5


def test_expected_auc_is_right_on_other_items() -> None:
    generator = np.random.default_rng(5)
    chosen = generator.uniform(0.6, 0.99, 2000)
    true = 0.5 + 0.6 * (chosen - 0.5)  # the encoder is overfitted to the items that chose
    having = generator.integers(1, 12, 2000)
    shift = np.sqrt(2) * norm.ppf(true)
    tested = np.array(
        [
            roc_auc_score(
                np.arange(200) < n, generator.standard_normal(200) + by * (np.arange(200) < n)
            )
            for n, by in zip(having, shift, strict=True)
        ]
    )
    found = expected_auc(tested, having, 200, chosen)
    assert np.abs(found - true).mean() < 0.6 * np.abs(tested - true).mean()
    assert abs((found - true).mean()) < 0.03, "no bias, although the choosing items have one"


def test_uncertain_name_is_shown_as_a_guess(word_checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "guess"
    shutil.copytree(word_checkpoint.path, folder)
    entries = [
        {"dimension": j, "name": f"dog {j}", "score": 0.5, "runner_up": "", "auc": auc}
        for j, auc in enumerate((CONFIDENT, 0.7, None))
    ]
    (folder / "names.json").write_text(json.dumps(entries))
    reseal(folder)
    found = Checkpoint.load(folder)
    assert [found.name_of(j) for j in range(4)] == [
        "dog 0", "#1, perhaps dog 1", "dog 2", "dimension 3",
    ]  # fmt: skip


def test_second_name_has_another_meaning() -> None:
    found = best_words(np.array([0.9, 0.8, 0.3]), ["snow", "snowy", "winter"])
    assert found == WordFit("snow", 0.9, "winter", 0.3)
    assert best_words(np.array([0.0, -1.0]), ["a", "b"]) is None
    assert are_related("tree", "palm tree") and not are_related("cat", "dog")


def test_phrases_are_words_that_occur_together() -> None:
    reported = [["a palm tree, a red ball"], ["two palm trees"], ["the palm tree on a hill"]] * 2
    reported += [["a red car and a tree"], ["a red boat"], ["a tree of red apples"]] * 3
    words = word_presence(reported, 2)
    found = with_phrases(words, reported, 2)
    phrases = found.words[len(words.words) :]
    assert "palm tree" in phrases
    assert "tree red" not in phrases and "car tree" not in phrases, "words between them"
    column = found.presence[:, [found.words.index("palm tree")]].toarray().ravel()
    assert column.tolist() == [1] * 6 + [0] * 9


def test_captions_take_precedence_over_the_vocabulary() -> None:
    named = {0: DimensionName("dog", 0.8, "cat", 0.3)}
    fits = {0: WordFit("puppy", 0.6, "hound", 0.5), 2: WordFit("beach", 0.4, "", 0.0)}
    found = add_vocabulary(named, fits)
    assert (found[0].name, found[0].source, found[0].vocabulary) == ("dog", CAPTIONS, "puppy")
    assert (found[2].name, found[2].source, found[2].score) == ("beach", VOCABULARY, 0.4)
    assert add_vocabulary({}, fits)[0].name == "puppy", "without captions, all are of it"


def test_vocabulary_gives_each_name_once() -> None:
    fits = {
        0: WordFit("dog", 0.5, "cat", 0.4),
        1: WordFit("dog", 0.7, "puppy", 0.2),
        2: WordFit("dog", 0.4, "cat", 0.3),
    }
    found = add_vocabulary({}, fits)
    assert {j: name.name for j, name in found.items()} == {0: "cat", 1: "dog"}, "2 has none left"
    assert found[0].score == 0.4


def test_vocabulary_is_large_and_common() -> None:
    words = english_words()
    assert len(words) == len(set(words)) >= 5000
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_only_words_of_the_backbone_are_used() -> None:
    class Small(WordBackbone):
        def unknown_words(self, text: str) -> list[str]:
            return [] if text in WORDS else [text]

    assert set(vocabulary_of(Small())) == set(WORDS) & set(english_words())


def test_word_must_match_the_text_and_the_images() -> None:
    encoder = SparseEncoder(SparseEncoderConfig(d=4, m=4, k=2))
    with torch.no_grad():
        encoder.encode_md.copy_(torch.eye(4))
    images = np.eye(4, dtype=np.float32)[[0, 0, 1]]
    words = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    found = fit_words(encoder, images, ["dog", "cat", "car"], words)
    assert {j: fit.word for j, fit in found.items()} == {0: "dog", 1: "cat"}, "2 is on no image"
    assert found[0].score == pytest.approx(1 / np.linalg.norm([1, 0.2]))
    assert fit_words(encoder, images, [], words[:0]) == {}


def test_word_embeddings_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    first = word_embeddings(["a dog", "a cat"], WordBackbone(), "ff")
    (saved,) = (tmp_path / "words").glob("*.npy")

    class Silent(WordBackbone):
        def encode_texts(self, texts: list[str]) -> np.ndarray:
            raise AssertionError(f"embedded again: {texts}")

    again = word_embeddings(["a dog", "a cat"], Silent(), "ff")
    np.testing.assert_allclose(again, first, atol=1e-3)
    saved.write_bytes(b"broken")
    np.testing.assert_allclose(word_embeddings(["a dog", "a cat"], WordBackbone(), "ff"), first)


def test_dimensions_are_named_after_their_meaning(
    word_collection: Collection, word_checkpoint: Checkpoint, word_backbone: WordBackbone
) -> None:
    rows = word_collection.rows_of_split(["train"])
    found = name_encoder(word_checkpoint.encoder, word_collection, rows, word_backbone)
    reported = {name.name for name in found.values() if name.source == CAPTIONS}
    assert set(WORDS) <= reported
    by_vocabulary = {name.vocabulary for name in found.values()}
    assert len(set(WORDS) & by_vocabulary) >= 8
    for name in found.values():
        assert 0 <= name.runner_up_score <= name.score <= 1
        assert 0 <= name.vocabulary_score <= 1


def test_names_of_older_checkpoints_are_read(word_checkpoint: Checkpoint, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(word_checkpoint.path, old)
    entry = {"dimension": 3, "name": "dog", "score": 0.5, "runner_up": "cat", "other": 1}
    (old / "names.json").write_text(json.dumps([entry]))
    reseal(old)
    assert Checkpoint.load(old).names == {3: DimensionName("dog", 0.5, "cat")}
    assert Checkpoint.load(word_checkpoint.path).names == word_checkpoint.names
