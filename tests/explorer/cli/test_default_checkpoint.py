"""Test how checkpoint names resolve, and the default checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from command_line import Sieve, fault
from safetensors.torch import save_file

from sieve import Engine
from sieve.explorer.app import Server
from sieve.explorer.tabs.search import SearchHandlers
from sieve.explorer.tabs.train import TrainHandlers
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import explain_choice, find_checkpoint
from sieve.model.collection import Collection
from sieve.model.engine import SearchEngine
from sieve.model.files import write_checksums

D, M = 32, 64


def save_checkpoint(
    checkpoint: Checkpoint,
    home: Path,
    name: str,
    *,
    steps: int,
    newer: int,
    recall: float | None = None,
) -> Path:
    """Save a copy of a checkpoint by name, with the given number of training steps.

    `recall` is its recall@10 on validation items, where the backbone's is 0.5.
    """
    folder = Path(shutil.copytree(checkpoint.path, home / "checkpoints" / name))
    training = json.loads((folder / "training.json").read_text())
    training["curves"][-1]["step"] = steps
    if recall is not None:
        training["quality"] |= {"codes": {"recall@10": recall}, "backbone": {"recall@10": 0.5}}
    (folder / "training.json").write_text(json.dumps(training))
    write_checksums(
        folder, (part.name for part in folder.iterdir() if part.name != "checksums.json")
    )
    os.utime(folder / "config.json", (newer, newer))
    return folder


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the small width of test checkpoints, so that only their steps count."""
    monkeypatch.setattr("sieve.model.checkpoint_choice.QUICK_DIMENSIONS", 1)


@pytest.mark.usefixtures("wide")
def test_quick_training_is_not_the_default(
    home: Path, tiny_collection: Collection, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    quick = save_checkpoint(tiny_checkpoint, home, "tiny", steps=20, newer=2)
    assert find_checkpoint(tiny_collection) == quick
    assert explain_choice(tiny_collection, quick) == (
        "tiny had only a quick training (20 steps); train a longer one with `sieve train`.",
        "",
    )
    full = save_checkpoint(tiny_checkpoint, home, "tiny-full", steps=400, newer=1)
    assert find_checkpoint(tiny_collection) == full
    choice = explain_choice(tiny_collection, full)
    reason = "tiny-full is open, because tiny had only a quick training (20 steps)."
    assert choice == (reason, "tiny")
    assert str(choice) == f"{reason} Open tiny with --checkpoint tiny."
    about = SearchHandlers(SearchEngine.open(tiny_collection.path), tmp_path).about()
    assert about["checkpoint_choice"] == choice._asdict()
    for_strangers = SearchHandlers(SearchEngine.open(tiny_collection.path), tmp_path, public=True)
    assert not any(for_strangers.about()["checkpoint_choice"].values())
    assert explain_choice(tiny_collection, quick) == (
        "tiny had only a quick training (20 steps); tiny-full is better.",
        "tiny-full",
    )
    handlers = TrainHandlers(tiny_collection, full, "cpu")
    handlers.checkpoint_open("tiny")
    assert handlers.wanted() == quick
    with pytest.raises(ValueError, match="checkpoint must be one of tiny, tiny-full"):
        handlers.checkpoint_open("../tiny")


@pytest.mark.usefixtures("wide")
def test_nothing_is_reported_for_the_expected_checkpoint(
    home: Path, tiny_collection: Collection, tiny_checkpoint: Checkpoint
) -> None:
    older = save_checkpoint(tiny_checkpoint, home, "tiny", steps=400, newer=1)
    newest = save_checkpoint(tiny_checkpoint, home, "tiny-2", steps=300, newer=2)
    assert find_checkpoint(tiny_collection) == newest
    assert {explain_choice(tiny_collection, one) for one in (newest, older)} == {("", "")}


@pytest.mark.usefixtures("wide")
def test_checkpoint_with_lower_validation_recall_is_not_the_default(
    home: Path,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    sieve: Sieve,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = save_checkpoint(tiny_checkpoint, home, "good", steps=400, newer=1, recall=0.45)
    weak = save_checkpoint(tiny_checkpoint, home, "weak", steps=400, newer=2, recall=0.1)
    assert find_checkpoint(tiny_collection) == good
    reason = "because weak has a lower validation recall (0.20 < 0.90 of the backbone's)."
    line = f"good is open, {reason} Open weak with --checkpoint weak."
    assert str(explain_choice(tiny_collection, good)) == line
    assert str(explain_choice(tiny_collection, weak)).endswith(
        "; good is better. Open good with --checkpoint good."
    )
    Engine.open(tiny_collection.path, device="cpu")
    assert caplog.messages == [line]
    Engine.open(tiny_collection.path, "weak", device="cpu")
    assert caplog.messages == [line]  # it was asked for
    assert sieve("search", tiny_collection.path, "red", "--json").data["results"]
    assert caplog.messages == [line, line]
    almost = save_checkpoint(tiny_checkpoint, home, "almost", steps=400, newer=3, recall=0.43)
    assert find_checkpoint(tiny_collection) == almost


def test_few_dimensions_count_as_quick(
    home: Path, tiny_collection: Collection, tiny_checkpoint: Checkpoint
) -> None:
    narrow = save_checkpoint(tiny_checkpoint, home, "narrow", steps=1000, newer=1)
    assert f"({tiny_checkpoint.m} dimensions)" in explain_choice(tiny_collection, narrow).reason


@pytest.mark.usefixtures("wide")
def test_train_reports_that_a_quick_checkpoint_is_not_the_default(
    sieve: Sieve,
    home: Path,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    quick = ("train", tiny_collection.path, "--m", "16", "--k", "4", "--epochs", "1")
    assert sieve(*quick).code == 0
    assert "by default" not in caplog.text
    full = save_checkpoint(tiny_checkpoint, home, "full", steps=400, newer=1)
    assert sieve(*quick).code == 0
    assert "is not opened by default; open it with --checkpoint tiny-2" in caplog.text
    assert find_checkpoint(tiny_collection) == full


@pytest.mark.usefixtures("wide")
def test_explore_reports_which_checkpoint_is_open(
    sieve: Sieve,
    home: Path,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_checkpoint(tiny_checkpoint, home, "trial", steps=20, newer=2)
    save_checkpoint(tiny_checkpoint, home, "full", steps=400, newer=1)

    def stop(_: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "switch_checkpoint", stop)
    lines = sieve("explore", tiny_collection.path, "--port", "8231").out.splitlines()
    assert lines[0].startswith("Sieve is at http://127.0.0.1:")
    assert lines[1].startswith("full is open, because trial had only a quick training (20 steps)")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_image_folder_does_not_hide_a_checkpoint(
    sieve: Sieve, home: Path, tiny_collection: Collection, tiny_checkpoint: Checkpoint, here: Path
) -> None:
    mine = save_checkpoint(tiny_checkpoint, home, "mine", steps=400, newer=1)
    for name in ("mine", "photos", "notes"):
        (here / name).mkdir()
        (here / name / "dog.jpg").write_bytes(b"")
    info = sieve("info", tiny_collection.path, "--checkpoint", "mine", "--json").data
    assert info["checkpoint"] == str(mine)
    # The bundled checkpoint is found and then rejected for its backbone.
    assert "assets/checkpoints/photos reads backbone sieve-lite" in fault(
        sieve("info", tiny_collection.path, "--checkpoint", "photos")
    )
    assert "notes is not a complete checkpoint (no config.json)" in fault(
        sieve("info", tiny_collection.path, "--checkpoint", "notes")
    )
    shutil.copytree(tiny_checkpoint.path, here / "full")
    shutil.copytree(tiny_checkpoint.path, home / "checkpoints" / "full")
    info = sieve("info", tiny_collection.path, "--checkpoint", "full", "--json").data
    assert (
        info["checkpoint"] == "full"
    )  # the path of a checkpoint takes precedence over a saved name


def test_image_folder_does_not_hide_a_collection(
    sieve: Sieve, home: Path, opened: tuple, here: Path
) -> None:
    shutil.copytree(opened[0], home / "collections" / "pets")
    (here / "pets").mkdir()
    info = sieve("info", "pets", *opened[1:], "--json").data
    assert info["path"] == str(home / "collections" / "pets")


def external(tool: str, folder: Path) -> Path:
    """Write an SAE as a tool saves it; returns the path for --checkpoint."""
    folder.mkdir(parents=True)
    weights = torch.zeros(D, M)
    pair = {"W_enc": weights, "b_enc": torch.zeros(M)}
    if tool == "SAELens":
        save_file(pair, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps({"d_in": D, "d_sae": M}))
    elif tool == "sparsify":
        save_file(pair, folder / "sae.safetensors")
        (folder / "cfg.json").write_text(json.dumps({"num_latents": M, "k": 8, "d_in": D}))
    elif tool == "overcomplete":
        torch.save({"dictionary._weights": weights}, folder / "sae.pth")
    elif tool == "openai/sparse_autoencoder":
        torch.save({"latent_bias": pair["b_enc"], "encoder.weight": weights}, folder / "8.pt")
        return folder / "8.pt"
    else:
        torch.save(pair, folder / "ae.pt")
        config = {"trainer": {"activation_dim": D, "dict_size": M}}
        (folder / "config.json").write_text(json.dumps(config))
    return folder


TOOLS = (
    "SAELens", "sparsify", "overcomplete", "openai/sparse_autoencoder", "dictionary_learning",
)  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_external_sae_error_names_the_command_that_imports_it(
    sieve: Sieve, tiny_collection: Collection, tmp_path: Path, tool: str
) -> None:
    given = external(tool, tmp_path / "layers.3" / "sae")
    imported = tool in ("SAELens", "sparsify", "overcomplete")
    remedy = ("sieve import-encoder",) if imported else ("image_codes.npz", "sieve prepare codes")
    wanted = (f"a sparse autoencoder of {tool}", *remedy)
    for path in (given, tmp_path):  # also as a snapshot of the Hub, inside other folders
        line = fault(sieve("search", tiny_collection.path, "red", "--checkpoint", path))
        assert all(part in line for part in wanted), line
    if tool in ("SAELens", "sparsify"):
        assert "sieve import-encoder" in fault(sieve("explore", given))
    line = fault(sieve("prepare", "codes", given if given.is_dir() else given.parent))
    assert all(part in line for part in wanted), line


def test_pickled_code_is_not_executed(
    sieve: Sieve, tiny_collection: Collection, tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "sae").mkdir()
    torch.save({"dictionary._weights": Evil()}, tmp_path / "sae" / "sae.pt")
    line = fault(sieve("info", tiny_collection.path, "--checkpoint", tmp_path / "sae"))
    assert "overcomplete" in line
    assert not (tmp_path / "ran").exists()
