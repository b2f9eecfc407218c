"""Test that words that label people are never automatic names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from corruption import reseal
from scipy.sparse import csr_array

from sieve import assets
from sieve.model.checkpoint import NAMES, Checkpoint
from sieve.model.dimension_name import CAPTIONS, GIVEN, DimensionName, labels_people
from sieve.model.dimensions.naming import nameable
from sieve.model.dimensions.vocabulary import english_words
from sieve.model.words.text import WordPresence

BUNDLED = sorted(path.parent for path in assets.ROOT.glob(f"checkpoints/*/{NAMES}"))


@pytest.mark.parametrize(
    "name",
    [
        "arab", "oriental", "oriental man", "african-american woman", "chinese", "Mexicans",
        "muslim", "jews", "catholic", "lesbian", "queer", "midget", "retarded", "gypsy",
        "michael jackson", "michael · jackson", "obama t-shirt", "einstein", "black man",
        "man · white", "frenchmen", "middle eastern man", "dark skin · face", "white couple",
        "mormon", "refugees", "fat woman", "man · bald", "overweight", "blonde girl", "topless",
        "blind man", "redheaded woman", "tiger woods", "taylor swift", "elvis costume",
    ],
)  # fmt: skip
def test_labels_of_people_are_detected(name: str) -> None:
    assert labels_people(name)


@pytest.mark.parametrize(
    "name",
    [
        "man", "crowd", "nurse", "monk", "turkey", "china", "china plate", "german shepherd",
        "french fries", "black dog", "white", "polish", "mohawk", "santa claus", "ferris wheel",
        "christmas", "lens", "light-colored dog", "jack o'lantern", "hamburger", "bald eagle",
        "tiger", "woods", "window blind", "player · white uniform", "tan dog", "skinny jeans",
        "elderly man", "wheelchair", "beard",
    ],
)  # fmt: skip
def test_other_names_are_allowed(name: str) -> None:
    assert not labels_people(name)


def test_vocabulary_has_no_person_labels() -> None:
    assert [word for word in english_words() if labels_people(word)] == []


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: folder.name)
def test_bundled_checkpoints_have_no_person_labels(folder) -> None:
    saved = ("name", "runner_up", "vocabulary", "vocabulary_runner_up")
    entries = json.loads((folder / NAMES).read_text())
    assert len(entries) > 900
    assert [e[key] for e in entries for key in saved if labels_people(e[key])] == []
    names = Checkpoint.load(folder).names  # its checksums are valid
    assert {j: name.name for j, name in names.items()} == {
        entry["dimension"]: entry["name"] for entry in entries
    }


def test_words_that_label_people_are_not_nameable() -> None:
    words = WordPresence(
        ["crowd", "arab", "michael jackson", "black man"],
        csr_array(np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], np.float32)),
    )
    assert nameable(words).words == ["crowd"]


def test_older_names_are_replaced_by_the_next_best_word() -> None:
    name = DimensionName("arab", 0.5, "crowd", 0.4, CAPTIONS).without_labels()
    assert name is not None and (name.name, name.score) == ("crowd", 0.4)
    alone = DimensionName("arab", 0.5, "muslim", 0.4, CAPTIONS, "oriental", 0.3)
    assert alone.without_labels() is None
    joined = DimensionName("dress · african-american woman", 0.5, "woman").without_labels()
    assert joined is not None and joined.name == "dress"


def test_replaced_names_are_not_those_of_other_dimensions(tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(BUNDLED[0], folder)
    fields = {"score": 0.5, "runner_up_score": 0.4}
    entries = [
        {"dimension": 0, "name": "arab", "runner_up": "crowd", **fields},
        {"dimension": 1, "name": "crowd", "runner_up": "", **fields},
        {"dimension": 2, "name": "muslim", "runner_up": "market", **fields},
        {"dimension": 3, "name": "jews", "runner_up": "market", **fields},
    ]
    (folder / NAMES).write_text(json.dumps(entries))
    reseal(folder)
    found = {j: name.name for j, name in Checkpoint.load(folder).names.items()}
    assert found == {1: "crowd", 2: "market"}


def test_each_group_of_the_manual_list_has_a_reason() -> None:
    text = (assets.ROOT / "words" / "person_labels_extra.txt").read_text()
    head, *groups = text.strip().split("\n\n")
    assert all(line.startswith("# ") for line in head.split("\n"))
    assert len(groups) >= 7
    assert all(group.startswith("# ") and group.split("\n")[0].endswith(".") for group in groups)


def test_custom_names_are_preserved() -> None:
    given = DimensionName("arab", 0.0, "", source=GIVEN)
    assert given.without_labels() == given
