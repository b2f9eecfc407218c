"""Test that equal images share a split in all sources and ways to prepare them."""

from __future__ import annotations

import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from published import add_member
from retrieved import prepared, unit, write_shard
from square_source import SquareSource, contents

from sieve.data_prep.merge import add, merge
from sieve.data_prep.pipeline.plan import Shard
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import HASH_SPLIT, Record, Source, split_from_hash
from sieve.data_prep.sources.embeddings import Embeddings
from sieve.data_prep.sources.folder import Folder
from sieve.data_prep.sources.img2dataset import Img2Dataset
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import Collection
from sieve.model.duplicates import evaluation_rows, n_dropped

N_PICTURES, N_COPIES = 40, 4


def noise(number: int) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(values).resize((24, 18), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def copies() -> list[tuple[str, int, bytes]]:
    """Write copies of each picture: identical bytes, and identical pixels re-encoded."""
    levels = (6, 6, 9, 1)
    return [
        (f"{copy}-{number:03}", number, encoded(noise(number), compress_level=levels[copy]))
        for copy in range(N_COPIES)
        for number in range(N_PICTURES)
    ]


def as_folder(path: Path) -> Folder:
    path.mkdir()
    for name, _, data in copies():
        (path / f"{name}.png").write_bytes(data)
    return Folder(path)


def as_tars(path: Path) -> Img2Dataset:
    path.mkdir()
    for shard in range(2):
        with tarfile.open(path / f"{shard}.tar", "w") as tar:
            for name, number, data in copies()[shard::2]:
                add_member(tar, f"{name}.png", data)
                add_member(tar, f"{name}.txt", f"picture {number}".encode())
    return Img2Dataset(path)


def as_parquet(path: Path) -> Img2Dataset:
    path.mkdir()
    rows = [{"key": name, "image": {"bytes": data, "path": name}} for name, _, data in copies()]
    pq.write_table(pa.Table.from_pylist(rows), path / "0.parquet")
    return Img2Dataset(path)


def splits_by_picture(made: Collection) -> dict[bytes, set[str]]:
    found = defaultdict(set)
    for item_id, split in zip(made.items["id"], made.items["split"], strict=True):
        thumbnail = made.path / "thumbnails" / item_id[:2] / f"{item_id}.webp"
        with Image.open(thumbnail) as image:
            found[image.convert("RGB").tobytes()].add(split)
    return found


@pytest.mark.parametrize("source", [as_folder, as_tars, as_parquet])
def test_copies_share_a_split(
    tmp_path: Path, tiny_backbone: Backbone, source: Callable[[Path], Source]
) -> None:
    made = prepare(source(tmp_path / "in"), tiny_backbone, tmp_path / "c", progress=False)
    assert made.n_items == N_PICTURES * N_COPIES
    found = splits_by_picture(made)
    assert len(found) == N_PICTURES
    assert all(len(splits) == 1 for splits in found.values())
    assert {split for splits in found.values() for split in splits} == {"train", "select", "test"}


def test_shards_draw_the_same_splits_as_one_run(tmp_path: Path, tiny_backbone: Backbone) -> None:
    class Undecided(SquareSource):
        def records(self) -> Iterator[Record]:
            return (replace(record, split=HASH_SPLIT) for record in super().records())

    source = Undecided(600)  # those of the second shard repeat those of the first
    whole = prepare(source, tiny_backbone, tmp_path / "whole", workers=0, progress=False)
    for index in (1, 2):
        out = tmp_path / f"part-{index}"
        prepare(source, tiny_backbone, out, shard=Shard(index, 2), workers=0, progress=False)
    merged = merge([tmp_path / "part-1", tmp_path / "part-2"], tmp_path / "merged")
    assert contents(merged.path) == contents(whole.path)
    splits = merged.items["split"].tolist()
    assert splits[:344] == splits[256:] and len(set(splits)) == 3


def test_added_copies_take_the_split_of_the_first(tmp_path: Path, tiny_backbone: Backbone) -> None:
    made = prepare(as_folder(tmp_path / "in"), tiny_backbone, tmp_path / "c", progress=False)
    grown = add(made, as_tars(tmp_path / "more"), tiny_backbone, tmp_path / "c2", progress=False)
    assert grown.n_items == 2 * N_PICTURES * N_COPIES
    found = splits_by_picture(grown)
    assert len(found) == N_PICTURES and all(len(splits) == 1 for splits in found.values())


def test_equal_embeddings_share_a_split_without_images(tmp_path: Path) -> None:
    images = np.tile(unit(N_PICTURES), (N_COPIES, 1))
    n = len(images)
    facts = {"image_path": [f"{row:06}.jpg" for row in range(n)], "caption": ["the same"] * n}
    write_shard(tmp_path / "e", 0, images, unit(n, 1), facts)
    made = prepared(Embeddings(tmp_path / "e"), tmp_path / "c")
    found = defaultdict(set)
    for row, split in enumerate(made.items["split"]):
        found[row % N_PICTURES].add(split)
    assert all(len(splits) == 1 for splits in found.values())
    assert len(set.union(*found.values())) > 1


def test_given_splits_are_preserved_and_copies_not_evaluated(tmp_path: Path) -> None:
    images = np.tile(unit(N_PICTURES), (N_COPIES, 1))
    images[3 * N_PICTURES + 39] += 0.02 * unit(1, 7)[0]  # another encoding of picture 39
    n = len(images)
    names = ("train", "val", "test", "test")
    splits = [names[row // N_PICTURES] if row % N_PICTURES < 10 else "test" for row in range(n)]
    splits[39] = "train"
    facts = {"image_path": [f"{row:06}.jpg" for row in range(n)], "caption": ["x"] * n}
    write_shard(tmp_path / "e", 0, images, unit(n, 1), facts | {"split": splits})
    made = prepared(Embeddings(tmp_path / "e"), tmp_path / "c")
    assert Counter(made.items["split"]) == {"train": 11, "select": 10, "test": 139}
    assert len(evaluation_rows(made, "select")) == 0
    evaluated = evaluation_rows(made, "test") % N_PICTURES
    assert sorted(set(evaluated.tolist())) == list(range(10, 39))
    assert (len(evaluated), n_dropped(made, "test")) == (4 * 29, 23)


def test_hash_split_has_the_expected_shares() -> None:
    places = np.random.default_rng(0).integers(0, 2**64, 5000, np.uint64)
    drawn = Counter(map(split_from_hash, places.tolist()))
    assert abs(drawn["train"] / 5000 - 0.8) < 0.02
    assert abs(drawn["select"] / 5000 - 0.1) < 0.02


def test_record_split_is_validated() -> None:
    assert Record("a", "b", split=HASH_SPLIT).split == ""
    with pytest.raises(ValueError, match="split must be one of train, select, test"):
        Record("a", "b", split="val")
