"""Test data sets of the library `datasets`: of a local Hub, and on disk."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Sieve, fault
from hub_server import HubServer
from PIL import Image
from square_source import contents

from sieve.data_prep.records import Record
from sieve.data_prep.sources.hugging_face import HuggingFace
from sieve.explorer.cli import main
from sieve.model.collection import Collection

datasets = pytest.importorskip("datasets")
N_TRAIN, N_TEST = 9, 3


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache/downloads")
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def layouts(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same data set as `datasets` and its users store it."""
    root = tmp_path_factory.mktemp("hf")
    files = sorted((pictures / "images").iterdir())[: N_TRAIN + N_TEST]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.List(datasets.Value("string")),
            "label": datasets.ClassLabel(names=["odd", "even"]),
        }
    )
    rows = [
        {"image": str(file), "text": [f"thing {n}", f"object {n}"], "label": n % 2}
        for n, file in enumerate(files)
    ]
    whole = datasets.Dataset.from_list(rows, features=features)
    parts = {"train": range(N_TRAIN), "test": range(N_TRAIN, N_TRAIN + N_TEST)}
    splits = datasets.DatasetDict({name: whole.select(part) for name, part in parts.items()})
    splits.save_to_disk(root / "disk")
    (root / "parquet").mkdir()
    for name, part in datasets.load_from_disk(str(root / "disk")).items():
        part.to_parquet(root / "parquet" / f"{name}-00000-of-00001.parquet")
    for name, part in parts.items():
        folder = root / "folder" / name
        folder.mkdir(parents=True)
        lines = []
        for number in part:
            (folder / files[number].name).write_bytes(files[number].read_bytes())
            lines.append({"file_name": files[number].name, "text": rows[number]["text"]})
        text = "\n".join(map(json.dumps, lines))
        (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return {name: root / name for name in ("disk", "parquet", "folder")}


def prepare(sieve: Sieve, tiny_backbone_dir: Path, *arguments: str | Path) -> Collection:
    backbone = f"local-dir:{tiny_backbone_dir}"
    answer = sieve("prepare", "hf", *arguments, "--backbone", backbone, "--json")
    assert answer.code == 0, answer.err
    return Collection.open(answer.data["path"])


@pytest.mark.parametrize("layout", ["disk", "parquet", "folder"])
def test_local_data_set(
    layout: str, sieve: Sieve, layouts: dict[str, Path], tiny_backbone_dir: Path
) -> None:
    made = prepare(sieve, tiny_backbone_dir, layouts[layout])
    items = made.items
    assert items["split"].tolist() == ["train"] * N_TRAIN + ["test"] * N_TEST
    assert [list(texts) for texts in items["captions"]][:2] == [
        ["thing 0", "object 0"],
        ["thing 1", "object 1"],
    ]
    if layout != "folder":
        assert [list(labels) for labels in items["labels"]][:2] == [["odd"], ["even"]]
    assert (items["width"].iloc[0], items["height"].iloc[0]) == (48, 36)


@pytest.fixture
def hub_of_datasets(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    return hub


@pytest.mark.parametrize("layout", ["parquet", "folder"])
def test_data_set_of_the_hub(
    layout: str,
    sieve: Sieve,
    hub_of_datasets: HubServer,
    layouts: dict[str, Path],
    tiny_backbone_dir: Path,
) -> None:
    folder = layouts[layout]
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    first = hub_of_datasets.commit("dataset", "me/pictures", files)
    hub_of_datasets.commit("dataset", "me/pictures", {"README.md": b"empty"})
    arguments = (f"hf://me/pictures@{first}", "--split", "train[:5]")
    made = prepare(sieve, tiny_backbone_dir, *arguments)
    assert (made.name, made.n_items, made.n_captions) == ("pictures", 5, 10)
    assert (
        made.manifest.source == f"Hugging Face data set hf://me/pictures@{first}, split train[:5]"
    )


def test_killed_preparation_resumes_with_the_remaining_images(
    sieve: Sieve,
    layouts: dict[str, Path],
    tiny_backbone_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        """Handled by nothing, as SIGKILL."""

    monkeypatch.setattr("sieve.data_prep.pipeline.plan.CHUNK_ROWS", 4)
    backbone = ("--backbone", f"local-dir:{tiny_backbone_dir}", "--device", "cpu")
    command = ("prepare", "hf", layouts["parquet"], *backbone, "--out", tmp_path / "c")
    read, opened = HuggingFace.open_image, []

    def open_image(self: HuggingFace, record: Record, size: int) -> Image.Image:
        opened.append(record.key)
        if len(opened) == 6:
            raise Killed
        return read(self, record, size)

    monkeypatch.setattr(HuggingFace, "open_image", open_image)
    with pytest.raises(Killed):
        main([str(word) for word in command])
    assert not (tmp_path / "c").exists()
    assert sieve(*command).code == 0
    assert opened[6:] == [f"train/{n}" for n in range(4, 9)] + [f"test/{n}" for n in range(3)]
    assert sieve(*command[:-1], tmp_path / "whole" / "c").code == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "whole" / "c")
    assert not list(tmp_path.glob(".*"))


def test_columns_are_chosen_by_name(
    sieve: Sieve, layouts: dict[str, Path], tiny_backbone_dir: Path, tmp_path: Path
) -> None:
    whole = datasets.load_from_disk(str(layouts["disk"]))["train"]
    images = whole.cast_column("image", datasets.Image(decode=False))["image"][:]
    pair = {"left": images, "right": images, "words": whole["text"][:]}
    features = datasets.Features(
        left=datasets.Image(), right=datasets.Image(), words=whole.features["text"]
    )
    datasets.Dataset.from_dict(pair, features=features).save_to_disk(tmp_path / "pairs")
    message = fault(sieve("prepare", "hf", tmp_path / "pairs"))
    assert "pairs has several image columns; give --image-column, of left (Image), right" in message
    chosen = ("--image-column", "left", "--caption-column", "words")
    assert prepare(sieve, tiny_backbone_dir, tmp_path / "pairs", *chosen).n_captions == 2 * N_TRAIN
    wrong = ("--image-column", "words", "--out", tmp_path / "other")
    message = fault(sieve("prepare", "hf", tmp_path / "pairs", *wrong))
    assert "no image column 'words'" in message


def test_files_outside_a_data_set_are_not_read(
    sieve: Sieve, pictures: Path, tiny_backbone_dir: Path, tmp_path: Path
) -> None:
    own, other = tmp_path / "data", pictures / "images" / "000.png"
    images = [
        {"bytes": None, "path": str(other)},
        {"bytes": other.read_bytes(), "path": str(other)},
    ]
    own.mkdir()
    pq.write_table(pa.table({"image": images}), own / "a.parquet")
    made = prepare(sieve, tiny_backbone_dir, own, "--keep-going")
    assert made.n_items == 1
    assert "leaves the folder" in (made.path / "skipped.csv").read_text()


def test_unreachable_hub_is_one_line(
    sieve: Sieve,
    hub_of_datasets: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with socket.socket() as closed:  # bound, but it accepts no connections
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
        message = fault(sieve("prepare", "hf", "me/photos"))
    assert "data set hf://me/photos cannot be loaded" in message and "connection" in message
    assert not hub_of_datasets.requests
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]


def test_data_set_that_cannot_be_used_is_one_line(
    sieve: Sieve,
    hub_of_datasets: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = tmp_path / "ran"
    script = f"open({str(ran)!r}, 'w')".encode()
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_bytes(script)
    hub_of_datasets.commit("dataset", "me/script", {"script.py": script})
    for name in (tmp_path / "script", "me/script"):
        assert "Dataset scripts are no longer supported" in fault(sieve("prepare", "hf", name))
    assert not ran.exists()
    assert "data set hf://me/none cannot be loaded" in fault(sieve("prepare", "hf", "me/none"))
    text = tmp_path / "texts"
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(text)
    assert f"{text} has no image column; its columns are text (Value)" in fault(
        sieve("prepare", "hf", text)
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    missing = fault(sieve("prepare", "hf", text))
    assert 'install it with `pip install "sieve-explorer[hf]"`' in missing
