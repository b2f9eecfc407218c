from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import write_word_collection
from corruption import reseal

from sieve.model.checkpoint import Checkpoint, save_checkpoint
from sieve.model.checkpoint_choice import find_checkpoint
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine


@pytest.fixture
def copy(word_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(word_checkpoint.path, tmp_path / "copy"))


def test_checkpoint_records_its_training_items(
    word_checkpoint: Checkpoint, word_collection: Collection
) -> None:
    training = json.loads((word_checkpoint.path / "training.json").read_text())
    train_rows = word_collection.rows_of_split(["train"])
    assert training["items"] == word_collection.items["id"].iloc[train_rows].tolist()
    assert word_checkpoint.trained_on == "words"


def test_dimensions_are_named_after_words(word_checkpoint: Checkpoint) -> None:
    first = {name.name.split(" ")[0] for name in word_checkpoint.names.values()}
    assert first >= {"dog", "cat", "beach", "snow"}
    assert word_checkpoint.name_of(10**6) == "dimension 1000000"


@pytest.mark.parametrize("part", ["config.json", "weights.safetensors", "names.json"])
def test_missing_file_is_reported(copy: Path, part: str) -> None:
    (copy / part).unlink()
    with pytest.raises(FileNotFoundError, match=part):
        Checkpoint.load(copy)


@pytest.mark.parametrize("part", ["config.json", "weights.safetensors", "names.json"])
@pytest.mark.parametrize("content", [b"", b"[1, 2", b'{"a": 1}', b"\x00\xff" * 40])
def test_damaged_file_is_one_line(copy: Path, part: str, content: bytes) -> None:
    (copy / part).write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as caught:
        Checkpoint.load(copy)
    assert "\n" not in str(caught.value)


def test_other_version_is_rejected(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"schema_version": 99}))
    with pytest.raises(ValueError, match="schema_version 99"):
        Checkpoint.load(copy)


def test_matching_checkpoint_is_found(
    word_checkpoint: Checkpoint,
    word_collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="sieve train"):
        find_checkpoint(word_collection)
    shutil.copytree(word_checkpoint.path, tmp_path / "checkpoints" / "mine")
    broken = tmp_path / "checkpoints" / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    assert find_checkpoint(word_collection).name == "mine"
    other = Collection.open(write_word_collection(tmp_path / "o", n=10, backbone_hash="ee" * 32))
    with pytest.raises(FileNotFoundError, match="no checkpoint fits backbone"):
        find_checkpoint(other)


def test_checkpoint_without_activations_opens(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    del config["encoder"]["activation"]
    (copy / "config.json").write_text(json.dumps(config))
    reseal(copy)
    assert Checkpoint.load(copy).encoder.config.activation == "topk"


def test_dense_control_of_the_benchmark_cannot_be_searched(
    copy: Path, word_collection: Collection
) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["encoder"]["activation"] = "dense"
    (copy / "config.json").write_text(json.dumps(config))
    reseal(copy)
    with pytest.raises(ValueError, match="a dense control has no sparse codes; choose another"):
        SearchEngine.open(word_collection.path, copy)


def test_weights_beyond_float16_are_rejected(word_checkpoint: Checkpoint, tmp_path: Path) -> None:
    encoder = deepcopy(word_checkpoint.encoder)
    with torch.no_grad():
        encoder.encode_md[3] *= 1e6
    with pytest.raises(ValueError, match="encode_md .* smaller --learning-rate") as fault:
        save_checkpoint(
            tmp_path / "new", encoder, backbone=word_checkpoint.backbone,
            calibration=word_checkpoint.calibration, trained_on="words", settings={}, training={},
            names={},
        )  # fmt: skip
    assert "\n" not in str(fault.value)
    assert not list(tmp_path.iterdir())
