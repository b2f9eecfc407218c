from __future__ import annotations

import logging
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import add_member, jpeg, write, write_files, write_json, write_tables, write_tars

from sieve.data_prep.prepare import prepare
from sieve.data_prep.records import Record
from sieve.data_prep.sources.img2dataset import Img2Dataset
from sieve.model.backbone.clip import Backbone

LAYOUTS = {"tar": write_tars, "files": write_files, "parquet": write_tables}


def reasons(source: Img2Dataset) -> dict[str, str]:
    return {entry.key: entry.reason for entry in source.skipped_rows()}


def colour(source: Img2Dataset, record: Record) -> tuple[int, ...]:
    return tuple(round(value / 127) for value in source.open_image(record, 320).getpixel((3, 3)))  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: str
) -> None:
    source = Img2Dataset(LAYOUTS[layout](tmp_path / "cc3m"))
    with caplog.at_level(logging.WARNING):
        records = list(source.records())
    assert [(r.key, r.captions) for r in records] == [
        ("00000/000000000", ("a red <b>dog</b>",)),
        ("00000/000000002", ("a blue boat",)),
        ("00001/000010000", ()),
    ]
    assert [colour(source, record) for record in records] == [(2, 0, 0), (0, 0, 2), (0, 1, 0)]
    assert source.name == "cc3m"
    shard = {"tar": "00000.tar", "files": "00000", "parquet": "00000.parquet"}[layout]
    assert reasons(source) == {
        f"{shard}/000000001": "not downloaded: HTTP Error 404",
        "00001/000010000": "empty caption",
    }
    warning = f"3 of 4 images of {source.path} were downloaded; skipped.csv lists the others"
    assert caplog.messages == [warning]


def test_layouts_give_the_same_collection(tmp_path: Path, tiny_backbone: Backbone) -> None:
    made = {
        name: prepare(
            Img2Dataset(write(tmp_path / name / "cc")), tiny_backbone, tmp_path / f"{name}-made",
            workers=2 if name == "tar" else 0, progress=False,
        )
        for name, write in LAYOUTS.items()
    }  # fmt: skip
    files = [collection.manifest.files for collection in made.values()]
    for part in ("image_embeddings.npy", "text_embeddings.npy", "caption_item.npy"):
        assert len({facts[part].sha256 for facts in files}) == 1
    ids = [collection.items["id"].tolist() for collection in made.values()]
    assert ids[0] == ids[1] == ids[2]


def test_single_shard_is_read(tmp_path: Path) -> None:
    tar = write_tars(tmp_path / "cc") / "00001.tar"
    assert [record.key for record in Img2Dataset(tar).records()] == ["00001/000010000"]
    table = write_tables(tmp_path / "tables") / "00000.parquet"
    assert len(list(Img2Dataset(table).records())) == 2


def test_shards_that_each_count_from_zero_are_read(tmp_path: Path) -> None:
    for shard in ("train/0.tar", "train/1.tar", "val/0.tar"):
        (tmp_path / shard).parent.mkdir(exist_ok=True)
        with tarfile.open(tmp_path / shard, "w") as tar:
            add_member(tar, "./0.jpg", jpeg())
            add_member(tar, "./0.txt", b"x")
    keys = [record.key for record in Img2Dataset(tmp_path).records()]
    assert keys == ["train/0/0", "train/1/0", "val/0/0"]


def test_pickled_source_is_small_and_reads_in_place(tmp_path: Path) -> None:
    source = Img2Dataset(write_tars(tmp_path / "cc"))
    records = list(source.records())
    before = sorted(path for path in tmp_path.rglob("*"))
    copy = pickle.loads(pickle.dumps(source))
    assert colour(copy, records[1]) == (0, 0, 2)
    assert not any(name.startswith("_") for name in vars(copy))
    assert sorted(path for path in tmp_path.rglob("*")) == before


def hostile_tar(path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        add_member(tar, "../../escape.jpg", jpeg("red"))
        add_member(tar, "../../escape.txt", b"climbs")
        add_member(tar, "/etc/absolute.jpg", jpeg("blue"))
        add_member(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(tar, "hard.jpg", b"", type=tarfile.LNKTYPE, linkname="../../escape.jpg")
        add_member(tar, "device.jpg", b"", type=tarfile.CHRTYPE)
        add_member(tar, "folder.jpg", b"", type=tarfile.DIRTYPE)
        add_member(tar, "empty.jpg", b"")
        add_member(tar, "lonely.txt", b"no image")
        add_member(tar, "page.jpg", b"<html><script>alert(1)</script>")
        add_member(tar, "long.jpg", jpeg())
        add_member(tar, "long.txt", b"x" * ((1 << 20) + 1))
        add_member(tar, "na\nme\u202e<i>.jpg", jpeg())
        add_member(tar, "bad.json.jpg", jpeg())
        add_member(tar, "bad.json", b"[" * 100_000)
        add_member(tar, "noext", b"?")
    return path


def test_malicious_tar_is_read_safely(tmp_path: Path) -> None:
    source = Img2Dataset(hostile_tar(tmp_path / "00000.tar"))
    records = {record.key.removeprefix("00000/"): record for record in source.records()}
    assert records["../../escape"].captions == ("climbs",)
    assert colour(source, records["../../escape"]) == (2, 0, 0)
    assert colour(source, records["/etc/absolute"]) == (0, 0, 2)
    for key, reason in {"empty": "file is empty", "page": "not an image of a known format"}.items():
        with pytest.raises(ValueError, match=reason):
            source.open_image(records[key], 320)
    assert {"long", "na\nme\u202e<i>", "bad"} <= set(records)
    assert not {"link", "hard", "device", "folder", "lonely", "noext"} & set(records)
    left_out = reasons(source)
    for name in ("link", "hard", "device"):
        assert left_out[f"00000.tar::{name}.jpg"].startswith("a link or a device in a tar file")
    assert left_out["00000.tar::lonely"] == "no image in this sample"
    assert left_out["00000.tar::long.txt"].startswith("too large: 1,048,577 bytes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.tar"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_intact_members_of_a_truncated_tar_are_read(tmp_path: Path, share: float) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for index in range(20):
            add_member(tar, f"{index:03}.jpg", jpeg() + b"\0" * 2000)
            size = tar.getmembers()[0].size
    saved = int(20 * 3584 * share) + 700  # a member: 512 bytes of header, 3,072 of data
    path.write_bytes(path.read_bytes()[:saved])
    source = Img2Dataset(path)
    records = list(source.records())
    assert len(records) == sum(start + 512 + size <= saved for start in range(0, 20 * 3584, 3584))
    assert all(colour(source, record) == (2, 0, 0) for record in records)
    assert any("tar" in reason for reason in reasons(source).values())


def overwrite(path: Path, at: int, data: bytes) -> Path:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(data)
    return path


@pytest.mark.parametrize(
    ("harm", "at", "data"),
    [
        ("a header of noise", 1024, b"\xff" * 512),
        ("a size beyond the file", 1024 + 124, b"77777777777\0"),
        ("no tar at all", 0, b"no tar" * 100),
    ],
)
def test_damaged_tar_is_reported(tmp_path: Path, harm: str, at: int, data: bytes) -> None:  # noqa: ARG001
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for index in range(3):
            add_member(tar, f"{index}.jpg", jpeg()[:500])
    overwrite(path, at, data)
    source = Img2Dataset(path)
    assert len(list(source.records())) == (0 if at == 0 else 1)
    assert reasons(source)["0.tar"].startswith("damaged tar file, read up to the damage: ")


def test_backward_pointing_headers_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        add_member(tar, "0.jpg", jpeg()[:500])
        add_member(tar, "1.jpg", jpeg()[:500])
    data = bytearray(path.read_bytes())
    header = data[1024:1536]
    header[124:136] = b"\xff" * 8 + (-1536).to_bytes(4, "big", signed=True)  # base 256: negative
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    data[1024:1536] = header
    path.write_bytes(bytes(data))
    source = Img2Dataset(path)
    assert len(list(source.records())) == 1
    assert "0.tar" in reasons(source)


def test_oversized_member_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sieve.data_prep.sources.webdataset.MAX_MEMBER_BYTES", 100)
    source = Img2Dataset(write_tars(tmp_path / "cc") / "00000.tar")
    assert list(source.records()) == []
    assert reasons(source)["00000.tar::000000000.jpg"].startswith("too large: ")


def test_hugging_face_tables_are_read(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": jpeg("blue"), "path": "a.jpg"}, "text": "a boat"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    source = Img2Dataset(tmp_path)
    (record,) = source.records()
    assert (record.key, record.captions) == ("train/0-0", ("a boat",))
    assert colour(source, record) == (0, 0, 2)


def test_oversized_row_group_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Img2Dataset(write_tables(tmp_path / "cc"))
    record = next(source.records())
    monkeypatch.setattr("sieve.data_prep.sources.img2dataset.MAX_GROUP_BYTES", 10)
    with pytest.raises(ValueError, match="too large: row group 0 has .*smaller row groups"):
        source.open_image(record, 320)


def test_damaged_tables_are_reported(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars")
    write(tars / "00000.parquet", b"PAR1 no table PAR1")
    assert reasons(Img2Dataset(tars))["00000.tar"].startswith("damaged Parquet file: ")
    tables = write_tables(tmp_path / "tables")
    data = bytearray((tables / "00001.parquet").read_bytes())
    data[4:60] = b"\xff" * 56
    (tables / "00001.parquet").write_bytes(bytes(data))
    source = Img2Dataset(tables)
    opened: list[str] = []
    for record in source.records():
        try:
            source.open_image(record, 320)
            opened.append(record.key)
        except ValueError as error:
            assert "damaged" in str(error) or "image" in str(error)
    assert opened[:2] == ["00000/000000000", "00000/000000002"]


def test_links_next_to_images_are_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", b"secret")
    folder = tmp_path / "cc" / "00000"
    write(folder / "a.jpg", jpeg())
    write_json(folder / "a.json", {"caption": "from the facts", "key": "a"})
    os.symlink(secret, folder / "a.txt")
    (record,) = Img2Dataset(tmp_path / "cc").records()
    assert record.captions == ("from the facts",)


Make = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "there is no .*none"),
        (lambda folder: folder, "holds no .tar shards"),
        (lambda folder: write(folder / "a.zip", b"PK"), "holds no .tar shards"),
        (lambda folder: write(folder / "a.parquet", b"PAR1"), "holds no .tar shards"),
    ],
)
def test_other_folders_are_rejected(tmp_path: Path, make: Make, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Img2Dataset(make(tmp_path))


def test_json_that_contradicts_the_text_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "shards" / "00000"
    folder.mkdir(parents=True)
    for number, value in enumerate(
        ({"caption": "a dog"}, {"caption": "a cat"}, {"caption": 3}, [1], ["a dog", "a hound"])
    ):
        (folder / f"{number}.jpg").write_bytes(jpeg())
        (folder / f"{number}.txt").write_text("a dog")
        write_json(folder / f"{number}.json", value)
    source = Img2Dataset(tmp_path / "shards")
    assert {record.captions for record in source.records()} == {("a dog",)}
    assert reasons(source) == {
        "00000/1": "caption not used: .json has 'a cat'; the text file takes precedence",
        "00000/2": "JSON file not read: expected a caption, found the number 3",
        "00000/3": "JSON file not read: expected a caption, found the number 1",
        "00000/4": "caption not used: .json has 'a hound'; the text file takes precedence",
    }
