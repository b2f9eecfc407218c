"""Test that a prepared collection contains all usable records and lists the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from square_source import SquareSource, skipped_rows

from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record, Skipped
from sieve.data_prep.sources.folder import Folder
from sieve.model.backbone.clip import Backbone
from sieve.model.collection import Collection, thumbnail_path


def test_collection_contains_everything_from_the_source(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    made = prepare(SquareSource(7), tiny_backbone, tmp_path / "c", progress=False)
    opened = Collection.open(tmp_path / "c")
    assert (opened.name, opened.n_items, opened.n_captions) == ("drawn", 7, 6)
    assert (opened.manifest.source, opened.manifest.licence) == ("7 squares", "CC0")
    assert opened.backbone == made.backbone
    assert opened.items["id"].tolist() == [record.id for record in SquareSource(7).records()]
    assert opened.caption_item.tolist() == [1, 2, 2, 4, 5, 5]
    assert opened.caption_texts[2] == "square 2 seen 1"
    row = opened.items.iloc[5]
    assert (row["image"], row["split"], row["width"], row["height"]) == (
        "nowhere/5",
        "select",
        8,
        8,
    )
    assert list(row["labels"]) == ["l1"]
    assert skipped_rows(opened) == [["key", "image", "reason"]]


def test_embeddings_equal_those_of_the_backbone(tmp_path: Path, tiny_backbone: Backbone) -> None:
    source = SquareSource(40)
    made = prepare(source, tiny_backbone, tmp_path / "c", progress=False)
    assert made.image_embeddings.dtype == made.text_embeddings.dtype == np.float16
    images = tiny_backbone.encode_images([source.open_image(r, 320) for r in source.records()])
    texts = tiny_backbone.encode_texts(list(made.caption_texts))
    for saved, expected in ((made.image_embeddings, images), (made.text_embeddings, texts)):
        assert np.abs(np.asarray(saved, np.float32) - expected).max() < 2e-3
        assert np.abs(np.linalg.norm(saved.astype(np.float32), axis=1) - 1).max() < 2e-3


def test_thumbnails_are_small_and_never_enlarged(tmp_path: Path, tiny_backbone: Backbone) -> None:
    images = tmp_path / "images"
    images.mkdir()
    sizes = {
        "wide.png": (1000, 500),
        "tall.png": (100, 900),
        "dot.png": (1, 1),
        "long.png": (4000, 2),
    }
    for name, size in sizes.items():
        Image.new("RGB", size, "green").save(images / name)
    made = prepare(Folder(images), tiny_backbone, tmp_path / "c", progress=False)
    shown = {}
    for item in made.items.itertuples():
        with Image.open(made.path / thumbnail_path(item.id)) as thumbnail:
            assert thumbnail.format == "WEBP"
            shown[Path(item.image).name] = thumbnail.size
        assert (item.width, item.height) == sizes[Path(item.image).name]
    assert shown == {
        "wide.png": (320, 160),
        "tall.png": (36, 320),
        "dot.png": (1, 1),
        "long.png": (320, 1),
    }
    files = [path for path in (made.path / "thumbnails").rglob("*") if path.is_file()]
    assert len(files) == len(sizes)


def test_number_of_processes_does_not_change_the_output(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    source = SquareSource(150, {3: "torn", 77: "torn"})
    alone = prepare(source, tiny_backbone, tmp_path / "a", workers=0, progress=False)
    shared = prepare(source, tiny_backbone, tmp_path / "b", workers=2, progress=False)
    assert alone.manifest == shared.manifest  # it contains the hash of every file
    for one in (alone.path / "thumbnails").rglob("*.webp"):
        assert one.read_bytes() == (shared.path / one.relative_to(alone.path)).read_bytes()


def test_bad_records_are_skipped_by_name(tmp_path: Path, tiny_backbone: Backbone) -> None:
    made = prepare(
        SquareSource(60, {0: "torn", 41: "a\nbomb"}), tiny_backbone, tmp_path / "c", progress=False
    )
    assert made.n_items == 58
    assert skipped_rows(made)[1:] == [["s0", "nowhere/0", "torn"], ["s41", "nowhere/41", "a bomb"]]
    assert made.items["image"].iloc[0] == "nowhere/1"
    own = [caption.split()[1] for caption in made.caption_texts]
    assert own == [made.items["image"].iloc[row].split("/")[1] for row in made.caption_item]


def test_too_many_bad_records_stop_the_run(tmp_path: Path, tiny_backbone: Backbone) -> None:
    source = SquareSource(60, {1: "torn: 5 bytes", 2: "torn: 7 bytes", 5: "a bomb", 6: "torn: x"})
    with pytest.raises(ValueError) as caught:
        prepare(source, tiny_backbone, tmp_path / "c", progress=False)
    assert str(caught.value) == (
        "4 of the first 32 records cannot be used, more than 5% of all 60: "
        "3 × torn: 5 bytes (s1); 1 × a bomb (s5); correct them, or leave them out with --keep-going"
    )
    assert list(tmp_path.iterdir()) == []
    made = prepare(source, tiny_backbone, tmp_path / "c", progress=False, keep_going=True)
    assert made.n_items == 56


def test_no_usable_record_is_an_error(tmp_path: Path, tiny_backbone: Backbone) -> None:
    torn = SquareSource(3, {0: "torn", 1: "torn", 2: "torn"})
    with pytest.raises(ValueError, match=r"none of the 3 records can be used: 3 × torn \(s0\)"):
        prepare(torn, tiny_backbone, tmp_path / "c", progress=False, keep_going=True)
    with pytest.raises(ValueError, match="there are no images in .*: there is nothing to prep"):
        prepare(SquareSource(0), tiny_backbone, tmp_path / "c", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_duplicate_id_is_skipped(tmp_path: Path, tiny_backbone: Backbone) -> None:
    class Twice(SquareSource):
        def records(self) -> Iterator[Record]:
            yield from super().records()
            yield Record("s7", "elsewhere")

    made = prepare(Twice(40), tiny_backbone, tmp_path / "c", progress=False)
    assert made.n_items == 40
    key, image, reason = skipped_rows(made)[1]
    assert (key, image) == ("s7", "elsewhere")
    assert reason.startswith("duplicate id: ") and reason.endswith(" is s7 already")


def test_skipped_rows_are_listed_but_not_counted_as_bad(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    class WithRows(SquareSource):
        def skipped_rows(self) -> list[Skipped]:
            return [Skipped(f"captions.csv:{n}", "a.png", "empty caption") for n in range(30)]

    made = prepare(WithRows(5), tiny_backbone, tmp_path / "c", progress=False)
    assert made.n_items == 5
    assert len(skipped_rows(made)) == 31
    assert made.manifest.counts.skipped == 30


def test_existing_output_is_not_overwritten(tmp_path: Path, tiny_backbone: Backbone) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already; choose another name"):
        prepare(SquareSource(3), tiny_backbone, tmp_path / "c", progress=False)
    assert (tmp_path / "c" / "thesis.txt").read_text() == "precious"
