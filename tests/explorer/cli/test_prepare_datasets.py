"""Test `sieve prepare coco | conceptual-captions | embeddings`."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Sieve, fault
from PIL import Image

from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection


def skip_reasons(folder: Path) -> list[str]:
    with (folder / "skipped.csv").open(newline="", encoding="utf-8") as stream:
        return [row["reason"] for row in csv.DictReader(stream)]


@pytest.fixture
def backbone(tiny_backbone_dir: Path) -> str:
    return f"local-dir:{tiny_backbone_dir}"


def test_coco_is_prepared(
    sieve: Sieve, pictures: Path, backbone: str, tmp_path: Path, home: Path, caplog  # noqa: F811, ANN001
) -> None:  # fmt: skip
    images = [{"id": n, "file_name": f"{n:03}.png"} for n in range(70)]
    notes = [{"image_id": n, "id": n, "caption": f"picture {n}"} for n in range(70)]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"images": images, "annotations": notes}))
    made = sieve(
        "prepare", "coco", "--images", pictures / "images", "--captions", captions,
        "--backbone", backbone, "--json",
    ).data  # fmt: skip
    assert (made["items"], made["captions"], made["skipped"]) == (60, 60, 10)
    assert (made["name"], made["path"]) == ("coco", str(home / "collections" / "coco"))
    assert skip_reasons(Path(made["path"])) == ["not in the folder of images"] * 10
    assert f"60 of 70 images are in {pictures / 'images'}; skipped.csv" in caplog.text
    again = ("prepare", "coco", "--images", pictures / "images", "--captions", captions)
    assert "exists already; choose another --out" in fault(sieve(*again))
    captions.write_text("[]")
    line = fault(sieve(*again, "--out", tmp_path / "x", "--backbone", backbone))
    assert "has no list 'images'; expected COCO's own JSON file" in line
    assert not (tmp_path / "x").exists()


def test_conceptual_captions_tar_is_prepared(
    sieve: Sieve, pictures: Path, backbone: str, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "cc").mkdir()
    with tarfile.open(tmp_path / "cc" / "00000.tar", "w") as tar:
        for number in range(8):
            tar.add(pictures / "images" / f"{number:03}.png", f"{number:09}.png")
            text = tmp_path / "caption.txt"
            text.write_text(f"picture {number}")
            tar.add(text, f"{number:09}.txt")
    out = tmp_path / "made"
    made = sieve(
        "prepare", "conceptual-captions", tmp_path / "cc", "--backbone", backbone, "--out", out,
        "--licence", "by their owners",
    )  # fmt: skip
    assert made.out.startswith(f"8 items, 8 captions in {out}")
    opened = Collection.open(out)
    assert list(opened.caption_texts) == [f"picture {number}" for number in range(8)]
    assert opened.manifest.licence == "by their owners"
    line = fault(sieve("prepare", "conceptual-captions", tmp_path / "none"))
    assert "give the folder of the shards" in line


def test_embeddings_are_searched_with_a_checkpoint_of_their_backbone(
    sieve: Sieve,  # noqa: F811
    tiny_collection: Collection,
    tiny_checkpoint: Checkpoint,
    pictures: Path,
    backbone: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "embeddings"
    for part, rows in (("img_emb", tiny_collection.image_embeddings), ("text_emb", None)):
        (folder / part).mkdir(parents=True)
        first = np.searchsorted(tiny_collection.caption_item, np.arange(60))
        array = tiny_collection.text_embeddings[first] if rows is None else rows
        np.save(folder / part / f"{part}_0.npy", array)
    (folder / "metadata").mkdir()
    captions = [texts[0] for texts in tiny_collection.items["captions"]]
    names = [f"/elsewhere/{Path(image).name}" for image in tiny_collection.items["image"]]
    table = pd.DataFrame({"image_path": names, "caption": captions})
    table.to_parquet(folder / "metadata" / "metadata_0.parquet")
    out, images = tmp_path / "made", tmp_path / "images"
    images.mkdir()
    (images / "elsewhere").symlink_to(pictures / "images")
    made = sieve(
        "prepare", "embeddings", folder, "--images", images, "--follow-links",
        "--backbone", backbone, "--out", out, "--json",
    ).data  # fmt: skip
    assert (made["items"], made["captions"], made["width"]) == (60, 60, 32)
    opened = Collection.open(out)
    assert np.array_equal(opened.image_embeddings, tiny_collection.image_embeddings)
    assert opened.backbone == tiny_collection.backbone
    (thumbnail, *_) = sorted((out / "thumbnails").rglob("*.webp"))
    assert Image.open(thumbnail).size == (48, 36)
    found = sieve("search", out, "a red circle", "--checkpoint", tiny_checkpoint.path, "--json")
    assert found.data["results"]


def test_embeddings_of_an_unavailable_backbone_are_prepared(
    sieve: Sieve, tiny_collection: Collection, tmp_path: Path, caplog  # noqa: F811, ANN001
) -> None:  # fmt: skip
    folder = tmp_path / "plain"
    folder.mkdir()
    np.save(folder / "images.npy", tiny_collection.image_embeddings)
    table = pd.DataFrame({"image": [f"{n}.jpg" for n in range(60)]})
    table.to_csv(folder / "table.csv", index=False)
    out = tmp_path / "made"
    made = sieve("prepare", "embeddings", folder, "--backbone", "our-own", "--out", out, "--json")
    assert made.data["backbone"] == "our-own"
    assert "the weights of backbone our-own are not available" in caplog.text
    assert not Collection.open(out).backbone.is_known
    line = fault(sieve("search", out, "a dog"))
    assert "no checkpoint fits backbone our-own" in line
    line = fault(sieve("prepare", "embeddings", folder, "--backbone", "sieve-lite"))
    assert "the embeddings are 32 wide, but those of backbone sieve-lite are 512" in line
