"""Who embeds beside a collection does it with the weights that made it, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sieve.model.backbone import Backbone, backbone_of
from sieve.model.collection import Collection
from sieve.model.training.run import train


@pytest.fixture
def of_other_weights(tiny_collection: Collection) -> Collection:
    backbone = tiny_collection.manifest["backbone"] | {"sha256": "0" * 64}
    manifest = tiny_collection.manifest | {"backbone": backbone}
    return Collection(tiny_collection.path, manifest, tiny_collection.sha256)


def test_the_backbone_that_made_a_collection_is_opened(
    tiny_collection: Collection, tiny_backbone: Backbone
) -> None:
    assert backbone_of(tiny_collection, "cpu").sha256 == tiny_backbone.sha256


def test_other_weights_of_the_same_name_are_refused(of_other_weights: Collection) -> None:
    with pytest.raises(ValueError, match="has weights .* was made with 000000000000; prepare"):
        backbone_of(of_other_weights, "cpu")


def test_nothing_is_trained_with_other_weights(
    of_other_weights: Collection, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="prepare the collection again"):
        train(of_other_weights, tmp_path / "made", device="cpu", progress=False)
    assert not list(tmp_path.iterdir())
