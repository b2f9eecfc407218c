"""Test `sieve prepare`, `merge`, `add` and `train`, whose outputs are found by name."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from command_line import Sieve, fault
from tiny_blip import tiny_blip

from sieve.explorer.cli.experiments import Train
from sieve.model.collection import Collection
from sieve.model.hyperparameters import PRESETS
from sieve.model.training.validation import ValidationSchedule


def test_prepare_works_with_blip(sieve: Sieve, pictures: Path, tmp_path: Path) -> None:
    backbone = f"blip:{os.path.relpath(tiny_blip(tmp_path / 'model'))}"
    out = tmp_path / "by-blip"
    made = sieve(
        "prepare", "folder", pictures / "images", "--captions", pictures / "captions.csv",
        "--backbone", backbone, "--out", out, "--device", "cpu", "--json",
    ).data  # fmt: skip
    assert (made["items"], made["captions"]) == (60, 120)
    assert made["backbone"] == f"blip:{tmp_path / 'model'}"
    assert "no folder at" in fault(
        sieve("prepare", "folder", pictures / "images", "--backbone", "blip:./no", "--out", "x")
    )


def test_prepare_and_train_work(
    sieve: Sieve, pictures: Path, tiny_backbone_dir: Path, tmp_path: Path, home: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(pictures / "images", images)
    (images / "torn.png").write_bytes((images / "000.png").read_bytes()[:60])
    backbone = f"local-dir:{os.path.relpath(tiny_backbone_dir)}"
    out = tmp_path / "mine"
    made = sieve(
        "prepare", "folder", images, "--captions", pictures / "captions.csv",
        "--backbone", backbone, "--licence", "CC0", "--out", out, "--json",
    ).data  # fmt: skip
    assert (made["name"], made["items"], made["captions"], made["skipped"]) == ("mine", 60, 120, 1)
    assert (made["licence"], made["path"]) == ("CC0", str(out))
    assert made["backbone"] == f"local-dir:{tiny_backbone_dir}"
    skipped = list(csv.DictReader((out / "skipped.csv").open()))
    assert [row["key"] for row in skipped] == ["torn.png"]

    trained = sieve("train", out, "--m", "32", "--k", "4", "--epochs", "1", "--json").data
    assert Path(trained["checkpoint"]) == home / "checkpoints" / "mine"
    assert (trained["trained_on"], trained["items"]) == ("mine", 36)
    assert sieve("search", out, "a circle", "--json").data["results"]
    again = sieve("train", out, "--m", "32", "--k", "4", "--epochs", "1", "--json").data
    assert Path(again["checkpoint"]).name == "mine-2"
    assert sieve("info", out, "--checkpoint", "mine", "--json").data["dimensions"] == 32
    assert "k must be" in fault(sieve("train", out, "--m", "8", "--k", "9"))


SHORT = ("--m", "32", "--k", "4", "--epochs", "20", "--batch", "12")


def test_training_is_logged_for_tensorboard(
    sieve: Sieve,
    tiny_collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    # Otherwise a slow validation is put off, until after such a short training.
    monkeypatch.setattr(ValidationSchedule, "due", lambda *_: True)
    out = tmp_path / "codes"
    trained = sieve("train", tiny_collection.path, "--out", out, *SHORT, "--log", "tensorboard")
    assert trained.code == 0 and "tensorboard --logdir runs" in caplog.text
    events = EventAccumulator(str(tmp_path / "runs" / "codes")).Reload()
    logged = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    assert {"train/total", "train/live dimensions", "validation/recall@10"} <= set(logged)
    curves = json.loads((out / "training.json").read_text())["curves"]
    assert logged["train/total"][-1].step == curves[-1]["step"]
    assert logged["train/total"][-1].value == pytest.approx(curves[-1]["total"], rel=1e-5)
    assert all(0 <= each.value <= 1 for each in logged["validation/recall@10"])


def test_log_that_cannot_be_written_is_one_line(
    sieve: Sieve,
    tiny_collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "codes"
    command = ("train", tiny_collection.path, "--out", out, *SHORT, "--log")
    for tool, package in (("wandb", "wandb"), ("tensorboard", '"sieve-explorer[log]"')):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, tool, None)
            message = fault(sieve(*command, tool))
        assert message == f"--log {tool} needs a package: pip install {package}"
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    assert "runs" in fault(sieve(*command, "tensorboard"))
    assert not out.exists()


def test_training_is_logged_for_weights_and_biases(
    sieve: Sieve,
    tiny_collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    ended: list[bool] = []

    def init(**settings: object) -> SimpleNamespace:
        assert settings["project"] == "sieve" and settings["name"] == "codes"
        return SimpleNamespace(
            log=lambda values, step: logged.append((values, step)),
            finish=lambda: ended.append(True),
        )

    wandb = ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    wandb.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    out = tmp_path / "codes"
    monkeypatch.setattr(ValidationSchedule, "due", lambda *_: True)
    assert sieve("train", tiny_collection.path, "--out", out, *SHORT, "--log", "wandb").code == 0
    names = {name for values, _ in logged for name in values}
    assert {"train/total", "validation/recall@10"} <= names and ended == [True]
    steps = [step for _, step in logged]
    assert steps == sorted(steps)  # Weights & Biases drops earlier steps


def test_presets_equal_the_configuration() -> None:
    assert set(get_args(get_type_hints(Train)["preset"])) == set(PRESETS)


def test_shards_and_added_items_work(
    sieve: Sieve, pictures: Path, tiny_backbone_dir: Path, home: Path, tmp_path: Path
) -> None:
    images, captions = pictures / "images", pictures / "captions.csv"
    backbone = ("--backbone", f"local-dir:{tiny_backbone_dir}", "--device", "cpu")
    prepare = ("prepare", "folder", images, "--captions", captions, *backbone)
    output = sieve(*prepare, "--shard", "1/2", "--out", tmp_path / "1")
    assert "This is part 1/2: merge all with `sieve merge PART… --out COLLECTION`" in output.out
    assert fault(sieve("merge", tmp_path / "1", "--out", tmp_path / "c")).startswith(
        "shards are missing: 2/2"
    )
    assert sieve(*prepare, "--shard", "2/2", "--out", tmp_path / "2").code == 0
    (home / "collections").mkdir(parents=True)
    (tmp_path / "2").rename(home / "collections" / "second")  # by name instead of path
    merged = sieve("merge", "second", tmp_path / "1", "--out", tmp_path / "c", "--json").data
    assert (merged["items"], merged["captions"]) == (60, 120)
    assert sieve(*prepare, "--shard", "3/2", "--out", tmp_path / "3").code == 2
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(images / "003.png", more / "new.png")
    added = sieve("add", tmp_path / "c", more, "--device", "cpu")
    assert (added.code, added.err) == (0, "")
    assert f"61 items, 120 captions in {home}/collections/c-2; " in added.out
    with (home / "collections" / "c-2" / "duplicates.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    assert (Path(last["image"]), Path(last["duplicate_of_image"]), last["kind"]) == (
        *(more / "new.png", images / "003.png"),
        "same",
    )
    assert fault(sieve("add", tmp_path / "c", images)).endswith(f"{tmp_path}/c already")
    assert "pass the collection's --backbone" in fault(
        sieve("add", tmp_path / "c", more, "--out", tmp_path / "d", "--backbone", "sieve-lite")
    )
