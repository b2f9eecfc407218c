from __future__ import annotations

import os
import pickle
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from sieve.data_prep.records import HASH_SPLIT, Record
from sieve.data_prep.sources.folder import Folder


def save(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def table(folder: Path, *rows: str) -> Path:
    path = folder / "captions.csv"
    path.write_text("\n".join(("image,caption", *rows)), encoding="utf-8")
    return path


def by_key(source: Folder) -> dict[str, Record]:
    return {record.key: record for record in source.records()}


def reason(source: Folder, key: str) -> str:
    with pytest.raises(ValueError) as caught:
        source.open_image(by_key(source)[key], 320)
    return str(caught.value)


def test_images_of_all_subfolders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", "a/deep/x.webp", ".hidden/h.png", "a/.DS_Store.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = Folder(tmp_path)
    records = list(source.records())
    assert [record.key for record in records] == ["a/deep/x.webp", "a/z.jpg", "b.PNG"]
    assert [entry.key for entry in source.skipped_rows()] == ["notes.txt"]
    assert {record.split for record in records} == {HASH_SPLIT}
    assert source.open_image(records[0], 320).size == (6, 4)
    assert source.name == tmp_path.name


def test_captions_are_matched_to_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a.png", "sub/b.png", "sub/d.png", "one/c.png", "two/c.png", "noext.png"):
        save(images / name)
    (images / "noext.png").rename(images / "noext")
    accented = unicodedata.normalize("NFD", "café.png")
    save(images / accented)
    captions = table(
        tmp_path,
        "a.png,first",
        "./a.png,second",
        "b.png,by its file name and the same file by its path",
        "d.png,by its file name",
        f"{images}/one/c.png,by its full path",
        "c.png,ambiguous",
        "sub\\b.png,from Windows",
        f"{unicodedata.normalize('NFC', 'café.png')},accented",
        "noext,without extension",
    )
    source = Folder(images, captions)
    records = by_key(source)
    assert records["a.png"].captions == ("first", "second")
    assert records["sub/b.png"].captions == ("from Windows",)
    assert records["sub/d.png"].captions == ("by its file name",)
    assert records["one/c.png"].captions == ("by its full path",)
    assert records["two/c.png"].captions == ()
    assert not {"b.png", "c.png"} & records.keys()
    assert [(entry.key, entry.reason) for entry in source.skipped_rows()] == [
        ("captions.csv:4", "ambiguous image name: sub\\b.png also refers to sub/b.png; "
         "write its path inside the folder"),
        ("captions.csv:7", "ambiguous image name: it may be one/c.png or two/c.png; "
         "write its path inside the folder"),
    ]  # fmt: skip
    assert records["café.png"].captions == ("accented",)
    assert Path(records["café.png"].image).name == accented
    assert records["noext"].captions == ("without extension",)


def test_missing_image_is_recorded_with_a_reason(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    source = Folder(tmp_path / "images", table(tmp_path, "a.png,x", "gone.png,y"))
    assert reason(source, "gone.png") == "file is missing"


def test_no_file_outside_the_folder_is_read(tmp_path: Path) -> None:
    outside = save(tmp_path / "outside.png")
    images = tmp_path / "images"
    save(images / "a.png")
    os.symlink(outside, images / "link.png")
    os.symlink(images / "a.png", images / "inside.png")
    os.symlink(tmp_path, images / "loop")
    source = Folder(images, table(tmp_path, "../outside.png,x", f"{outside},y"))
    leaves = "leaves the folder: only images inside it are read"
    link = "link leaves the folder: only images inside it are read; use --follow-links to read it"
    assert reason(source, "link.png") == link
    assert reason(source, "../outside.png") == leaves
    assert reason(source, str(outside)) == leaves
    assert source.open_image(by_key(source)["inside.png"], 320).size == (6, 4)
    assert [(s.key, s.reason) for s in source.skipped_rows()] == [
        ("loop", "linked folder: links are not followed; use --follow-links to read it")
    ]


def test_non_utf8_name_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    source = Folder(tmp_path)
    assert list(source.records()) == []
    assert source.skipped_rows()[0].reason == "file name is not UTF-8: rename it"


def test_only_restricts_to_a_list(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a.png", "sub/b.png", "c.png"):
        save(images / name)
    only = tmp_path / "only.txt"
    only.write_text("\ufeffa.png\nb.png\n\na.png\ngone.png\n", encoding="utf-8")
    captions = table(tmp_path, "a.png,", "c.png,", "b.png,a caption")
    source = Folder(images, captions, only=only)
    assert list(by_key(source)) == ["a.png", "gone.png", "sub/b.png"]
    assert by_key(source)["sub/b.png"].captions == ("a caption",)
    assert reason(source, "gone.png") == "file is missing"
    assert [entry.image for entry in source.skipped_rows()] == ["a.png"]


def test_html_in_names_and_captions_is_preserved(tmp_path: Path) -> None:
    save(tmp_path / "images" / "<img src=x>.png")
    captions = table(tmp_path, "<img src=x>.png,<script>alert(1)</script>")
    record = next(Folder(tmp_path / "images", captions).records())
    assert (record.key, record.captions) == ("<img src=x>.png", ("<script>alert(1)</script>",))


def test_missing_paths_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*none; give the folder"):
        Folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no file .*none.csv; check --captions"):
        Folder(tmp_path, tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="no file .*none.txt; check --only"):
        Folder(tmp_path, only=tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError, match="is a folder, not a file; check --captions"):
        Folder(tmp_path, tmp_path)
    shard = save(tmp_path / "shard.png")
    with pytest.raises(NotADirectoryError, match=r"shard\.png is a file; give the folder"):
        Folder(shard)


def test_pickled_source_is_small(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    source = Folder(tmp_path)
    record = next(source.records())
    copy = pickle.loads(pickle.dumps(source))
    assert copy.open_image(record, 320).size == (6, 4)
    assert not any(name.startswith("_") for name in source.__getstate__())


@pytest.mark.shared
def test_photographs_and_captions_are_read(shared_data: Path) -> None:
    folder = shared_data / "flickr8k"
    source = Folder(folder / "images", folder / "captions.csv", only=folder / "dev_images.txt")
    records = list(source.records())
    assert len(records) == 1000
    assert sum(len(record.captions) for record in records) >= 4990
    assert source.open_image(records[0], 320).size == (224, 224)


def test_captions_are_read_from_text_files_next_to_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a.jpg", "sub/b.png", "c.png", "huge.png", "latin.png", "link.png"):
        save(images / name)
    (images / "a.txt").write_text("\ufeffa dog\n\n  on <b>grass</b>\na dog\n", encoding="utf-8")
    (images / "sub" / "b.txt").write_text("a caption")
    (images / "huge.txt").write_bytes(b"x" * (1 << 21))
    (images / "latin.txt").write_bytes("Hündchen".encode("latin-1"))
    (tmp_path / "secret.txt").write_text("outside")
    os.symlink(tmp_path / "secret.txt", images / "link.txt")
    source = Folder(images)
    records = by_key(source)
    assert records["a.jpg"].captions == ("a dog", "on <b>grass</b>")
    assert records["sub/b.png"].captions == ("a caption",)
    assert not any(records[name].captions for name in ("c.png", "huge.png", "latin.png"))
    assert records["link.png"].captions == ()
    reasons = {entry.key: entry.reason.split(":")[0] for entry in source.skipped_rows()}
    assert reasons == {
        "a.txt:4": "duplicate caption",
        "huge.txt": "huge caption file",
        "latin.txt": "caption file cannot be read",
        "link.txt": "caption file leaves the folder",
    }
    assert by_key(Folder(images, table(tmp_path, "a.jpg,a caption")))["sub/b.png"].captions == ()
