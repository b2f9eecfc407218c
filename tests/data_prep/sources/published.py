"""Data sets in the layouts in which they are published, with drawn images of a few pixels."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def jpeg(colour: str = "red", size: tuple[int, int] = (12, 8)) -> bytes:
    """A JPEG file of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG")
    return stream.getvalue()


def write(path: Path, data: bytes) -> Path:
    """Write a file and create its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_json(path: Path, value: Any) -> Path:
    return write(path, json.dumps(value).encode())


def add_member(tar: tarfile.TarFile, name: str, data: bytes, **header: Any) -> None:
    """Add a member whose header can state a wrong size."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in header.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def facts(key: str, caption: str, url: str, error: str | None = None) -> dict[str, Any]:
    """Metadata of an image as img2dataset writes it."""
    return {
        "url": url,
        "caption": caption,
        "key": key,
        "status": "failed_to_download" if error else "success",
        "error_message": error,
        "width": None if error else 12,
        "height": None if error else 8,
        "original_width": None if error else 24,
        "original_height": None if error else 16,
        "exif": None if error else "{}",
        "sha256": None if error else "ab" * 32,
    }


Downloaded = Mapping[str, Sequence[tuple[dict[str, Any], bytes | None]]]
"""Yield the metadata and the image of each record, by shard."""

DOWNLOADED: Downloaded = {
    "00000": [
        (facts("000000000", "a red <b>dog</b>", "http://x.org/0.jpg"), jpeg("red")),
        (facts("000000001", "a gone cat", "http://x.org/1.jpg", "HTTP Error 404"), None),
        (facts("000000002", "a blue boat", "http://x.org/2.jpg"), jpeg("blue")),
    ],
    "00001": [(facts("000010000", "", "http://x.org/3.jpg"), jpeg("green"))],
}


def write_facts(path: Path, images: Sequence[tuple[dict[str, Any], bytes | None]]) -> None:
    pq.write_table(pa.Table.from_pylist([known for known, _ in images]), path)


def write_tars(folder: Path, shards: Downloaded = DOWNLOADED) -> Path:
    """Write the WebDataset layout: a tar and a metadata table per shard."""
    folder.mkdir(parents=True)
    for shard, images in shards.items():
        write_facts(folder / f"{shard}.parquet", images)
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for known, data in images:
                if data is not None:
                    add_member(tar, f"{known['key']}.jpg", data)
                    add_member(tar, f"{known['key']}.json", json.dumps(known, indent=4).encode())
                    add_member(tar, f"{known['key']}.txt", known["caption"].encode())
    return folder


def write_files(folder: Path, shards: Downloaded = DOWNLOADED) -> Path:
    """Write the files layout: a folder and a metadata table per shard."""
    for shard, images in shards.items():
        for known, data in images:
            if data is not None:
                write(folder / shard / f"{known['key']}.jpg", data)
                write(folder / shard / f"{known['key']}.txt", known["caption"].encode())
                write_json(folder / shard / f"{known['key']}.json", known)
        write_facts(folder / f"{shard}.parquet", images)
    return folder


def write_tables(folder: Path, shards: Downloaded = DOWNLOADED, group: int = 2) -> Path:
    """Write the Parquet layout: images and metadata in one table per shard."""
    folder.mkdir(parents=True)
    for shard, images in shards.items():
        rows = [{**known, "jpg": data} for known, data in images]
        pq.write_table(
            pa.Table.from_pylist(rows), folder / f"{shard}.parquet", row_group_size=group
        )
    return folder
