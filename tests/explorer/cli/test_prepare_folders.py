"""Test `sieve prepare folder`: files that are read and messages about the others."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Sieve, fault
from PIL import Image

from sieve.data_prep.images import open_original
from sieve.model.collection import Collection


@pytest.fixture
def backbone(tiny_backbone_dir: Path) -> str:
    return f"local-dir:{tiny_backbone_dir}"


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (400, 300), (number * 9 % 256, 90, 255 - number * 9 % 256)).save(path)


def skipped(folder: Path) -> dict[str, str]:
    with (folder / "skipped.csv").open(newline="", encoding="utf-8") as stream:
        return {row["key"]: row["reason"] for row in csv.DictReader(stream)}


def test_last_line_counts_unused_files(sieve: Sieve, backbone: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for number in range(3):
        save(images / f"{number}.png", number)
    for name in ("a.jxl", "b.jxl", "c.NEF", "noext", "clip.mp4", "old.tar.gz", "labels.csv"):
        (images / name).write_bytes(b"x")
    out = tmp_path / "out"
    made = sieve("prepare", "folder", images, "--backbone", backbone, "--out", out).out
    assert made.splitlines()[-1] == (
        "Not used: 2 × JPEG XL image (a.jxl), 1 × camera RAW image (c.NEF), 1 × video (clip.mp4), "
        "1 × caption file that is not read (labels.csv), 1 × file without an extension (noext), "
        "1 × archive (old.tar.gz); see skipped.csv"
    )
    assert skipped(out)["labels.csv"].endswith("specify it with --captions")


def test_malformed_rows_stop_a_run(sieve: Sieve, backbone: str, tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / "images" / f"{number}.png", number)
    rows = [f'{n}.png,"open {n}' if n == 2 else f"{n}.png,picture {n}" for n in range(8)]
    table = tmp_path / "a.csv"
    table.write_text("\n".join(["image,caption", *rows]))
    given = ("prepare", "folder", tmp_path / "images", "--captions", table, "--backbone", backbone)
    line = fault(sieve(*given, "--out", tmp_path / "x"))
    assert "1 of 8 rows cannot be read, more than 5%: 1 × not a CSV row: a quotation" in line
    made = sieve(*given, "--out", tmp_path / "x", "--keep-going").out
    assert made.startswith("8 items, 7 captions in")
    assert "1 × not a CSV row (a.csv:4)" in made.splitlines()[-1]


def test_captions_of_an_image_folder_keep_their_splits(
    sieve: Sieve, backbone: str, tmp_path: Path
) -> None:
    for number, split in enumerate(["train", "train", "validation", "test"]):
        folder = tmp_path / "images" / split
        save(folder / f"{number}.png", number)
        with (folder / "metadata.jsonl").open("a") as stream:
            stream.write(json.dumps({"file_name": f"{number}.png", "text": f"no {number}"}) + "\n")
    out = tmp_path / "out"
    sieve("prepare", "folder", tmp_path / "images", "--backbone", backbone, "--out", out)
    items = Collection.open(out).items
    found = {Path(row.image).name: (row.split, list(row.captions)) for row in items.itertuples()}
    assert found == {
        "0.png": ("train", ["no 0"]),
        "1.png": ("train", ["no 1"]),
        "2.png": ("select", ["no 2"]),
        "3.png": ("test", ["no 3"]),
    }


def test_links_are_followed_only_on_request(sieve: Sieve, backbone: str, tmp_path: Path) -> None:
    images = tmp_path / "snapshot"
    images.mkdir()
    for number in range(4):
        save(tmp_path / "blobs" / f"{number}.png", number)
        os.symlink(f"../blobs/{number}.png", images / f"{number}.png")
    (tmp_path / "blobs" / "meta").write_text('{"file_name": "1.png", "text": "one"}\n')
    os.symlink("../blobs/meta", images / "metadata.jsonl")
    given = ("prepare", "folder", images, "--backbone", backbone)
    line = fault(sieve(*given, "--out", tmp_path / "x"))
    assert "link leaves the folder" in line and "use --follow-links to read it" in line
    out = tmp_path / "out"
    made = sieve(*given, "--out", out, "--follow-links").out
    assert made.startswith(f"4 items, 1 captions in {out}")
    collection = Collection.open(out)
    assert open_original(collection, 0, 400).is_thumbnail is False
    # A collection prepared without --follow-links opens no link that is created later.
    plain = tmp_path / "plain"
    save(plain / "0.png", 0)
    sieve("prepare", "folder", plain, "--backbone", backbone, "--out", tmp_path / "p")
    (plain / "0.png").unlink()
    os.symlink(tmp_path / "blobs" / "0.png", plain / "0.png")
    assert open_original(Collection.open(tmp_path / "p"), 0, 400).is_thumbnail is True


def test_heic_is_read_with_its_extra(sieve: Sieve, backbone: str, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 48), "red")
    images = tmp_path / "images"
    images.mkdir()
    pillow_heif.from_pillow(image).save(images / "IMG_1.HEIC")
    image.rotate(90).save(images / "a.avif")
    out = tmp_path / "out"
    made = sieve("prepare", "folder", images, "--backbone", backbone, "--out", out)
    assert made.out.startswith("2 items")
    assert Collection.open(out).items["width"].tolist() == [64, 64]


def test_heic_without_its_extra_is_reported(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from pathlib import Path\n"
        "from sieve.data_prep.sources.folder import Folder\n"
        f"source = Folder(Path({str(tmp_path)!r}))\n"
        "assert not list(source.records())\n"
        "print(source.skipped_rows()[0].reason)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert completed.stdout == 'HEIC image: pip install "sieve-explorer[heif]"\n', completed.stderr
