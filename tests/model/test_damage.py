"""Test that a damaged byte raises an error that names the file, or rebuilds a cache."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import WordBackbone
from corruption import damaged_files, reseal

from sieve import assets
from sieve.model.checkpoint import Checkpoint
from sieve.model.checkpoint_choice import list_fitting
from sieve.model.collection import Collection
from sieve.model.dimensions.code_cache import open_code_cache
from sieve.model.dimensions.map import dimension_map
from sieve.model.engine import SearchEngine
from sieve.model.files import CHECKSUMS, check_files

Answer = dict[str, object]


@pytest.fixture
def artifacts(
    word_collection: Collection,
    word_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A collection, a checkpoint and a $SIEVE_HOME with their caches."""
    shutil.copytree(word_collection.path, tmp_path / "collection")
    shutil.copytree(word_checkpoint.path, tmp_path / "checkpoint")
    monkeypatch.setenv("SIEVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(SearchEngine, "backbone", WordBackbone())
    read_all(tmp_path)
    return tmp_path


def read_all(folder: Path) -> Answer:
    """Return all contents of the artifacts."""
    engine = SearchEngine.open(folder / "collection", folder / "checkpoint", "cpu")
    collection, checkpoint = engine.collection, engine.checkpoint
    query = engine.encode(item=str(collection.items["id"].iloc[7]))
    found = engine.search(query, off=(query.dimensions[0].dimension,))
    map_ = dimension_map(collection, checkpoint, engine.derived)
    return {
        "identity": (collection.sha256, checkpoint.sha256, collection.manifest),
        "items": collection.items.to_json(),
        "embeddings": (
            collection.image_embeddings.tobytes(),
            collection.text_embeddings.tobytes(),
            collection.caption_item.tobytes(),
        ),
        "found": found.results,
        "texts": engine.text_codes.by_row.data.tobytes(),
        "dimensions": engine.dimension_table().to_json(),
        "map": map_.positions.tobytes(),
        "names": checkpoint.names,
        "config": checkpoint.config.model_dump_json(),
        "trained": checkpoint.trained_items,
    }


def _is_as(folder: Path, before: Answer) -> bool:
    try:
        return read_all(folder) == before
    except ValueError:
        return False


def refused(folder: Path, ask: Callable[[Path], object]) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as fault:
        ask(folder)
    return str(fault.value)


@pytest.mark.parametrize("part", ["collection", "checkpoint"])
def test_no_damaged_byte_of_an_artifact_is_undetected(artifacts: Path, part: str) -> None:
    before = read_all(artifacts)
    paths = sorted(path for path in (artifacts / part).iterdir() if path.name != "skipped.csv")
    assert len(paths) >= 5 and artifacts / part / CHECKSUMS in paths
    for path, how in damaged_files(paths):
        if path.name == CHECKSUMS and _is_as(artifacts, before):
            continue  # only the line ending is missing
        line = refused(artifacts, read_all)
        assert "\n" not in line and f"{path.parent}" in line, (path, how, line)
        assert path.name in line or path.name == CHECKSUMS or "damaged" in line, (path, how, line)
        assert "again" in line, (path, how, line)
    assert read_all(artifacts) == before


def test_skipped_csv_is_verified_before_it_is_copied(artifacts: Path) -> None:
    for path, how in damaged_files([artifacts / "collection" / "skipped.csv"]):
        opened = lambda _: Collection.open(path.parent).checked(path.name)  # noqa: B023, E731
        assert "skipped.csv" in refused(artifacts, opened), how


def test_damaged_cache_is_rebuilt(artifacts: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_all(artifacts)
    saved = sorted((artifacts / "home" / "codes").glob("*/*"))
    assert {path.name for path in saved} >= {
        "image_entries.npy",
        "dimensions.parquet",
        "map.parquet",
        "concepts.npy",
    }
    for path, how in damaged_files([path for path in saved if path.name != CHECKSUMS]):
        with pytest.raises(ValueError, match="computed again"):
            check_files(path.parent, f"it is computed again: {path}, {how}")
    for path in saved:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(bytes(data))
    caplog.clear()
    assert read_all(artifacts) == before
    assert len([line for line in caplog.messages if "cannot be read" in line]) == 4
    caplog.clear()
    assert read_all(artifacts) == before and not caplog.messages, "the new one is cached, too"
    assert not list((artifacts / "home" / "codes").glob(".*"))


def test_cache_without_a_column_is_rebuilt(
    artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = next((artifacts / "home" / "codes").glob("*/dimensions.parquet"))
    table = pd.read_parquet(path)
    table.drop(columns=["top_word"]).to_parquet(path, index=False)
    reseal(path.parent)
    caplog.clear()
    opened = Collection.open(artifacts / "collection")
    cache = open_code_cache(opened, Checkpoint.load(artifacts / "checkpoint"))
    pd.testing.assert_frame_equal(cache.dimensions, table)
    [line] = caplog.messages
    assert "dimensions.parquet has no column top_word; it is computed again" in line


def test_cache_without_checksums_is_rebuilt(artifacts: Path) -> None:
    for path in (artifacts / "home" / "codes").glob(f"*/{CHECKSUMS}"):
        path.unlink()
    entries = next((artifacts / "home" / "codes").glob("*/image_entries.npy"))
    numbers = np.load(entries)
    numbers[1].view(np.float32)[:] *= 2
    np.save(entries, numbers)
    opened = Collection.open(artifacts / "collection")
    codes = open_code_cache(opened, Checkpoint.load(artifacts / "checkpoint")).image_codes
    assert np.allclose(np.sqrt(codes.by_row.power(2).sum(1)), 1)


@pytest.mark.parametrize("part", ["collection", "checkpoint"])
def test_artifact_without_checksums_is_rejected(artifacts: Path, part: str) -> None:
    (artifacts / part / CHECKSUMS).unlink()
    line = refused(artifacts, read_all)
    assert f"{artifacts / part} has no {CHECKSUMS}" in line and "again" in line


def test_manifest_without_a_checksum_is_rejected(artifacts: Path) -> None:
    sums = artifacts / "collection" / CHECKSUMS
    listed = json.loads(sums.read_text())
    del listed["collection.json"]
    sums.write_text(json.dumps(listed))
    line = refused(artifacts, read_all)
    assert f"{sums} is damaged" in line and "collection.json" in line and "again" in line


@pytest.mark.parametrize("change", ["no hash", "not listed"])
def test_file_without_a_hash_in_the_manifest_is_rejected(artifacts: Path, change: str) -> None:
    folder = artifacts / "collection"
    manifest = json.loads((folder / "collection.json").read_text())
    facts = manifest["files"].pop("image_embeddings.npy")
    if change == "no hash":
        manifest["files"]["image_embeddings.npy"] = {"bytes": facts["bytes"]}
    (folder / "collection.json").write_text(json.dumps(manifest))
    reseal(folder)
    line = refused(artifacts, read_all)
    assert "image_embeddings.npy has no sha256 in collection.json" in line and "again" in line


@pytest.mark.parametrize("left_out", ["config.json", "weights.safetensors", "names.json"])
def test_checkpoint_file_without_a_checksum_is_rejected(artifacts: Path, left_out: str) -> None:
    sums = artifacts / "checkpoint" / CHECKSUMS
    listed = json.loads(sums.read_text())
    del listed[left_out]
    sums.write_text(json.dumps(listed))
    assert left_out in refused(artifacts, read_all)


def test_damaged_checkpoint_is_reported_when_choosing_a_default(
    artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = artifacts / "home" / "checkpoints" / "mine"
    shutil.copytree(artifacts / "checkpoint", own)
    config = own / "config.json"
    config.write_text(config.read_text().replace('"ff', '"fe', 1))
    with caplog.at_level(logging.WARNING):
        assert own not in [c.path for c in list_fitting(Collection.open(artifacts / "collection"))]
    assert f"{config} is damaged" in caplog.text and "it is left out" in caplog.text


@pytest.mark.parametrize(
    "path", sorted(assets.ROOT.glob(f"*/*/{CHECKSUMS}")), ids=lambda p: p.parent.name
)
def test_shipped_files_match_their_checksums(path: Path) -> None:
    check_files(path.parent, "install Sieve again")
    large = {part.name for part in path.parent.iterdir() if part.suffix in (".npy", ".safetensors")}
    assert large and large <= set(json.loads(path.read_text()))
