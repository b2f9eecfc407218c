"""Test untrusted collections, checkpoints and backbones: rejected with one line, no code runs."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_word_collection
from corruption import PicklePayload, put_file, reseal

from sieve.model.backbone.clip import Backbone
from sieve.model.checkpoint import CONFIG, NAMES, TRAINING, WEIGHTS, Checkpoint
from sieve.model.collection import (
    CAPTION_ITEM,
    IMAGE_EMBEDDINGS,
    ITEMS,
    MANIFEST,
    BackboneIdentity,
    Collection,
)

N = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_word_collection(tmp_path / "words", n=N)


@pytest.fixture
def copy(word_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(word_checkpoint.path, tmp_path / "checkpoint"))


def refusal(act: Any) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        act()
    line = str(raised.value)
    assert "\n" not in line and len(line) < 600
    return line


LISTS, TEXTS, WHOLE = pa.list_(pa.string()), pa.string(), pa.int64()
COLUMNS = {
    "ids-as-numbers": ("id", pa.array(range(N))),
    "ids-that-climb": ("id", pa.array([f"../../../../tmp/{n}" for n in range(N)])),
    "ids-of-another-machine": ("id", pa.array([rf"\\evil\share\{n}" for n in range(N)])),
    "ids-with-markup": ("id", pa.array([f"<script>{n:08}" for n in range(N)])),
    "ids-with-a-line-end": ("id", pa.array([f"{n:016x}\n" for n in range(N)])),
    "no-ids": ("id", pa.nulls(N, TEXTS)),
    "captions-of-numbers": ("captions", pa.array([[1, 2]] * N)),
    "captions-as-one-text": ("captions", pa.array(["a dog"] * N)),
    "no-captions": ("captions", pa.nulls(N, LISTS)),
    "gaps-in-captions": ("captions", pa.array([[None, "a"]] * N, LISTS)),
    "nested-captions": ("captions", pa.array([[["a"]]] * N)),
    "labels-as-objects": ("labels", pa.array([{"__proto__": 1}] * N)),
    "image-as-bytes": ("image", pa.array([b"\xff"] * N)),
    "split-as-numbers": ("split", pa.array([1] * N)),
    "width-as-text": ("width", pa.array(["x"] * N)),
    "width-nan": ("width", pa.array([float("nan")] * N)),
    "width-below-nothing": ("width", pa.array([-1] * N)),
    "no-height": ("height", pa.nulls(N, WHOLE)),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_invalid_columns_are_rejected(folder: Path, tmp_path: Path, case: str) -> None:
    name, column = COLUMNS[case]
    table = pq.read_table(folder / ITEMS)
    table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, tmp_path / "changed.parquet")
    put_file(folder, ITEMS, (tmp_path / "changed.parquet").read_bytes())
    line = refusal(lambda: Collection.open(folder).items)
    assert ITEMS in line and (f"column {name}" in line or "16 hex digits" in line)


def test_table_with_too_many_rows_is_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(folder / ITEMS)
    pq.write_table(pa.concat_tables([table] * 50), tmp_path / "many.parquet")
    put_file(folder, ITEMS, (tmp_path / "many.parquet").read_bytes())
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_: pytest.fail("it was read"))
    assert "it has 1000 rows" in refusal(lambda: Collection.open(folder).items)


@pytest.mark.parametrize("data", [b"", b"PAR1" + bytes(200) + b"PAR1", pickle.dumps([1])])
def test_other_files_as_table_are_rejected(folder: Path, data: bytes) -> None:
    put_file(folder, ITEMS, data)
    assert ITEMS in refusal(lambda: Collection.open(folder).items)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": {"name": r"local-dir:\\evil\share", "sha256": "", "d": 48}},
        {"backbone": {"name": "local-dir://evil/share", "sha256": "", "d": 48}},
        {"backbone": {"name": "ViT-B-32///evil/share/weights.pt", "sha256": "", "d": 48}},
        {"backbone": {"name": ["x"], "sha256": "", "d": 48}},
        {"backbone": {"name": "x", "sha256": "", "d": float("inf")}},
        {"files": {"/etc/passwd": {"bytes": 1}}},
        {"files": {r"..\..\x": {"bytes": 1}}},
        {"files": {"__proto__": {"bytes": 1}}},
        {"files": []},
        {"schema_version": float("nan")},
    ],
    ids=str,
)
def test_invalid_manifest_is_rejected(folder: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | change))
    reseal(folder)
    refusal(lambda: Collection.open(folder))


@pytest.mark.parametrize("name", ["../outside", "{folder}/../outside", "./items.parquet"])
def test_files_outside_the_collection_are_not_read(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes((folder / ITEMS).read_bytes())
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name.format(folder=folder)] = manifest["files"][ITEMS]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    reseal(folder)
    assert "is missing" in refusal(lambda: Collection.open(folder))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_deeply_nested_json_is_rejected(folder: Path, copy: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    reseal(folder)
    assert "damaged" in refusal(lambda: Collection.open(folder))
    for part in (CONFIG, NAMES):
        (copy / part).write_text(text)
        reseal(copy)
        assert "damaged" in refusal(lambda: Checkpoint.load(copy))


@pytest.mark.parametrize("name", [IMAGE_EMBEDDINGS, CAPTION_ITEM])
def test_arrays_are_not_unpickled(folder: Path, tmp_path: Path, name: str) -> None:
    archive = io.BytesIO()
    np.savez(archive, np.zeros((3, 4), np.float16))
    trace = PicklePayload(tmp_path / "trace")
    others = (b"PK\x03\x04" + b"\0" * 90, archive.getvalue())
    for data in (pickle.dumps(trace), _object_array(tmp_path / "trace"), *others):
        put_file(folder, name, data)
        opened = Collection.open(folder)
        refusal(lambda o=opened: o.caption_item if name == CAPTION_ITEM else o.image_embeddings)
    assert not (tmp_path / "trace").exists()


def _object_array(trace: Path) -> bytes:
    path = trace.with_name("objects.npy")
    np.save(path, np.array([PicklePayload(trace)], dtype=object), allow_pickle=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    "shape", [{"m": 10**9, "k": 1}, {"d": 10**12}, {"m": 63}, {"m": 1e400}, {"m": "64"}], ids=str
)
def test_no_memory_is_allocated_for_missing_weights(
    copy: Path, shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((copy / CONFIG).read_text())
    config["encoder"] |= shape
    (copy / CONFIG).write_text(json.dumps(config))
    reseal(copy)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: pytest.fail("memory was taken"))
    refusal(lambda: Checkpoint.load(copy))


@pytest.mark.parametrize(
    "data",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"[" * 100,
        (60).to_bytes(8, "little")
        + b'{"encode_md":{"dtype":"F32","shape":[64,48],"data_offsets":[0,'.ljust(60),
    ],
)
def test_weights_with_an_invalid_header_are_rejected(copy: Path, data: bytes) -> None:
    (copy / WEIGHTS).write_bytes(data)
    reseal(copy)
    assert "damaged" in refusal(lambda: Checkpoint.load(copy))


def test_pickle_instead_of_weights_is_not_loaded(copy: Path, tmp_path: Path) -> None:
    (copy / WEIGHTS).write_bytes(pickle.dumps(PicklePayload(tmp_path / "trace")))
    reseal(copy)
    refusal(lambda: Checkpoint.load(copy))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth", "model.pt"])
def test_backbone_folder_runs_no_code(tiny_backbone_dir: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_backbone_dir, tmp_path / "evil"))
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": PicklePayload(tmp_path / "trace")}, folder / name)
    refusal(lambda: Backbone.load(f"local-dir:{folder}", "cpu"))
    assert not (tmp_path / "trace").exists()


def test_backbone_on_another_machine_is_rejected() -> None:
    for name in (
        *(r"\\evil\share", r"\/evil/share", r"/\evil\share"),
        *(r"local-dir:\\evil\share", "local-dir://evil/a", r"local-dir:\/evil/a", "blip://evil/a"),
        *("ViT-B-32///evil/share/weights.pt", r"ViT-B-32/\\evil\share\weights.pt"),
    ):
        assert "another machine" in refusal(lambda n=name: BackboneIdentity(n, "", 1))
    for name in ("local-dir:/models/a", r"local-dir:C:\models\a", "ViT-B-32//models/weights.pt"):
        assert BackboneIdentity(name, "", 1).name


def test_nested_training_metadata_is_rejected(copy: Path) -> None:
    (copy / TRAINING).write_text('{"items":' + "[" * 100_000)
    reseal(copy)
    assert TRAINING in refusal(lambda: Checkpoint.load(copy).trained_items)
