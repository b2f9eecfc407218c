from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from published import jpeg, write, write_tars

from sieve.data_prep.records import Record
from sieve.data_prep.sources.conceptual_captions import ConceptualCaptions, conceptual_captions
from sieve.data_prep.sources.img2dataset import Img2Dataset

ROWS = [(f"caption {n} of a <b>dog</b>", f"http://x.org/p{n}.jpg?a=1&b=ü") for n in range(12)]


def table(folder: Path, rows: list[tuple[str, ...]] | None = None, head: str = "") -> Path:
    text = head + "".join("\t".join(row) + "\n" for row in rows or ROWS)
    return write(folder / "Train_GCC-training.tsv", text.encode())


def crc(url: str) -> int:
    return zlib.crc32(url.encode())


NAMINGS: dict[str, Callable[[int, str], str]] = {
    "ViLBERT's first downloader": lambda _, url: f"training/{crc(url)}",
    "its later one": lambda n, url: f"training/{n}_{crc(url)}",
    "with an extension": lambda _, url: f"{crc(url)}.jpg",
    "md5": lambda _, url: hashlib.md5(url.encode()).hexdigest() + ".png",
    "sha256": lambda _, url: "ab/" + hashlib.sha256(url.encode()).hexdigest() + ".jpg",
    "rows": lambda n, _: f"{n}.jpg",
    "padded rows": lambda n, _: f"train_image/{n:08d}.jpg",
}


def source(path: Path, images: Path | None = None, **options: int) -> ConceptualCaptions:
    made = conceptual_captions(path, images, name="cc", licence="none", **options)
    assert isinstance(made, ConceptualCaptions)
    return made


def captions(made: ConceptualCaptions) -> dict[str, tuple[str, ...]]:
    return {record.key: record.captions for record in made.records()}


@pytest.mark.parametrize("naming", NAMINGS)
def test_images_are_found_by_every_naming_scheme(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, naming: str
) -> None:
    here = [0, 4, 7, 10]  # there is no row 0 if the first row is 1
    for number in here:
        write(tmp_path / "images" / NAMINGS[naming](number, ROWS[number][1]), jpeg())
    made = source(table(tmp_path), tmp_path / "images")
    with caplog.at_level(logging.WARNING):
        records = list(made.records())
    assert [(r.key, r.captions) for r in records] == [(ROWS[n][1], (ROWS[n][0],)) for n in here]
    assert made.open_image(records[0], 320).size == (12, 8)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"4 of 12 rows have an image in {tmp_path / 'images'}, ")
    left_out = made.skipped_rows()
    assert len(left_out) == 8
    assert left_out[0] == ("Train_GCC-training.tsv:2", ROWS[1][1], "not downloaded: no such file")


def test_rows_can_be_numbered_from_one(tmp_path: Path) -> None:
    write(tmp_path / "images" / "1.jpg", jpeg())
    made = source(table(tmp_path), tmp_path / "images", first_row=1)
    assert captions(made) == {ROWS[0][1]: (ROWS[0][0],)}


def test_header_and_column_order_of_cc12m_are_read(tmp_path: Path) -> None:
    write(tmp_path / "0.jpg", jpeg())
    made = source(table(tmp_path, head="caption\turl\n"))
    assert captions(made) == {ROWS[0][1]: (ROWS[0][0],)}
    made = source(table(tmp_path, [(url, caption) for caption, url in ROWS]))
    assert captions(made) == {ROWS[0][1]: (ROWS[0][0],)}


def test_labels_of_the_labelled_subset_are_read(tmp_path: Path) -> None:
    write(tmp_path / "0.jpg", jpeg())
    row = ("a dog", "http://x.org/0", "dog,grass,dog", "/m/1,/m/2,/m/1", ".9,.8,.7")
    (record,) = source(table(tmp_path, [row])).records()
    assert record.labels == ("dog", "grass")


def test_malformed_rows_are_skipped(tmp_path: Path) -> None:
    rows = [
        b"a dog\thttp://x.org/0",
        b"no url here",
        b"",
        b"\thttp://x.org/2",
        b'"never closed\thttp://x.org/3',
        b"x" * 200_000 + b"\thttp://x.org/4",
        b"\xff\xfe\x00bytes\thttp://x.org/5",
        b"y" * 6_000 + b"\thttp://x.org/6",
        b"a dog again\thttp://x.org/0",
    ]
    path = write(tmp_path / "cc.tsv", b"\n".join(rows))
    for number in range(8):
        write(tmp_path / "images" / f"{number}.jpg", jpeg())
    made = source(path, tmp_path / "images")
    records = list(made.records())
    assert [(record.key[-1], record.captions) for record in records] == [
        ("0", ("a dog",)),
        ("2", ()),
        ("3", ('"never closed',)),
        ("5", ("\ufffd\ufffd bytes",)),
        ("6", ()),
        ("0", ("a dog again",)),
    ]
    # Bad rows are numbered too, but empty lines are not.
    assert Path(records[1].image).name == "2.jpg" and Path(records[-1].image).name == "7.jpg"
    assert [(entry.key, entry.reason.split(":")[0]) for entry in made.skipped_rows()] == [
        ("cc.tsv:2", "no caption and URL in this row"),
        ("cc.tsv:4", "empty caption"),
        ("cc.tsv:6", "no caption and URL in this row"),
        ("cc.tsv:8", "huge caption"),
        ("1.jpg", "image without a row in the table"),
        ("4.jpg", "image without a row in the table"),
    ]


def test_web_page_saved_as_image_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / str(crc(ROWS[0][1])), b"<!doctype html><title>404</title>")
    made = source(table(tmp_path))
    (record,) = made.records()
    with pytest.raises(ValueError, match="not an image of a known format"):
        made.open_image(record, 320)


def test_no_file_outside_the_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "outside.jpg", jpeg())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").symlink_to(tmp_path / "outside.jpg")
    made = source(table(tmp_path), tmp_path / "images")
    (record,) = made.records()
    with pytest.raises(ValueError, match="leaves the folder"):
        made.open_image(record, 320)
    with pytest.raises(ValueError, match="leaves the folder"):
        made.open_image(Record("x", str(tmp_path / "outside.jpg")), 320)


def test_input_format_is_detected_or_requested(tmp_path: Path) -> None:
    assert isinstance(
        conceptual_captions(write_tars(tmp_path / "cc"), name="cc", licence=""), Img2Dataset
    )
    write(tmp_path / "0.jpg", jpeg())
    path = table(tmp_path)
    assert len(captions(source(tmp_path))) == 1
    with pytest.raises(ValueError, match="--images requires the official table"):
        conceptual_captions(tmp_path / "cc", tmp_path, name="cc", licence="")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"none of the 12 rows of .* CRC-32 of the URL.*--images"):
        list(source(path, tmp_path / "none").records())
    with pytest.raises(FileNotFoundError, match="check --images"):
        source(path, tmp_path / "nowhere")
    write(tmp_path / "Validation.tsv", b"")
    with pytest.raises(ValueError, match="several tables .*give one of them, and --images"):
        source(tmp_path)
    with pytest.raises(FileNotFoundError, match="give the folder of the shards"):
        conceptual_captions(tmp_path / "nothing", name="cc", licence="")


def numbered_images(folder: Path, *numbers: int) -> Path:
    for number in numbers:
        write(folder / f"{number:05}.jpg", jpeg())
    return folder


def test_row_numbers_from_one_are_detected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = numbered_images(tmp_path / "images", *range(1, 13))
    with caplog.at_level(logging.WARNING):
        assert captions(source(table(tmp_path), images)) == {url: (c,) for c, url in ROWS}
    assert "number of the row, counted from 1 (12 files fit, from 0 11)" in caplog.text
    (images / "00001.jpg").unlink()  # 12 is a row number only if the first row is 1
    assert len(captions(source(table(tmp_path), images))) == 11


@pytest.mark.parametrize("numbers", [(1, 5, 9), (0, 5, 12), (3, 40)])
def test_ambiguous_row_numbers_are_rejected(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    images = numbered_images(tmp_path / "images", *numbers)
    with pytest.raises(ValueError, match=r"from 0 \d and from 1 \d of the files fit"):
        list(source(table(tmp_path), images).records())
    found = [Path(r.image).name for r in source(table(tmp_path), images, first_row=1).records()]
    assert found == [f"{number:05}.jpg" for number in numbers if 1 <= number <= 12]


def test_equal_file_names_in_two_folders_are_rejected(tmp_path: Path) -> None:
    numbered_images(tmp_path / "images" / "a", 0, 1)
    numbered_images(tmp_path / "images" / "b", 1)
    with pytest.raises(ValueError, match=r"tsv:2 matches a/00001.jpg and b/00001.jpg"):
        list(source(table(tmp_path), tmp_path / "images").records())


def test_first_row_without_a_url_is_counted(tmp_path: Path) -> None:
    images = numbered_images(tmp_path / "images", *range(13))
    made = source(table(tmp_path, head="a row without its address\n"), images)
    assert [Path(r.image).name for r in made.records()][:2] == ["00001.jpg", "00002.jpg"]
    with pytest.raises(ValueError, match="1 of 13 rows cannot be read, more than 5%"):
        made.skipped_rows().check()


@pytest.mark.parametrize(
    "head", ["URL\tTEXT", "TEXT\tsimilarity\tURL", "title\turl\tNSFW", "Prompt\tImage_URL"]
)
def test_columns_are_found_by_name(tmp_path: Path, head: str) -> None:
    names = head.split("\t")
    url = next(i for i, name in enumerate(names) if "url" in name.lower())
    text = next(i for i, name in enumerate(names) if name.lower() in ("text", "title", "prompt"))
    lines = [head]
    for caption, address in ROWS:
        cells = ["0.3"] * len(names)
        cells[url], cells[text] = address, caption
        lines.append("\t".join(cells))
    path = write(tmp_path / "laion.tsv", "\n".join([*lines, "too\tmany\tcells\there"]).encode())
    for _, address in ROWS:
        write(tmp_path / "images" / f"{crc(address)}.jpg", jpeg())
    made = source(path, tmp_path / "images")
    assert captions(made) == {address: (caption,) for caption, address in ROWS}
    assert made.skipped_rows()[0].reason.startswith("wrong number of fields: 4")


def test_table_without_images_error_shows_the_download_command(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = table(tmp_path, head="caption\turl\n")
    with pytest.raises(ValueError, match=r"run img2dataset first: .* tsv --url_col url"):
        list(source(path, tmp_path / "images").records())


def test_linked_folder_error_suggests_no_unsupported_option(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "2.jpg", jpeg())
    write(tmp_path / "images" / "0.jpg", jpeg())
    (tmp_path / "images" / "more").symlink_to(tmp_path / "outside")
    (tmp_path / "a.tsv").write_text("a dog\thttps://example.org/a\na cat\thttps://example.org/b\n")
    made = ConceptualCaptions(tmp_path / "a.tsv", root=tmp_path / "images", first_row=0)
    assert [record.captions for record in made.records()] == [("a dog",)]
    assert "linked folder: links are not followed" in {e.reason for e in made.skipped_rows()}
