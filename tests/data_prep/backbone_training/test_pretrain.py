from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from open_clip.model import CustomTextCLIP
from PIL import Image

from sieve.data_prep.backbone_training.fit import (
    CompactTokens,
    Domain,
    FitConfig,
    TermIndex,
    Towers,
    caption_loss,
    drop_words,
    frequent_words,
    query_loss,
    train,
)
from sieve.data_prep.backbone_training.pretrain import (
    CONFIG,
    MODEL,
    PretrainConfig,
    image_features,
    new_network,
    photo_split,
    photo_views,
    recall,
    save,
)
from sieve.model.backbone.clip import Backbone

CAPTIONS = [
    ("A black dog runs on the beach .", "dogs by the sea"),
    ("Two children play with a red ball .", "children and a ball"),
    ("A man rides a bicycle .", "the man on his bicycle"),
    ("A red car in the snow .", "a car"),
]


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def names(count: int) -> list[str]:
    return [f"{number:06d}.jpg" for number in range(count)]


def test_photo_split_has_the_documented_sizes_and_is_disjoint():
    split = photo_split(names(6091))
    assert {key: len(part) for key, part in split.items()} == {
        "backbone": 3500,
        "encoder": 2091,
        "select": 500,
    }
    assert sorted(sum(split.values(), [])) == names(6091)


def test_photo_split_depends_only_on_names():
    shuffled = names(1000)
    Random(3).shuffle(shuffled)
    assert photo_split(shuffled) == photo_split(names(1000) * 2)
    assert photo_split(names(1000))["backbone"] != names(1000)[:575]


@pytest.mark.shared
def test_photo_split_of_flickr8k_is_unchanged(shared_data: Path):
    listed = (shared_data / "flickr8k" / "train_images.txt").read_text().split()
    split = photo_split(listed)
    assert split["backbone"][0] == min(split["backbone"], key=digest)
    assert max(map(digest, split["backbone"])) < min(map(digest, split["encoder"]))
    assert max(map(digest, split["encoder"])) < min(map(digest, split["select"]))


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_shipped_and_test_scenes_are_rejected_for_training(tmp_path: Path, seed: int):
    with pytest.raises(ValueError, match="scene_seed must not be 0, 2 or 3"):
        PretrainConfig(tmp_path, tmp_path / "w.pth", tmp_path / "out", scene_seed=seed)


def test_missing_photographs_are_reported(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="captions.csv is missing"):
        PretrainConfig(tmp_path, tmp_path / "w.pth", tmp_path / "out")


def test_terms_fold_plurals_and_join_bigrams():
    book = TermIndex(CAPTIONS, [()] * 4, min_images=1)
    has = {term: book.has[:, column].tolist() for column, term in enumerate(book.terms)}
    assert has["dog"] == [True, False, False, False]
    assert has["black dog"] == [True, False, False, False]
    assert has["two child"] == [False, True, False, False]
    assert has["red"] == [False, True, False, True]
    assert not {"two", "the", "on", "a"} & set(book.terms)


def test_labels_count_as_terms():
    book = TermIndex(CAPTIONS, [("animal",), (), (), ("hot dog",)], min_images=1)
    assert book.has[0, book.terms.index("animal")]
    assert book.has[3, book.terms.index("hot dog")]


def test_queries_are_short_and_grammatical():
    book = TermIndex(CAPTIONS, [()] * 4, min_images=1)
    random = Random(0)
    dogs = {book.query(book.terms.index("dog"), random) for _ in range(200)}
    assert {"dog", "a dog", "dogs", "some dogs"} <= dogs
    assert not {"a dogs", "a photo of a dogs", "some dog"} & dogs
    children = {book.query(book.terms.index("two child"), random) for _ in range(100)}
    assert "two children" in children and "a two children" not in children


def test_image_matching_a_caption_is_not_a_negative():
    similarity = torch.tensor([[5.0, 5.0], [0.0, 5.0]])
    strict = caption_loss(similarity, torch.eye(2, dtype=torch.bool))
    lenient = caption_loss(similarity, torch.tensor([[True, True], [False, True]]))
    assert lenient < 0.01 < strict


def test_query_loss_ranks_every_image_with_the_word():
    has = torch.tensor([[True, True, False]])
    both = query_loss(torch.tensor([[8.0, 8.0, 0.0]]), has)
    one = query_loss(torch.tensor([[8.0, 0.0, 0.0]]), has)
    assert both == pytest.approx(np.log(2), abs=1e-2)
    assert one > 2


def test_compact_tokens_are_expanded_again():
    tokens = CompactTokens(["a dog", "the cat"], 8)
    found = tokens(["a cat", "zebra"])
    assert found.max() == len(tokens.used) - 1
    assert found.argmax(1)[0] == 3
    full = tokens.spread(torch.ones(len(tokens.used), 2))
    assert full.shape == (49408, 2)
    assert full.any(1).sum() == len(tokens.used)


def test_word_dropout_keeps_at_least_one_word():
    random = Random(0)
    found = {drop_words("a dog", random, 0.9) for _ in range(100)}
    assert found == {"a dog", "a", "dog"}


def test_frequent_words_are_selected():
    assert frequent_words([["Dogs run", "dogs"], ["dogs, a run", "cat", "a a"]]) == ["dogs"]


def test_recall_counts_ties_against_the_text():
    images = np.eye(3, dtype=np.float32)
    texts = np.float32([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 0]])
    assert recall(texts, images, [0, 1, 2], (1, 2)) == {"R@1": 0.3333, "R@2": 0.6667}


def test_photo_views_alternate(tmp_path: Path):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    whole, mirrored, crop, _ = photo_views(tmp_path, ["a.png"], 4, seed=0)
    np.testing.assert_array_equal(np.asarray(whole), pixels)
    np.testing.assert_array_equal(np.asarray(mirrored), pixels[:, ::-1])
    assert crop.width * crop.height < 40 * 40
    again = list(photo_views(tmp_path, ["a.png"], 4, seed=0))[2]
    np.testing.assert_array_equal(np.asarray(again), np.asarray(crop))


def colour(name: str) -> Image.Image:
    return Image.new("RGB", (64, 64), name)


def test_short_training_learns_colours_and_the_folder_opens(tmp_path: Path):
    """Train and export a tiny model: the loaded backbone gives the same embeddings."""
    colours = ["red", "green", "blue", "white", "black", "yellow"]
    captions = [(f"a {one} wall", f"{one}") for one in colours]
    tokens = CompactTokens([text for texts in captions for text in texts] + [
        "a photo of some", "the picture"], MODEL["text_cfg"]["context_length"])  # fmt: skip
    torch.manual_seed(0)
    text = {**MODEL["text_cfg"], "vocab_size": len(tokens.used)}
    network = CustomTextCLIP(512, dict(MODEL["vision_cfg"]), text).eval()
    features = image_features(network.visual.trunk, (colour(one) for one in colours))
    book = TermIndex(captions, [()] * len(captions), min_images=1)
    domain = Domain("colours", features[:, None], captions, book)
    towers = Towers(network, tokens, dropout=0.0)
    steps: list[int] = []
    recipe = FitConfig(steps=15, batch=6, queries=6, averaging=0.5)
    train(towers, [domain], recipe, steps.append)
    assert steps == [15]
    save(tmp_path / "out", towers, [domain])
    backbone = Backbone.load(f"local-dir:{tmp_path / 'out'}", device="cpu")
    images = backbone.encode_images([colour(one) for one in colours])
    with torch.no_grad():
        inside = towers.images(features).numpy()
    assert (images * inside).sum(1).min() > 0.99
    texts = backbone.encode_texts([f"a {one} wall" for one in colours])
    assert recall(texts, images, range(6), (1,))["R@1"] >= 0.8
    assert CONFIG["preprocess_cfg"]["resize_mode"] == "squash"
    assert backbone.width == 512


class Payload:
    """A pickle that creates a folder when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_initial_weights_run_no_code(tmp_path: Path):
    torch.save({"trunk": Payload(tmp_path / "trace")}, tmp_path / "weights.pth")
    with pytest.raises(pickle.UnpicklingError):
        new_network(100, tmp_path / "weights.pth")
    assert not (tmp_path / "trace").exists()
