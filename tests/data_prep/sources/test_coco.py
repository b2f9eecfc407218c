from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from published import jpeg, write, write_json

from sieve.assets import ROOT
from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record
from sieve.data_prep.sources.coco import Coco
from sieve.model.backbone.clip import Backbone
from sieve.model.evaluation.pairs import PairCriteria, label_concepts
from sieve.model.words.nouns import NounTable

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 18, "name": "dog", "supercategory": "animal"},
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 3, "name": "car", "supercategory": "vehicle"},
]
NUMBERS = (139, 285, 397133, 391895)


def image(number: int, name: str = "") -> dict[str, Any]:
    return {
        "license": 2, "file_name": name or f"{number:012}.jpg", "height": 426, "width": 640,
        "id": number,
        "coco_url": f"http://images.cocodataset.org/val2017/{number:012}.jpg",
        "date_captured": "2013-11-21 01:34:01", "flickr_url": "http://farm9.staticflickr.com/x.jpg",
    }  # fmt: skip


def caption(number: int, text: str, id_: int = 1) -> dict[str, Any]:
    return {"image_id": number, "id": id_, "caption": text}


def instance(number: int, category: int) -> dict[str, Any]:
    return {
        "segmentation": [[1.5, 2.5, 3.5]], "area": 9.5, "iscrowd": 0, "image_id": number,
        "bbox": [1.0, 2.0, 3.0, 4.0], "category_id": category, "id": 900,
    }  # fmt: skip


def captions_file(folder: Path, **changed: Any) -> Path:
    value = {
        "info": {"year": 2017},
        "licenses": [{"url": "http://x.org", "id": 1, "name": "none"}],
        "images": [image(number) for number in NUMBERS],
        "annotations": [caption(n, f"{n} seen {k}") for k in range(2) for n in NUMBERS],
    }
    return write_json(folder / "captions_val2017.json", value | changed)


def instances_file(folder: Path, **changed: Any) -> Path:
    value = {
        "images": [image(139), image(285)],
        "categories": CATEGORIES,
        "annotations": [
            instance(139, 18),
            instance(139, 18),
            instance(139, 1),
            instance(391895, 3),
        ],
    }
    return write_json(folder / "instances_val2017.json", value | changed)


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        write(folder / "images" / name, jpeg())
    return folder / "images"


def test_available_images_are_used_and_missing_ones_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = folder_of(tmp_path, "val2017/000000000139.jpg", "COCO_val2014_000000391895.jpg")
    source = Coco(images, (captions_file(tmp_path),), (instances_file(tmp_path),))
    with caplog.at_level(logging.WARNING):
        records = list(source.records())
    assert [record.key for record in records] == ["139", "391895"]
    assert records[0].captions == ("139 seen 0", "139 seen 1")
    assert records[0].labels == ("animal", "dog", "person")
    assert records[1].labels == ("car", "vehicle")
    assert source.open_image(records[1], 320).size == (12, 8)
    assert caplog.messages == [
        f"some image names in the caption files differ from the files in {images}; matched if "
        "only one fits: 1 by leading folder (000000000139.jpg is val2017/000000000139.jpg)",
        "1 images were found by their name in another release",
        f"2 of 4 images are in {images}; 2 of them have labels; skipped.csv lists the other 2",
    ]
    assert source.skipped_rows() == [
        ("285", "000000000285.jpg", "not in the folder of images"),
        ("397133", "000000397133.jpg", "not in the folder of images"),
    ]


def test_complete_download_reports_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = folder_of(tmp_path, *(f"{number:012}.jpg" for number in NUMBERS))
    source = Coco(images, (captions_file(tmp_path),))
    assert len(list(source.records())) == 4
    assert caplog.messages == [] and source.skipped_rows() == []


def test_partial_download_is_not_an_error(tmp_path: Path, tiny_backbone: Backbone) -> None:
    images = folder_of(tmp_path, "000000000139.jpg")
    source = Coco(images, (captions_file(tmp_path),), (instances_file(tmp_path),))
    made = prepare(source, tiny_backbone, tmp_path / "made", progress=False)
    assert (made.n_items, made.n_captions) == (1, 2)
    skipped = (made.path / "skipped.csv").read_text().splitlines()
    assert len(skipped) == 1 + 3 and skipped[1].startswith("285,000000000285.jpg,not in the folder")


def test_label_is_never_paired_with_its_supercategory(
    tmp_path: Path, tiny_backbone: Backbone
) -> None:
    numbers = range(1, 41)
    images = folder_of(tmp_path, *(f"{number:012}.jpg" for number in numbers))
    captions = captions_file(tmp_path, images=[image(n) for n in numbers], annotations=[])
    shown = [instance(n, (18, 17, 3, 1)[n % 4]) for n in numbers] + [instance(n, 3) for n in (1, 5)]
    instances = instances_file(tmp_path, images=[image(n) for n in numbers], annotations=shown)
    made = prepare(
        Coco(images, (captions,), (instances,)), tiny_backbone, tmp_path / "made", progress=False
    )
    nouns = NounTable.load(ROOT / "benchmark" / "nouns.json")
    concepts = label_concepts(made, nouns, PairCriteria())
    at = {name: place for place, name in enumerate(concepts.names)}
    assert set(at) == {"animal", "car", "cat", "dog", "person", "vehicle"}
    for one, other in (("dog", "animal"), ("cat", "animal"), ("car", "vehicle")):
        assert not concepts.apart[at[one], at[other]] and not concepts.apart[at[other], at[one]]
    assert concepts.apart[at["dog"], at["car"]] and concepts.apart[at["animal"], at["vehicle"]]


def test_karpathy_splits_are_read(tmp_path: Path) -> None:
    images = folder_of(tmp_path, *(f"{number:012}.jpg" for number in NUMBERS))
    text = dict(zip(NUMBERS, ("restval", "val", "test"), strict=False))
    entries = [
        {"filepath": "val2014", "filename": f"COCO_val2014_{n:012}.jpg", "imgid": place,
         "cocoid": n,
         "sentids": [1], "split": split, "sentences": [{"tokens": ["a"], "raw": "A.", "imgid": 0}]}
        for place, (n, split) in enumerate(text.items())
    ]  # fmt: skip
    splits = write_json(tmp_path / "dataset_coco.json", {"images": entries, "dataset": "coco"})
    source = Coco(images, (captions_file(tmp_path),), splits=splits)
    assert {record.key: record.split for record in source.records()} == {
        "139": "train", "285": "select", "397133": "test",
    }  # fmt: skip
    left_out = ("391895", "000000391895.jpg", "not in the splits file")
    assert source.skipped_rows() == [left_out]
    write_json(splits, {"images": [{"cocoid": 1, "split": "holdout"}]})
    with pytest.raises(ValueError, match=r"images\[0\] has cocoid 1 and split 'holdout'; expected"):
        list(source.records())


def test_several_files_form_one_collection(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "train2014/COCO_train2014_000000000009.jpg", "000000000139.jpg")
    name = "COCO_train2014_000000000009.jpg"
    train = captions_file(tmp_path / "t", images=[image(9, name)], annotations=[caption(9, "x")])
    source = Coco(images, (captions_file(tmp_path), train))
    assert [record.key for record in source.records()] == ["139", "9"]


def test_malformed_entries_are_reported(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "000000000139.jpg")
    write(tmp_path / "secret.jpg", jpeg())
    path = captions_file(
        tmp_path,
        images=[image(139), image(7, "../secret.jpg"), {"id": "5"}, None,
                {"id": True, "file_name": "x"}, {"id": 8, "file_name": ["a"]}],
        annotations=[caption(139, "<b>x</b>\u202e\x00 y"), caption(139, ""),
                     caption(139, "z" * 6000),
                     caption(139, "<b>x</b>\u202e y"), caption(1, "stray"), {"image_id": 139}, 7,
                     {"image_id": 139, "caption": None}],
    )  # fmt: skip
    instances = instances_file(tmp_path, annotations=[instance(139, 99), instance(139, 18), "x"])
    source = Coco(images, (path,), (instances,))
    (record,) = source.records()
    assert record.captions == ("<b>x</b>\u202e y",)
    assert record.labels == ("animal", "dog")
    assert Counter(entry.reason.split(":")[0] for entry in source.skipped_rows()) == {
        "an image without an id and a file_name": 4,
        "not in the folder of images": 1,
        "empty caption": 3,
        "huge caption": 1,
        "duplicate caption": 1,
        "caption of an image that is not in the file": 2,
        "unknown category 99": 1,
        "unknown category None": 1,
    }
    with pytest.raises(ValueError, match="leaves the folder"):
        source.open_image(Record("7", str(images / "../secret.jpg")), 320)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": {}}', "has no list 'images'"),
        ('{"images": []}', "has no list 'annotations'"),
        ("\x00\xff", "is not JSON"),
    ],
)
def test_other_json_is_rejected_with_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "captions.json", text.encode("latin-1"))
    source = Coco(folder_of(tmp_path, "1.jpg"), (path,))
    with pytest.raises(ValueError, match=message) as caught:
        list(source.records())
    assert "\n" not in str(caught.value)


def test_missing_paths_are_reported(tmp_path: Path) -> None:
    images, captions = folder_of(tmp_path, "1.jpg"), captions_file(tmp_path)
    nothing = tmp_path / "none"
    for given, message in (
        ({"root": nothing}, "no folder .*none; check --images"),
        ({"captions": (nothing,)}, "no file .*none; check --captions"),
        ({"instances": (nothing,)}, "no file .*none; check --instances"),
        ({"splits": nothing}, "no file .*none; check --splits"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            Coco(**({"root": images, "captions": (captions,)} | given))
    with pytest.raises(ValueError, match="none of the 4 images .* is in .*; check --images"):
        list(Coco(images, (captions,)).records())


@pytest.mark.shared
def test_official_files_are_read(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco = shared_data / "coco"
    instances = coco / "instances_val2017_subset.json"
    source = Coco(coco / "val2017", (coco / "captions_val2017.json",), (instances,))
    records = list(source.records())
    assert len(records) == 297
    assert "297 of 5,000 images are in" in caplog.text and "188 of them have labels" in caplog.text
    assert sum(len(record.captions) for record in records) > 297 * 4.9
    assert sum(bool(record.labels) for record in records) > 180
    named = {label for record in records for label in record.labels}
    categories = {entry["name"] for entry in json.loads(instances.read_text())["categories"]}
    assert named <= categories


def test_equal_file_names_in_several_folders_are_distinct(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "cam1/1.jpg", "cam2/1.jpg", "cam2/2.jpg")
    named = [image(1, "cam1/1.jpg"), image(2, "cam2/1.jpg"), image(3, "cam1/2.jpg")]
    path = captions_file(tmp_path, images=named, annotations=[caption(n, f"{n}") for n in (1, 2)])
    source = Coco(images, (path,))
    found = {record.key: Path(record.image).parent.name for record in source.records()}
    assert found == {"1": "cam1", "2": "cam2"}  # 3 is not cam2/2.jpg
    bare = captions_file(tmp_path, images=[image(9, "1.jpg"), image(8, "2.jpg")], annotations=[])
    source = Coco(images, (bare,))
    assert [record.key for record in source.records()] == ["8"]
    reason = next(entry.reason for entry in source.skipped_rows() if entry.key == "9")
    assert "it may be cam1/1.jpg or cam2/1.jpg" in reason


def test_ids_can_be_strings(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "a.jpg")
    named = [{"id": "x7", "file_name": "a.jpg"}]
    path = captions_file(tmp_path, images=named, annotations=[{"image_id": "x7", "caption": "a"}])
    (record,) = Coco(images, (path,)).records()
    assert (record.key, record.captions) == ("x7", ("a",))


def test_id_of_two_images_is_skipped_with_both_names(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    first = captions_file(
        tmp_path / "1", images=[image(1, "a.jpg"), image(2, "c.jpg")],
        annotations=[caption(1, "a"), caption(2, "c")],
    )  # fmt: skip
    other = captions_file(tmp_path / "2", images=[image(1, "b.jpg")], annotations=[caption(1, "b")])
    source = Coco(images, (first, other))
    assert {record.key: record.captions for record in source.records()} == {"2": ("c",)}
    reasons = [entry.reason for entry in source.skipped_rows() if "ambiguous" in entry.reason]
    assert len(reasons) == 1 and "1 is a.jpg in" in reasons[0] and "and b.jpg in" in reasons[0]
    assert source.skipped_rows().malformed.total == 1
    instances = instances_file(tmp_path, images=[image(2, "b.jpg")], annotations=[instance(2, 18)])
    assert next(Coco(images, (first,), (instances,)).records()).labels == ()


def test_image_without_file_name_is_found_by_url(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "train2017/1.jpg", "val2017/1.jpg")
    named = [{"id": 1, "coco_url": "http://images.cocodataset.org/val2017/1.jpg"}]
    path = captions_file(tmp_path, images=named, annotations=[caption(1, "a")])
    (record,) = Coco(images, (path,)).records()
    assert Path(record.image).parent.name == "val2017"
