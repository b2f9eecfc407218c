from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import QUICK, WordBackbone, write_word_collection
from distributed_run import SHORT, make_trainer, short_training

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.hyperparameters import TrainingConfig
from sieve.model.training.trainer import StepReport, train

pytestmark = pytest.mark.slow


def quality(checkpoint: Checkpoint) -> dict:
    return json.loads((checkpoint.path / "training.json").read_text())["quality"]


def test_trained_encoder_retrieves_as_well_as_its_backbone(word_checkpoint: Checkpoint) -> None:
    measured = quality(word_checkpoint)
    assert measured["codes"]["recall@10"] >= 0.9 * measured["backbone"]["recall@10"]
    assert measured["dimensions"]["live"] >= 0.95


def test_losses_decrease(word_checkpoint: Checkpoint) -> None:
    curves = json.loads((word_checkpoint.path / "training.json").read_text())["curves"]
    # Words are assigned during training, so the total has more terms at the end.
    for name in ("reconstruct", "presence", "narrow", "exclude"):
        assert curves[-1][name] < 0.9 * curves[0][name], name
    assigned = [curve["assign"] for curve in curves if curve["assign"] > 0]
    assert assigned[-1] < assigned[0]


def test_killed_training_resumes_exactly(
    word_collection: Collection,
    word_backbone: WordBackbone,
    word_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 19:
            raise KeyboardInterrupt

    settings = {"device": "cpu", "backbone": word_backbone, "progress": False}
    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        train(word_collection, out, QUICK, on_step=stop, **settings)
    assert not out.exists()
    seen: list[int] = []
    again = train(
        word_collection, out, QUICK, on_step=lambda report: seen.append(report.step), **settings
    )
    assert seen[0] == 20
    weights = "weights.safetensors"
    assert (again.path / weights).read_bytes() == (word_checkpoint.path / weights).read_bytes()
    assert not list(tmp_path.glob(".again*")), "the unfinished state is cleared away"


def test_another_seed_gives_other_weights(
    word_collection: Collection,
    word_backbone: WordBackbone,
    word_checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    other = train(
        word_collection,
        tmp_path / "other",
        replace(QUICK, seed=1),
        device="cpu",
        backbone=word_backbone,
        progress=False,
    )
    assert other.sha256 != word_checkpoint.sha256


def test_unfinished_training_with_other_settings_is_refused(
    word_collection: Collection, word_backbone: WordBackbone, tmp_path: Path
) -> None:
    def stop(_: StepReport) -> None:
        raise KeyboardInterrupt

    settings = {"device": "cpu", "backbone": word_backbone, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        train(word_collection, tmp_path / "c", QUICK, on_step=stop, **settings)
    with pytest.raises(ValueError, match="other settings"):
        train(word_collection, tmp_path / "c", replace(QUICK, seed=5), **settings)
    state = next(tmp_path.glob(".c.unfinished/*"))
    state.write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        train(word_collection, tmp_path / "c", QUICK, **settings)


def test_existing_checkpoint_is_not_overwritten(
    word_collection: Collection, word_backbone: WordBackbone, word_checkpoint: Checkpoint
) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        train(word_collection, word_checkpoint.path, QUICK, backbone=word_backbone)


def test_dense_control_is_no_checkpoint(
    word_collection: Collection, word_backbone: WordBackbone, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="activation must be topk or elu; got 'dense'"):
        train(
            word_collection, tmp_path / "c", replace(QUICK, activation="dense"),
            backbone=word_backbone,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_collection_without_captions_cannot_be_trained_on(
    word_backbone: WordBackbone, tmp_path: Path
) -> None:
    collection = Collection.open(write_word_collection(tmp_path / "words", n=20))
    collection.items["split"] = "test"
    with pytest.raises(ValueError, match="no captioned items in its train split"):
        train(collection, tmp_path / "out", QUICK, device="cpu", backbone=word_backbone)


def test_compiled_step_trains_the_same(word_collection: Collection) -> None:
    plain, compiled = (
        short_training(word_collection, SHORT, backend=backend) for backend in ("", "aot_eager")
    )
    assert plain.keys() == compiled.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected, rtol=1e-4, atol=1e-5)


def test_training_continues_without_compilation_if_it_fails(
    word_collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler here\nand a long story")

    trainer, plain = (make_trainer(word_collection, SHORT) for _ in range(2))
    trainer.compile(broken)
    for _ in range(2):
        assert trainer.train_step() == plain.train_step()
    (reported,) = [
        record.message for record in caplog.records if record.name == "sieve.model.training.trainer"
    ]
    assert "no compiler here" in reported
    assert "continuing in eager mode" in reported
    assert "\n" not in reported


def test_interrupted_step_is_not_saved(
    word_collection: Collection,
    word_backbone: WordBackbone,
    word_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def half(optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["params"][0].data += 1
        raise KeyboardInterrupt

    def stop(report: StepReport) -> None:
        if report.step == 19:
            monkeypatch.setattr(torch.optim.AdamW, "step", half)

    settings = {"device": "cpu", "backbone": word_backbone, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        train(word_collection, tmp_path / "a", QUICK, on_step=stop, save_every=0, **settings)
    monkeypatch.undo()
    again = train(word_collection, tmp_path / "a", QUICK, **settings)
    weights = "weights.safetensors"
    assert (again.path / weights).read_bytes() == (word_checkpoint.path / weights).read_bytes()


def test_device_noise_does_not_depend_on_the_rank(word_collection: Collection) -> None:
    data = make_trainer(word_collection, SHORT).data
    given = data.batch(3, noisy=False)
    assert given.images.dtype == torch.float16
    whole = data.device_noise(given.images, given.texts, 3, slice(None))
    share = slice(100, 200)
    part = data.device_noise(given.images[share], given.texts[share], 3, share)
    for all_rows, rows, clean in zip(whole, part, (given.images, given.texts), strict=True):
        torch.testing.assert_close(rows, all_rows[share], rtol=0, atol=0)
        length = (all_rows - clean.float()).norm(dim=1).mean()
        assert abs(length - SHORT.noise) < 0.02
    other = data.device_noise(given.images, given.texts, 4, slice(None))
    assert not torch.equal(other[0], whole[0])


@pytest.mark.parametrize(
    "bad", [{"k": 0}, {"k": 2000}, {"epochs": -1}, {"noise": -1}, {"presence": float("nan")}]
)
def test_invalid_settings_are_rejected(bad: dict) -> None:
    with pytest.raises(ValueError):
        TrainingConfig(**bad)
