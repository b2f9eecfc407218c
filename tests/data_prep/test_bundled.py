"""Test that collections are found by name and the bundled one is prepared on first use."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sieve import assets
from sieve.data_prep import bundled
from sieve.data_prep.scenes import Scenes
from sieve.model.collection import Collection
from sieve.model.files import write_checksums


@pytest.mark.usefixtures("home")
class TestBundled:
    """Test the bundled collection with a tiny backbone instead of the shipped one."""

    @pytest.fixture(autouse=True)
    def _few_scenes(
        self, monkeypatch: pytest.MonkeyPatch, tiny_backbone_dir: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(assets, "ROOT", tmp_path / "assets")
        monkeypatch.setattr(bundled, "BACKBONE", f"local-dir:{tiny_backbone_dir}")
        monkeypatch.setattr("sieve.data_prep.scenes.Scenes", lambda: Scenes(count=12))

    def test_bundled_collection_is_prepared_once(self, home: Path) -> None:
        path = bundled.locate_collection("scenes", progress=False)
        assert path.parent == home / "collections"
        assert Collection.open(path).n_items == 12
        before = (path / "collection.json").stat().st_mtime_ns
        assert bundled.locate_collection("scenes", progress=False) == path
        assert (path / "collection.json").stat().st_mtime_ns == before

    def test_shipped_embeddings_are_used_and_set_the_version(self) -> None:
        computed = bundled.prepare_bundled_scenes(progress=False)
        shipped = bundled.scenes_embeddings_path()
        shipped.parent.mkdir(parents=True)
        known = np.random.default_rng(0).standard_normal((12, 32)).astype(np.float16)
        np.save(shipped, known)
        write_checksums(shipped.parent, [shipped.name])
        path = bundled.prepare_bundled_scenes(progress=False)
        assert path != computed
        first = Collection.open(path).image_embeddings[0].astype(float)
        assert first @ known[0] / np.linalg.norm(known[0].astype(float)) > 0.999

    def test_two_concurrent_preparations_both_succeed(self, home: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            paths = list(
                pool.map(lambda _: bundled.prepare_bundled_scenes(progress=False), range(2))
            )
        assert paths[0] == paths[1]
        assert Collection.open(paths[0]).n_items == 12
        assert [entry.name for entry in (home / "collections").iterdir()] == [paths[0].name]


def test_names_are_looked_up_in_order(
    tmp_path: Path, home: Path, tiny_collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = home / "collections" / "mine"
    shutil.copytree(tiny_collection.path, saved)
    assert bundled.locate_collection("mine") == saved
    assert bundled.locate_collection(tiny_collection.path) == tiny_collection.path
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "mine")
    assert bundled.locate_collection("mine") == Path("mine")
    with pytest.raises(FileNotFoundError, match="no collection 'yours'; there are: scenes, mine"):
        bundled.locate_collection("yours")
    (tmp_path / "yours").mkdir()
    with pytest.raises(FileNotFoundError, match="yours is not a collection"):
        Collection.open(bundled.locate_collection("yours"))
