"""Every parser of files and texts that anybody may have written, as targets of the fuzzing."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import random_array, save_npz

import assets
from data_prep.captions.table import read_captions
from data_prep.images import load_image
from data_prep.sources.coco import Coco
from data_prep.sources.code_files import read_codes_file, read_names, read_word_list
from data_prep.sources.conceptual_captions import conceptual_captions
from data_prep.sources.embeddings import Embeddings
from data_prep.sources.img2dataset import Img2Dataset
from explorer.annotations.exchange import read_exchanged
from explorer.figures.recipe import parse_recipe
from explorer.links import Place, read_link
from explorer.training.settings import TrainingSettings
from model.checkpoint import Checkpoint
from model.checksums import CHECKSUMS
from model.collection import MANIFEST, Collection
from model.index.address import IndexAddress
from tests.benchmarks.fuzzing import FAULT, Target
from tests.benchmarks.fuzzing_api import SEEDS
from tests.benchmarks.junk import WORDS, changed, damaged, json_or_bytes

_TOLD = (ValueError, OSError)
"""What the command line tells in one line."""
_RECORDS = 200


@contextmanager
def parser_targets() -> Iterator[list[Target]]:
    """Make valid files in a temporary folder, and one target of each parser."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield [
            *_caption_targets(folder / "captions"),
            *_source_targets(folder),
            *_artifact_targets(folder),
            *_text_targets(),
        ]


def _parsed(read: Callable[[Any], object]) -> Callable[[Any], str]:
    def ask(value: Any) -> str:
        try:
            read(value)
        except _TOLD as error:
            line = " ".join(str(error).split())
            return "refused" if line else f"{FAULT}{type(error).__name__} says nothing"
        return "read"

    return ask


def _file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], str]:
    """Write the bytes, in folders that are made once, and read."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def read_written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return _parsed(read_written)


def _opened(source: Any) -> None:
    """Go through a source as `sieve prepare` does: bad images are left out by name."""
    for number, record in enumerate(source.records()):
        if number == _RECORDS:
            break
        if number < 3:
            # As the decoder: whatever ails an image becomes a row of skipped.csv.
            with suppress(Exception):
                source.open_image(record, 64)
    if hasattr(source, "skipped_rows"):
        list(source.skipped_rows())


def _caption_targets(folder: Path) -> Iterator[Target]:
    rows = [("a.png", "a dog", "train", "dog;cat"), ("b.png", "a “cat”, asleep", "test", "")]
    head = ("image", "caption", "split", "labels")
    lines = {
        "csv": "\n".join(",".join(f'"{cell}"' for cell in row) for row in (head, *rows)),
        "tsv": "\n".join("\t".join(row) for row in (head, *rows)),
        "jsonl": "\n".join(json.dumps(dict(zip(head, row, strict=True))) for row in rows),
    }
    for kind, text in lines.items():
        ask = _file(folder / f"captions.{kind}", read_captions)
        yield Target(f"captions .{kind}", damaged((text.encode(),)), ask)
    value = [dict(zip(head, row, strict=True)) for row in rows]
    as_lines = changed((value,)).map(
        lambda rows: "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows])).encode()
    )
    ask = _file(folder / "values.jsonl", read_captions)
    yield Target("captions .jsonl, values", as_lines, ask)
    ask = _file(folder / "captions.parquet", read_captions)
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


def _source_targets(folder: Path) -> Iterator[Target]:
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
    ask = _file(folder / "coco" / "captions.json", lambda path: _opened(Coco(images, (path,))))
    yield Target("COCO captions", json_or_bytes(captions), ask)
    ask = _file(
        folder / "coco" / "instances.json", lambda path: _opened(Coco(images, (whole,), (path,)))
    )
    yield Target("COCO instances", json_or_bytes(instances), ask)
    table = b"a dog\thttp://x.org/1.jpg\na cat\thttp://x.org/2.jpg\n"
    ask = _file(
        folder / "cc" / "Train.tsv",
        lambda path: _opened(conceptual_captions(path, images, name="cc", licence="none")),
    )
    yield Target("Conceptual Captions .tsv", damaged((table,)), ask)
    ask = _file(folder / "tars" / "00000.tar", lambda path: _opened(Img2Dataset(path)))
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
    ask = _file(folder / "tables" / "00000.parquet", lambda path: _opened(Img2Dataset(path)))
    yield Target("images in parquet", damaged((_parquet(rows),)), ask)
    ask = _file(folder / "pictures" / "a.img", load_image)
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
            f"embeddings {Path(name).suffix}", damaged((whole[name],)), _file(plain / name, read)
        )
    packed = io.BytesIO()
    save_npz(packed, random_array((6, 16), density=0.3, format="csr", rng=np.random.default_rng(0)))
    yield Target(
        "codes .npz", damaged((packed.getvalue(),)), _file(folder / "codes.npz", read_codes_file)
    )
    named = [{"dimension": 0, "name": "dog"}, {"dimension": 1, "name": "cat"}]
    ask = _file(folder / "names.json", lambda path: read_names(path, 16))
    yield Target("names .json", json_or_bytes(named, {"0": "dog"}, ["dog", "cat"]), ask)
    ask = _file(folder / "names.csv", lambda path: read_names(path, 16))
    yield Target("names .csv", damaged((b"dimension,name\n0,dog\n1,cat\n",)), ask)
    ask = _file(folder / "words.json", lambda path: read_word_list(path, 2))
    yield Target("words .json", json_or_bytes(["dog", "cat"]), ask)
    ask = _file(folder / "words.txt", lambda path: read_word_list(path, 2))
    yield Target("words .txt", damaged((b"dog\ncat\n",)), ask)


def _artifact_targets(folder: Path) -> Iterator[Target]:
    """Without checksums: whoever changes a file on purpose makes them fit."""
    from data_prep.bundled import bundled_scenes

    shipped = bundled_scenes(device="cpu", progress=False)
    manifest = json.loads((shipped / MANIFEST).read_text())
    collection = folder / "collection"
    collection.mkdir()
    for name in manifest["files"]:
        (collection / name).symlink_to(shipped / name)
    ask = _file(collection / MANIFEST, lambda path: _described(Collection.open(path.parent)))
    yield Target("collection.json", json_or_bytes(manifest), ask)
    from_checkpoint = assets.ROOT / "checkpoints" / "scenes"
    checkpoint = folder / "checkpoint"
    whole = shutil.copytree(from_checkpoint, checkpoint, ignore=shutil.ignore_patterns(CHECKSUMS))
    names = json.loads((whole / "names.json").read_text())[:5]
    (checkpoint / "names.json").write_text(json.dumps(names))
    for name, seeds in (
        ("config.json", json_or_bytes(json.loads((whole / "config.json").read_text()))),
        ("names.json", json_or_bytes(names)),
        ("training.json", json_or_bytes({"items": ["0123456789abcdef"], "seed": 0})),
        ("weights.safetensors", damaged(((whole / "weights.safetensors").read_bytes(),))),
    ):
        data = (checkpoint / name).read_bytes()

        def read(path: Path, data: bytes = data) -> None:
            try:
                opened = Checkpoint.load(path.parent)
                opened.trained_items, opened.sha256, opened.name_of(3)  # noqa: B018
            finally:
                path.write_bytes(data)

        yield Target(f"checkpoint {name}", seeds, _file(checkpoint / name, read))


def _described(opened: Collection) -> None:
    shown = (opened.name, opened.n_items, opened.n_captions, opened.codes or opened.backbone)
    assert shown and len(opened.items) == opened.n_items
    assert len(opened.caption_item) == opened.n_captions
    if opened.codes is None:
        assert len(opened.image_embeddings) == opened.n_items


def _text_targets() -> Iterator[Target]:
    recipe = SEEDS["preview"][0]
    as_text = json_or_bytes(recipe).map(lambda data: data.decode("utf-8", "replace"))
    yield Target("figure recipe", as_text, _parsed(parse_recipe))
    notes = {
        "sieve_annotations": 1, "collection": "ab" * 32, "checkpoint": "cd" * 32,
        "dimensions": [{"dimension": 3, "name": "dog", "tags": ["a"], "note": "x"}],
        "searches": [{"name": "dogs", "link": "?q=a+dog", "saved": "2026-01-01T00:00:00Z"}],
    }  # fmt: skip
    yield Target(
        "annotations .json", json_or_bytes(notes), _parsed(lambda d: read_exchanged(d, "json", 64))
    )
    table = b"dimension,name,note,tags,starred\n3,dog,'=x,a,1\n4,cat,,,\n"
    yield Target(
        "annotations .csv", damaged((table,)), _parsed(lambda d: read_exchanged(d, "csv", 64))
    )
    link = b"?q=a+dog&without=beach&off=17,203&strictness=never&item=0123456789abcdef&tab=figure"
    texts = st.one_of(
        damaged((link,)).map(lambda data: data.decode("utf-8", "surrogateescape")),
        st.sampled_from(WORDS),
    )
    yield Target("link", texts, _parsed(lambda text: read_link(text, "scenes", "scenes", 64)))
    yield Target("question", changed(SEEDS["ask"]), _parsed(Place.from_payload))
    yield Target(
        "training form", changed(SEEDS["training_start"]), _parsed(TrainingSettings.from_payload)
    )
    address = damaged((b"qdrant://host:6333/photos", b"qdrant:///tmp/a/b")).map(_as_text)
    yield Target("index address", address, _parsed(_addressed))


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _addressed(text: str) -> None:
    address = IndexAddress.parse(text)
    assert IndexAddress.parse(str(address)) == address, (text, str(address))
