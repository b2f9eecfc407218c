from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sieve.data_prep.pipeline import near_duplicates as duplicates
from sieve.data_prep.pipeline.near_duplicates import find_duplicates
from sieve.data_prep.prepare import prepare
from sieve.data_prep.scenes import Scenes
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone.clip import Backbone


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_each_item_is_listed_once_with_the_most_similar_earlier_item() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((3000, 32))
    rows[40] = rows[7]
    rows[2500] = rows[7] + 0.02 * random.standard_normal(32)
    rows[2900] = rows[2500]
    found = {entry.row: entry for entry in find_duplicates(unit(rows))}
    assert sorted(found) == [40, 2500, 2900]
    assert (found[40].of, found[2900].of) == (7, 2500)
    assert found[2500].of in (7, 40)
    assert found[40].cosine == pytest.approx(1, abs=1e-3)
    assert 0.97 <= found[2500].cosine < 1


def test_clustering_finds_every_equal_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_MAX_SINGLE_CELL", 1000)
    monkeypatch.setattr(duplicates, "_CELL_ITEMS", 400)
    monkeypatch.setattr(duplicates, "_SLICE", 700)
    random = np.random.default_rng(1)
    rows = random.standard_normal((4000, 32))
    copies = {int(a): int(b) for a, b in random.permutation(4000)[:400].reshape(-1, 2)}
    for one, other in copies.items():
        rows[one] = rows[other]
    found = {(entry.of, entry.row) for entry in find_duplicates(unit(rows))}
    assert found == {(min(pair), max(pair)) for pair in copies.items()}


def test_many_equal_items_are_listed_once_each() -> None:
    rows = np.tile(unit(np.random.default_rng(0).standard_normal((1, 16))), (2500, 1))
    found = list(find_duplicates(rows))
    assert [entry.row for entry in found] == list(range(1, 2500))
    assert {entry.of for entry in found} == {0}


def test_copies_and_reencoded_images_are_listed(tmp_path: Path) -> None:
    """With the bundled backbone, a copy is the same and a JPEG of the same scene is near."""
    images = tmp_path / "images"
    images.mkdir()
    source = Scenes(count=12, seed=5)
    for index, record in enumerate(source.records()):
        source.open_image(record, 320).save(images / f"{index:02}.png")
    with Image.open(images / "03.png") as image:
        image.save(images / "copy-of-03.png")
    with Image.open(images / "07.png") as image:
        image.convert("RGB").save(images / "jpeg-of-07.jpg", quality=95)
    backbone = Backbone.load("sieve-lite", "cpu")
    made = prepare(Folder(images), backbone, tmp_path / "c", progress=False)
    with (made.path / "duplicates.csv").open(newline="") as stream:
        found = {
            (Path(row["image"]).name, Path(row["duplicate_of_image"]).name, row["kind"])
            for row in csv.DictReader(stream)
        }
    assert found == {("copy-of-03.png", "03.png", "same"), ("jpeg-of-07.jpg", "07.png", "near")}
    assert made.manifest.counts.duplicates == 2


def test_most_similar_item_of_an_earlier_split_is_also_listed() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((12, 32))
    rows[[5, 9]] = rows[2]  # 2 is test, 5 test, 9 train: 2 and 5 leak from 9
    rows[11] = rows[10]  # both train
    split_order = np.array([2, 0, 2, 0, 0, 2, 0, 1, 0, 0, 0, 0], np.int8)
    found = sorted(
        (entry.row, entry.of) for entry in find_duplicates(unit(rows), 0.97, split_order)
    )
    assert found == [(2, 9), (5, 2), (5, 9), (9, 2), (11, 10)]
