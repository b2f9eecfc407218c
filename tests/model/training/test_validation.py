"""Test validation: its results, its frequency, and that it does not change training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import QUICK, WordBackbone

from sieve.model.checkpoint import Checkpoint
from sieve.model.codes import encode_codes
from sieve.model.collection import Collection
from sieve.model.evaluation.metrics import recall_at
from sieve.model.hyperparameters import IMAGE, PAPER, TEXT, TrainingConfig
from sieve.model.training.trainer import StepReport, train
from sieve.model.training.validation import (
    SHARE,
    ValidationReport,
    ValidationSchedule,
    Validator,
    validation_refusal,
)


class Clock:
    """A clock that is advanced by tests."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate at every step."""
    monkeypatch.setattr(
        "sieve.model.training.trainer.ValidationSchedule",
        lambda: ValidationSchedule(lambda: 0.0),
    )


def test_validation_measures_recall_of_the_codes(
    large_word_collection: Collection, word_checkpoint: Checkpoint
) -> None:
    found = Validator(large_word_collection, WordBackbone().encode_texts).measure(
        word_checkpoint.encoder, 7
    )
    rows = large_word_collection.rows_of_split(["select"])
    captions = large_word_collection.captions_of_rows(rows)
    images, texts = (
        encode_codes(word_checkpoint.encoder, embeddings, modality).by_row
        for embeddings, modality in (
            (large_word_collection.image_embeddings[rows], IMAGE),
            (large_word_collection.text_embeddings[captions], TEXT),
        )
    )
    item = large_word_collection.item_positions(rows, captions)
    expected = recall_at((texts @ images.T).toarray(), item)["recall@10"]
    assert (found.step, found.recall) == (7, pytest.approx(expected))
    assert found.exclusion is not None and 0.3 < found.exclusion <= 1


def test_validation_recall_improves_and_training_is_unchanged(
    word_collection: Collection,
    word_backbone: WordBackbone,
    word_checkpoint: Checkpoint,
    tmp_path: Path,
    always: None,  # noqa: ARG001
) -> None:
    found: list[ValidationReport] = []
    steps: list[int] = []

    def on_step(report: StepReport) -> None:
        steps.append(report.step)
        if found:
            assert found[-1].step <= report.step  # validation is reported before its step

    made = train(
        word_collection, tmp_path / "probed", QUICK, device="cpu", backbone=word_backbone,
        progress=False, on_step=on_step, on_validation=found.append,
    )  # fmt: skip
    weights = "weights.safetensors"
    assert (made.path / weights).read_bytes() == (word_checkpoint.path / weights).read_bytes()
    places = [report.step for report in found]
    least = SHARE * len(steps)
    assert len(places) > 5 and min(map(int.__sub__, places[1:], places)) >= least
    assert found[-1].recall >= found[0].recall
    quality = json.loads((made.path / "training.json").read_text())["quality"]
    assert found[-1].recall == pytest.approx(quality["codes"]["recall@10"], abs=0.05)


def test_validation_is_limited_to_its_share_of_the_time() -> None:
    clock = Clock()
    schedule = ValidationSchedule(clock)
    with schedule.timed():
        clock.now += 2
    probes, spent = [], 2.0
    for step in range(1, 1001):
        clock.now += 0.5
        if schedule.due(step, 1000):
            probes.append(step)
            with schedule.timed(step):
                clock.now += 1.5
            spent += 1.5
        # The cost of the first validation is unknown; the others wait for their share of the time.
        assert len(probes) < 2 or spent <= SHARE * clock.now + 0.1
    assert probes[0] >= 50 and len(probes) > 10
    assert min(b - a for a, b in zip(probes, probes[1:], strict=False)) >= 50


def test_slow_validation_is_skipped() -> None:
    clock = Clock()
    schedule = ValidationSchedule(clock)
    with schedule.timed():
        clock.now += 60
    for step in range(1, 101):
        clock.now += 0.01
        assert not schedule.due(step, 100)


def test_missing_validation_items_are_reported(
    word_collection: Collection,
    word_backbone: WordBackbone,
    tmp_path: Path,
    always: None,  # noqa: ARG001
) -> None:
    bare = Collection(word_collection.path, word_collection.manifest, word_collection.sha256)
    bare.__dict__["items"] = word_collection.items.assign(split="train")
    assert "select split" in validation_refusal(bare) and not validation_refusal(word_collection)
    found: list[ValidationReport] = []
    config = replace(QUICK, epochs=1)
    train(
        bare, tmp_path / "bare", config, device="cpu", backbone=word_backbone, progress=False,
        on_validation=found.append,
    )  # fmt: skip
    assert not found


@pytest.mark.parametrize("config", [replace(PAPER, m=32, k=8, batch_size=256, epochs=6)])
def test_snapshot_is_exported_like_the_final_encoder(
    word_collection: Collection,
    word_backbone: WordBackbone,
    tmp_path: Path,
    config: TrainingConfig,
    always: None,  # noqa: ARG001
) -> None:
    settings = {"device": "cpu", "backbone": word_backbone, "progress": False}
    found: list[ValidationReport] = []
    probed = train(word_collection, tmp_path / "a", config, on_validation=found.append, **settings)
    plain = train(word_collection, tmp_path / "b", config, **settings)
    assert probed.sha256 == plain.sha256
    quality = json.loads((probed.path / "training.json").read_text())["quality"]
    assert found[-1].recall == pytest.approx(quality["codes"]["recall@10"], abs=0.1)
