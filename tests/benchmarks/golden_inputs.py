"""Small data sets in common layouts; the same bytes on every run."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

COLOURS = {"red": "#d03030", "blue": "#3050d0", "green": "#30a040", "yellow": "#e0c020"}
SHAPES = ("circle", "square", "triangle")
PLACES = {"snow": "#f4f6fa", "night": "#101830", "sand": "#e8d090"}
SPLITS = ("train", "train", "train", "select", "test")


def words_of(index: int) -> tuple[str, str, str]:
    """Return the colour, shape and place of a picture."""
    return (
        list(COLOURS)[index % len(COLOURS)],
        SHAPES[index // len(COLOURS) % len(SHAPES)],
        list(PLACES)[index // 12 % len(PLACES)],
    )


def captions_of(index: int) -> tuple[str, str]:
    colour, shape, place = words_of(index)
    return f"a {colour} {shape} in the {place}", f'a "{shape}", {place} behind it'


def draw(index: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    colour, shape, place = words_of(index)
    image = Image.new("RGB", size, PLACES[place])
    left, top = 8 + index % 24, 8 + index % 12
    box = (left, top, left + 40, top + 40)
    on = ImageDraw.Draw(image)
    if shape == "circle":
        on.ellipse(box, COLOURS[colour])
    elif shape == "square":
        on.rectangle(box, COLOURS[colour])
    else:
        on.polygon(
            [(left, top + 40), (left + 40, top + 40), (left + 20, top)], fill=COLOURS[colour]
        )
    return image


def write_folder(folder: Path, first: int = 0, count: int = 60) -> Path:
    """Write `images/` and `captions.csv`, with one file that is no image and one missing image."""
    (folder / "images" / "more").mkdir(parents=True)
    rows: list[tuple[str, ...]] = [("image", "caption", "split", "labels")]
    for index in range(first, first + count):
        name = f"{'more/' if index % 7 == 0 else ''}{index:03}.png"
        draw(index).save(folder / "images" / name)
        labels = ";".join(words_of(index))
        rows += [(name, text, SPLITS[index % 5], labels) for text in captions_of(index)]
    (folder / "images" / "broken.png").write_bytes(b"no image")
    rows += [("broken.png", "a broken file", "train", ""), ("gone.png", "nothing", "train", "")]
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return folder


def write_coco(folder: Path, count: int = 12) -> Path:
    """Write `images/`, `captions.json` and `instances.json` in the layout of COCO."""
    (folder / "images").mkdir(parents=True)
    images, captions, instances = [], [], []
    for index in range(count):
        name = f"{index:012}.png"
        picture = draw(index)
        picture.save(folder / "images" / name)
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": index, "file_name": name, **size})
        for text in captions_of(index):
            captions.append({"id": len(captions), "image_id": index, "caption": text})
        category = SHAPES.index(words_of(index)[1]) + 1
        box = {"bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0, "segmentation": []}
        instances.append({"id": index, "image_id": index, "category_id": category, **box})
    categories = [
        {"id": number, "name": name, "supercategory": "shape"}
        for number, name in enumerate(SHAPES, 1)
    ]
    tables = {
        "captions": {"images": images, "annotations": captions},
        "instances": {"images": images, "annotations": instances, "categories": categories},
    }
    for name, table in tables.items():
        (folder / f"{name}.json").write_text(json.dumps({"info": {}, "licenses": [], **table}))
    return folder


def write_img2dataset(folder: Path, count: int = 12) -> Path:
    """Write two tar shards with their tables, as img2dataset does, with one failed download."""
    folder.mkdir(parents=True)
    for shard in range(2):
        rows = []
        with tarfile.open(folder / f"{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(shard * count // 2, (shard + 1) * count // 2):
                failed = index == 3
                key = f"{shard:05}{index:04}"
                facts = {
                    "url": f"http://example.org/{index}.jpg",
                    "caption": captions_of(index)[0],
                    "key": key,
                    "status": "failed_to_download" if failed else "success",
                    "error_message": "HTTP Error 404" if failed else None,
                }
                rows.append(facts)
                if failed:
                    continue
                picture = io.BytesIO()
                draw(index).save(picture, "JPEG")
                parts = {
                    "jpg": picture.getvalue(),
                    "json": json.dumps(facts).encode(),
                    "txt": facts["caption"].encode(),
                }
                for kind, data in parts.items():
                    member = tarfile.TarInfo(f"{key}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05}.parquet")
    return folder
