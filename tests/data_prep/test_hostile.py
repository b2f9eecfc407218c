from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import hostile
import pytest
from PIL import Image
from processes import run_python

from sieve.model.collection import Collection, thumbnail_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(
    tiny_backbone_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, hostile.Expected], Path, subprocess.CompletedProcess[str]]:
    """Expected outcomes, the collection, and the output of the command."""
    folder = tmp_path_factory.mktemp("hostile")
    expected = hostile.make(folder / "images")
    command = [
        *("-m", "sieve", "prepare", "folder", str(folder / "images")),
        *("--out", str(folder / "c"), "--keep-going", "--device", "cpu", "--workers", "1"),
        *("--backbone", f"local-dir:{tiny_backbone_dir}"),
    ]
    return expected, folder / "c", run_python(command)


def test_hostile_folder_is_prepared_without_hang_or_traceback(prepared: tuple) -> None:
    expected, _, text = prepared
    assert len(expected) >= 60
    assert (text.returncode, text.stderr) == (0, "")


def test_each_file_is_read_or_reported(prepared: tuple) -> None:
    expected, out, _ = prepared
    collection = Collection.open(out)
    items = {
        os.path.relpath(item.image, out.parent / "images"): f"{item.width}x{item.height}"
        for item in collection.items.itertuples()
    }
    with (out / "skipped.csv").open(newline="", encoding="utf-8") as stream:
        reasons = {row["key"]: row["reason"] for row in csv.DictReader(stream)}
    found = {
        name: hostile.Expected(hostile.GOOD, items[name])
        if name in items
        else hostile.Expected(hostile.SKIPPED, reasons[name])
        if name in reasons
        else hostile.Expected(hostile.IGNORED)
        for name in {*items, *reasons, *expected}
    }
    wrong = {
        name: (found[name], expected.get(name))
        for name in found
        if name not in expected
        or found[name].fate != expected[name].fate
        or not found[name].detail.startswith(expected[name].detail)
    }
    assert wrong == {}
    assert not any("\n" in reason or len(reason) > 200 for reason in reasons.values())


def test_each_item_has_a_small_thumbnail(prepared: tuple) -> None:
    collection = Collection.open(prepared[1])
    for item_id in collection.items["id"]:
        with Image.open(collection.path / thumbnail_path(item_id)) as thumbnail:
            assert max(thumbnail.size) <= 320
    shown = [path for path in (collection.path / "thumbnails").rglob("*") if path.is_file()]
    assert len(shown) == collection.n_items


def test_equal_images_are_reported(prepared: tuple) -> None:
    with (prepared[1] / "duplicates.csv").open(newline="", encoding="utf-8") as stream:
        same = [row for row in csv.DictReader(stream) if row["kind"] == "same"]
    names = {
        tuple(sorted(Path(row[k]).name for k in ("image", "duplicate_of_image"))) for row in same
    }
    assert ("good.jpg", "link-inside.jpg") in names
