"""Test `sieve push`, and checkpoints and collections that are named by `hf://ORG/NAME`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Sieve, fault
from hub_server import HubServer
from tiny_evaluation import save_small_evaluation

import sieve as sieve_api
from sieve.data_prep.bundled import locate_collection
from sieve.data_prep.sources.local_images import draw_placeholder
from sieve.model.checkpoint import FILES, MEASUREMENTS, Checkpoint
from sieve.model.checkpoint_choice import checkpoint_path
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import read_measurements, save_measurements
from sieve.model.engine import SearchEngine

pytestmark = pytest.mark.usefixtures("hub")


def put_checkpoint(hub: HubServer, checkpoint: Checkpoint, name: str = "me/codes") -> str:
    files = {path.name: path.read_bytes() for path in checkpoint.path.iterdir()}
    return hub.commit("model", name, files)


def results(sieve: Sieve, collection: str | Path, checkpoint: str | Path) -> list:
    arguments = (collection, "a red circle", "--without", "snow", "--checkpoint", checkpoint)
    found = sieve("search", *arguments, "--json").data["results"]
    return [(one["id"], one["score"]) for one in found]


def test_pushed_artifacts_open_with_the_same_results(
    sieve: Sieve, tiny_collection: Collection, tiny_checkpoint: Checkpoint
) -> None:
    pushed = sieve("push", tiny_checkpoint.path, "me/codes", "--json")
    assert pushed.code == 0 and pushed.data["published"].startswith("hf://me/codes@")
    arguments = (tiny_collection.path, "me/photos", "--thumbnails", "--licence", "CC-BY-4.0")
    assert sieve("push", *arguments).code == 0
    expected = results(sieve, tiny_collection.path, tiny_checkpoint.path)
    assert results(sieve, "hf://me/photos", "hf://me/codes") == expected
    assert results(sieve, "hf://datasets/me/photos", pushed.data["published"]) == expected
    engine = sieve_api.Engine.open("hf://me/photos", "hf://me/codes", device="cpu")
    own = SearchEngine.open(tiny_collection.path, tiny_checkpoint.path, "cpu")
    first = engine.search("a red circle")[0]
    assert np.array_equal(np.asarray(first.thumbnail), _thumbnail(own, first.id))
    assert (engine.codes.matrix != own.image_codes.by_row).nnz == 0


def test_pushed_checkpoint_has_the_newest_measurements(
    sieve: Sieve, hub: HubServer, tiny_checkpoint: Checkpoint, home: Path
) -> None:
    sieve("push", tiny_checkpoint.path, "me/codes")
    assert set(hub.files("model", "me/codes")) - {"README.md"} == {*FILES} - {MEASUREMENTS}
    measured = np.linspace(0, 1, tiny_checkpoint.m).round(3)
    save_measurements(tiny_checkpoint, {"stability": measured})
    sieve("push", tiny_checkpoint.path, "me/codes")
    shutil.rmtree(home / "codes")
    opened = read_measurements(Checkpoint.load(checkpoint_path("hf://me/codes")))
    assert opened["stability"].tolist() == measured.tolist() and opened["own_fall"].isna().all()


def test_collection_of_the_hub_can_be_pushed_again_without_changing_the_cache(
    sieve: Sieve, hub: HubServer, tiny_collection: Collection
) -> None:
    sieve("push", tiny_collection.path, "me/photos", "--thumbnails", "--licence", "MIT")
    first = hub.files("dataset", "me/photos")
    cached = locate_collection("hf://me/photos")
    command = ("push", "hf://me/photos", "me/captions")
    assert "hf://me/photos may be either kind; add --kind" in fault(sieve(*command))
    assert sieve(*command, "--kind", "collection").code == 0
    assert (cached / "thumbnails.zip").read_bytes() == first["thumbnails.zip"]
    assert hub.files("dataset", "me/captions")["thumbnails.zip"] != first["thumbnails.zip"]


def _thumbnail(engine: SearchEngine, item_id: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(engine.thumbnail(item_id)).convert("RGB"))


def test_collection_is_published_without_images_and_local_paths(
    sieve: Sieve,
    hub: HubServer,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    pictures: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert sieve("push", tiny_collection.path, "me/photos").code == 0
    assert "images are not published, and captions are shown instead" in caplog.text
    files = hub.files("dataset", "me/photos")
    assert not [name for name, data in files.items() if str(pictures).encode() in data]
    table = pq.read_table(pa.BufferReader(files["items.parquet"]))
    assert table["image"][0].as_py() == "000.png"
    card = files["README.md"].decode()
    assert "none; captions are shown" in card and 'sieve explore "hf://me/photos"' in card
    engine = sieve_api.Engine.open("hf://me/photos", tiny_checkpoint.path, device="cpu")
    shown = engine.search(item=tiny_collection.items["id"][0])[0]
    drawn = draw_placeholder(shown.captions[0])
    assert np.abs(np.asarray(shown.thumbnail, int) - np.asarray(drawn, int)).mean() < 5
    asked = fault(sieve("push", tiny_collection.path, "me/photos", "--thumbnails"))
    assert "the licence of the images of tiny is not stated; give --licence" in asked


def test_card_states_metrics_backbone_and_licence(
    sieve: Sieve,
    hub: HubServer,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    home: Path,
) -> None:
    shutil.copytree(tiny_collection.path, home / "collections" / "tiny")
    save_small_evaluation(tiny_collection, "tiny", tiny_checkpoint.sha256)
    sieve("push", tiny_checkpoint.path, "me/codes", "--licence", "MIT", "--private")
    assert hub.private == {"me/codes"}
    card = hub.files("model", "me/codes")["README.md"].decode()
    training = json.loads((tiny_checkpoint.path / "training.json").read_text())
    recall = training["quality"]["codes"]["recall@10"]
    assert card.startswith("---\n") and "\nlicense: mit\n" in card
    assert f"| text-to-image recall@10 | {recall:.3f} |" in card
    assert re.search(r"\| label, 3 pairs of tiny \| 0\.633 \(0\.\d+ to 0\.\d+\) \|", card)
    assert tiny_checkpoint.backbone.sha256[:12] in card
    assert 'sieve explore COLLECTION --checkpoint "hf://me/codes"' in card


def test_revision_pins_a_version(
    sieve: Sieve, hub: HubServer, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    first = sieve("push", tiny_checkpoint.path, "me/codes", "--json").data["published"]
    changed = Path(shutil.copytree(tiny_checkpoint.path, tmp_path / "changed"))
    (changed / "training.json").unlink()
    sums = json.loads((changed / "checksums.json").read_text())
    del sums["training.json"]
    (changed / "checksums.json").write_text(json.dumps(sums))
    sieve("push", changed, "me/codes", "--revision", "next")
    assert "training.json" in hub.files("model", "me/codes")
    assert "training.json" not in hub.files("model", "me/codes", "next")
    opened = {name: checkpoint_path(name) for name in (first, "hf://me/codes@next")}
    assert [(path / "training.json").is_file() for path in opened.values()] == [True, False]


def test_interrupted_download_is_resumed(
    hub: HubServer,
    tiny_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_checkpoint(hub, tiny_checkpoint)
    hub.cut.add("weights.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    opened = Checkpoint.load(checkpoint_path("hf://me/codes"))
    assert opened.sha256 == tiny_checkpoint.sha256
    ranges = [given for _, path, given in hub.requests if path.endswith("weights.safetensors")]
    assert any(ranges)
    assert not list((tmp_path / "hub").rglob("*.incomplete"))


def test_damaged_download_is_removed_and_fetched_again(
    sieve: Sieve, hub: HubServer, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    put_checkpoint(hub, tiny_checkpoint)
    hub.changed.add("weights.safetensors")
    command = ("export", "hf://me/codes", "--format", "saelens", "--modality", "image")
    message = fault(sieve(*command, "--centred-input", "-o", tmp_path / "out"))
    assert "weights.safetensors of hf://me/codes arrived damaged" in message
    assert not (tmp_path / "out").exists()
    hub.changed.clear()
    assert sieve(*command, "--centred-input", "-o", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://me/none", "there is no model repository me/none at http"),
        ("hf://me/codes@v9", "hf://me/codes@v9 has no such revision"),
        ("hf://me/gated", "hf://me/gated is gated; accept its terms at http"),
        ("hf://me/private", "there is no model repository me/private at http"),
        ("hf://me/other", "hf://me/other has no names.json"),
        ("hf://me", "expected hf://ORG/NAME or hf://ORG/NAME@REVISION; got 'hf://me'"),
        ("hf://me/codes@../../x", "expected hf://ORG/NAME or hf://ORG/NAME@REVISION; got"),
    ],
)
def test_repository_that_cannot_be_opened_is_one_line(
    name: str,
    expected: str,
    sieve: Sieve,
    hub: HubServer,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_checkpoint(hub, tiny_checkpoint)
    for repository in ("me/gated", "me/private"):
        put_checkpoint(hub, tiny_checkpoint, repository)
    hub.gated.add("me/gated")
    hub.private.add("me/private")
    hub.commit("model", "me/other", {"model.py": b"print('hello')", "README.md": b"# other"})
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert expected in fault(sieve("info", tiny_collection.path, "--checkpoint", name))


def test_offline_mode_uses_the_cache(
    sieve: Sieve,
    hub: HubServer,
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_checkpoint(hub, tiny_checkpoint)
    command = ("info", tiny_collection.path, "--checkpoint", "hf://me/codes", "--json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = fault(sieve(*command))
    assert "hf://me/codes is not, or not completely, in the cache" in message
    assert "HF_HUB_OFFLINE forbids downloading" in message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    online = sieve(*command).data
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    n_requests = len(hub.requests)
    assert sieve(*command).data == online and len(hub.requests) == n_requests


def test_unreachable_hub_is_one_line(
    sieve: Sieve, tiny_collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = fault(sieve("info", tiny_collection.path, "--checkpoint", "hf://me/codes"))
    assert "hf://me/codes could not be transferred (" in message
    assert "check the connection to http://127.0.0.1:9 and run again" in message


def test_only_known_files_are_fetched(hub: HubServer, tiny_checkpoint: Checkpoint) -> None:
    files = {path.name: path.read_bytes() for path in tiny_checkpoint.path.iterdir()}
    more = {"modeling.py": b"raise SystemExit", "model.pkl": b"\x80", "x/config.json": b"{}"}
    hub.commit("model", "me/codes", files | more)
    folder = checkpoint_path("hf://me/codes")
    assert {path.name for path in folder.rglob("*")} == set(files) - {"README.md"}


def test_push_refuses_what_it_would_damage(
    sieve: Sieve, hub: HubServer, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"config.json": b"{}", "model.safetensors": b"weights"}
    hub.commit("model", "me/clip", before)
    message = fault(sieve("push", tiny_checkpoint.path, "me/clip"))
    assert "hf://me/clip has other contents (config.json, model.safetensors)" in message
    assert hub.files("model", "me/clip") == before
    asked = fault(sieve("push", "scenes", "me/scenes"))
    assert "scenes is a checkpoint and a collection; add --kind" in asked
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = fault(sieve("push", tiny_checkpoint.path, "me/codes"))
    assert "log in with `hf auth login`, or set HF_TOKEN" in message
    assert ("model", "me/codes") not in hub.branches


def test_second_push_replaces_the_first(
    sieve: Sieve, hub: HubServer, tiny_collection: Collection
) -> None:
    arguments = ("push", tiny_collection.path, "me/photos")
    sieve(*arguments, "--thumbnails", "--licence", "cc0-1.0")
    first = hub.files("dataset", "me/photos")["thumbnails.zip"]
    hub.commit("dataset", "me/photos", hub.files("dataset", "me/photos") | {"mine.png": b"x"})
    sieve(*arguments)
    files = hub.files("dataset", "me/photos")
    assert "mine.png" in files and files["thumbnails.zip"] != first
