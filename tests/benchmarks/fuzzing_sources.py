"""Fuzzing targets: the parsers of `sieve prepare` for captions, data sets and arrays."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.sparse import random_array, save_npz

from sieve.data_prep.captions.caption_table import read_captions
from sieve.data_prep.images import load_image
from sieve.data_prep.sources.coco import Coco
from sieve.data_prep.sources.conceptual_captions import conceptual_captions
from sieve.data_prep.sources.embeddings import Embeddings
from sieve.data_prep.sources.img2dataset import Img2Dataset
from sieve.data_prep.sources.sparse_codes import read_codes_file, read_names, read_word_list
from tests.benchmarks.fuzzing import Target, file_outcome
from tests.benchmarks.random_inputs import changed, damaged, json_or_bytes

_RECORDS = 200


def _opened(source: Any) -> None:
    """Read a source as `sieve prepare` does: unreadable images are skipped and reported."""
    for number, record in enumerate(source.records()):
        if number == _RECORDS:
            break
        if number < 3:
            # As in the decoder, any error of an image becomes a row of skipped.csv.
            with suppress(Exception):
                source.open_image(record, 64)
    if hasattr(source, "skipped_rows"):
        list(source.skipped_rows())


def caption_targets(folder: Path) -> Iterator[Target]:
    rows = [("a.png", "a dog", "train", "dog;cat"), ("b.png", "a “cat”, asleep", "test", "")]
    head = ("image", "caption", "split", "labels")
    lines = {
        "csv": "\n".join(",".join(f'"{cell}"' for cell in row) for row in (head, *rows)),
        "tsv": "\n".join("\t".join(row) for row in (head, *rows)),
        "jsonl": "\n".join(json.dumps(dict(zip(head, row, strict=True))) for row in rows),
    }
    for kind, text in lines.items():
        ask = file_outcome(folder / f"captions.{kind}", read_captions)
        yield Target(f"captions .{kind}", damaged((text.encode(),)), ask)
    value = [dict(zip(head, row, strict=True)) for row in rows]
    as_lines = changed((value,)).map(
        lambda rows: "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows])).encode()
    )
    ask = file_outcome(folder / "values.jsonl", read_captions)
    yield Target("captions .jsonl, values", as_lines, ask)
    ask = file_outcome(folder / "captions.parquet", read_captions)
    yield Target("captions .parquet", damaged((_parquet(value),)), ask)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def _picture(kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(stream, kind)
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (
            ("000000000.jpg", _picture()),
            ("000000000.txt", b"a dog"),
            ("000000000.json", json.dumps({"key": "000000000", "caption": "a dog"}).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def source_targets(folder: Path) -> Iterator[Target]:
    images = folder / "coco" / "images"
    images.mkdir(parents=True)
    (images / "000000000139.jpg").write_bytes(_picture())
    info = {"id": 139, "file_name": "000000000139.jpg", "width": 24, "height": 16}
    captions = {"images": [info], "annotations": [{"image_id": 139, "id": 1, "caption": "a dog"}]}
    instances = {
        "images": [info],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
        "annotations": [{"image_id": 139, "category_id": 18, "id": 1, "bbox": [1, 2, 3, 4]}],
    }
    whole = folder / "coco" / "whole.json"
    whole.write_text(json.dumps(captions))
    ask = file_outcome(
        folder / "coco" / "captions.json", lambda path: _opened(Coco(images, (path,)))
    )
    yield Target("COCO captions", json_or_bytes(captions), ask)
    ask = file_outcome(
        folder / "coco" / "instances.json", lambda path: _opened(Coco(images, (whole,), (path,)))
    )
    yield Target("COCO instances", json_or_bytes(instances), ask)
    table = b"a dog\thttp://x.org/1.jpg\na cat\thttp://x.org/2.jpg\n"
    ask = file_outcome(
        folder / "cc" / "Train.tsv",
        lambda path: _opened(conceptual_captions(path, images, name="cc", licence="none")),
    )
    yield Target("Conceptual Captions .tsv", damaged((table,)), ask)
    ask = file_outcome(folder / "tars" / "00000.tar", lambda path: _opened(Img2Dataset(path)))
    yield Target("webdataset tar", damaged((_tar(),)), ask)
    rows = [
        {
            "key": "0",
            "caption": "a dog",
            "url": "http://x.org",
            "jpg": _picture(),
            "status": "success",
        }
    ]
    ask = file_outcome(folder / "tables" / "00000.parquet", lambda path: _opened(Img2Dataset(path)))
    yield Target("images in parquet", damaged((_parquet(rows),)), ask)
    ask = file_outcome(folder / "pictures" / "a.img", load_image)
    kinds = tuple(_picture(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"))
    yield Target("image", damaged(kinds), ask)
    yield from _number_targets(folder)


def _number_targets(folder: Path) -> Iterator[Target]:
    vectors = np.eye(3, 8, dtype=np.float32)
    plain = folder / "embeddings"
    plain.mkdir()
    stream = io.BytesIO()
    np.save(stream, vectors)
    rows = [{"image_path": f"{n}.jpg", "caption": f"a {n}"} for n in range(3)]
    for part in ("img_emb", "text_emb", "metadata"):
        (plain / part).mkdir()
    names = ("img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet")
    whole = dict(zip(names, (stream.getvalue(), stream.getvalue(), _parquet(rows)), strict=True))
    for name in names:
        (plain / name).write_bytes(whole[name])
    for name in names[::2]:

        def read(path: Path, name: str = name) -> None:
            try:
                _opened(Embeddings(plain))
            finally:
                path.write_bytes(whole[name])

        yield Target(
            f"embeddings {Path(name).suffix}",
            damaged((whole[name],)),
            file_outcome(plain / name, read),
        )
    packed = io.BytesIO()
    save_npz(packed, random_array((6, 16), density=0.3, format="csr", rng=np.random.default_rng(0)))
    yield Target(
        "codes .npz",
        damaged((packed.getvalue(),)),
        file_outcome(folder / "codes.npz", read_codes_file),
    )
    named = [{"dimension": 0, "name": "dog"}, {"dimension": 1, "name": "cat"}]
    ask = file_outcome(folder / "names.json", lambda path: read_names(path, 16))
    yield Target("names .json", json_or_bytes(named, {"0": "dog"}, ["dog", "cat"]), ask)
    ask = file_outcome(folder / "names.csv", lambda path: read_names(path, 16))
    yield Target("names .csv", damaged((b"dimension,name\n0,dog\n1,cat\n",)), ask)
    ask = file_outcome(folder / "words.json", lambda path: read_word_list(path, 2))
    yield Target("words .json", json_or_bytes(["dog", "cat"]), ask)
    ask = file_outcome(folder / "words.txt", lambda path: read_word_list(path, 2))
    yield Target("words .txt", damaged((b"dog\ncat\n",)), ask)
