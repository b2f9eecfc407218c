"""Test that queries are embedded with the weights of the collection or rejected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sieve.model.backbone.clip import Backbone, backbone_of
from sieve.model.collection import Collection
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import train


@pytest.fixture
def of_other_weights(tiny_collection: Collection) -> Collection:
    backbone = replace(tiny_collection.backbone, sha256="0" * 64)
    manifest = tiny_collection.manifest.model_copy(update={"backbone": backbone})
    return Collection(tiny_collection.path, manifest, tiny_collection.sha256)


def test_backbone_of_the_collection_is_loaded(
    tiny_collection: Collection, tiny_backbone: Backbone
) -> None:
    assert backbone_of(tiny_collection, "cpu").sha256 == tiny_backbone.sha256


def test_different_weights_of_the_same_name_are_rejected(of_other_weights: Collection) -> None:
    with pytest.raises(ValueError, match="has weights .* was prepared with 000000000000; prepare"):
        backbone_of(of_other_weights, "cpu")


def test_training_does_not_use_different_weights_for_words(
    of_other_weights: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainingConfig(m=32, k=4, epochs=1)
    train(of_other_weights, tmp_path / "made", config, device="cpu", progress=False)
    training = json.loads((tmp_path / "made" / "training.json").read_text())
    assert training["words_by"] == "captions of the train split"
    assert "has weights" in caplog.text
