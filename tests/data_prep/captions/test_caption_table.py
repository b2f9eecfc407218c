from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve.data_prep.captions.caption_table import read_captions
from sieve.data_prep.captions.caption_text import Columns


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "captions.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_of_one_image_are_grouped(tmp_path: Path) -> None:
    text = (
        "image,caption,split,labels\n"
        'a.jpg,"a dog, running",train,dog; grass\n'
        'b.jpg,"she said ""hello""\nand left",val,\n'
        "a.jpg,a brown dog,,dog;ball\n"
        "a.jpg,a brown dog,,\n"
    )
    read = read_captions(written(tmp_path, text))
    assert read["a.jpg"].captions == ["a dog, running", "a brown dog"]
    assert read["a.jpg"].labels == ["dog", "grass", "ball"]
    assert read["a.jpg"].split == "train"
    assert read["b.jpg"].captions == ['she said "hello" and left']
    assert read["b.jpg"].split == "select"
    assert [(s.key, s.reason) for s in read.skipped] == [("captions.csv:6", "duplicate caption")]


def test_byte_order_mark_and_crlf_are_read(tmp_path: Path) -> None:
    read = read_captions(written(tmp_path, "\ufeffimage,caption\r\na.jpg,ein Hündchen\r\n"))
    assert read["a.jpg"].captions == ["ein Hündchen"]


def test_captions_of_invisible_characters_are_empty(tmp_path: Path) -> None:
    rows = ["image,caption", "a.jpg,\u200b", "b.jpg,\u2060 \ufeff", "c.jpg,a\u200bdog", "d.jpg,🐕"]
    read = read_captions(written(tmp_path, "\n".join(rows)))
    assert [(s.key, s.reason) for s in read.skipped] == [
        ("captions.csv:2", "empty caption"),
        ("captions.csv:3", "empty caption"),
    ]
    assert read["c.jpg"].captions == ["a\u200bdog"]
    assert read["d.jpg"].captions == ["🐕"]


def test_bad_rows_are_reported_and_others_read(tmp_path: Path) -> None:
    rows = ["image,caption", "a.jpg,", "b.jpg", ",lonely", f"c.jpg,{'x' * 6000}", "", "d.jpg,good"]
    read = read_captions(written(tmp_path, "\n".join(rows)))
    assert [(s.key, s.image, s.reason.split(":")[0]) for s in read.skipped] == [
        ("captions.csv:2", "a.jpg", "empty caption"),
        ("captions.csv:3", "b.jpg", "too few fields"),
        ("captions.csv:4", "", "no image name"),
        ("captions.csv:5", "c.jpg", "huge caption"),
    ]
    assert read["d.jpg"].captions == ["good"]


def test_unclosed_quote_does_not_consume_the_file(tmp_path: Path) -> None:
    lines = ["image,caption", 'a.jpg,"never closed'] + ["b.jpg,a dog"] * 20_000 + ["c.jpg,a cat"]
    read = read_captions(written(tmp_path, "\n".join(lines)))
    assert read["c.jpg"].captions == ["a cat"]
    assert any("not a CSV row" in entry.reason for entry in read.skipped)


def test_html_and_emoji_are_preserved_and_control_characters_removed(tmp_path: Path) -> None:
    text = "image,caption\na.jpg,<b>x</b> & \U0001f469\u200d\U0001f680 \u202bשלום\x07\x00 end\n"
    captions = read_captions(written(tmp_path, text))["a.jpg"].captions
    assert captions == ["<b>x</b> & \U0001f469\u200d\U0001f680 \u202bשלום end"]


def test_missing_column_error_lists_the_columns_found(tmp_path: Path) -> None:
    path = written(tmp_path, "picture,comment\na.jpg,a dog\n")
    with pytest.raises(ValueError, match="no column 'image'; its columns are: picture, comment"):
        read_captions(path)
    with pytest.raises(ValueError, match="no column 'fold'"):
        read_captions(path, Columns("picture", "comment", split="fold"))
    assert read_captions(path, Columns("picture", "comment"))["a.jpg"].captions == ["a dog"]
    with pytest.raises(ValueError, match="its columns are: none"):
        read_captions(written(tmp_path, ""))


def test_unknown_split_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption,split\na.jpg,x,train\na.jpg,y,holdout\n")
    with pytest.raises(ValueError, match="captions.csv:3 has split 'holdout'; expected train"):
        read_captions(path)


def test_first_of_two_splits_is_used(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption,split\na.jpg,x,test\na.jpg,y,train\n")
    read = read_captions(path)
    assert read["a.jpg"].split == "test"
    assert [entry.reason for entry in read.skipped] == [
        "split train contradicts the image's earlier split test, which is used"
    ]


def test_undeclared_encoding_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption\na.jpg,ein Hündchen\n", "latin-1")
    with pytest.raises(ValueError, match="not UTF-8 .* at byte .*save it as UTF-8"):
        read_captions(path)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no caption file .*none.csv; check --captions"):
        read_captions(tmp_path / "none.csv")


def all_of(path: Path, columns: Columns | None = None) -> dict[str, list[str]]:
    return {key: described.captions for key, described in read_captions(path, columns).items()}


def test_flickr30k_results_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(
        "image_name| comment_number| comment\n"
        '1000.jpg| 0| Two young guys, "with" shaggy hair .\n'
        '1000.jpg| 1| "Quoted" from the start .\n'
        "2199.jpg| 4   A dog runs across the grass .\n"  # the real file has one such row
        "2199.jpg| 0| A dog .\n"
    )
    read = read_captions(path)
    assert read["1000.jpg"].captions == [
        'Two young guys, "with" shaggy hair .',
        '"Quoted" from the start .',
    ]
    assert read["2199.jpg"].captions == ["A dog ."]
    assert [(s.key, s.reason) for s in read.skipped] == [
        ("results.csv:4", "too few fields: 2, expected 3")
    ]


def test_flickr_token_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "Flickr8k.token.txt"
    path.write_text(
        "1000.jpg#0\tA child in a pink dress , entering .\n"
        '1000.jpg#1\t" A girl " going in .\n'
        "1001.jpg#0\tA dog .\n"
    )
    assert all_of(path) == {
        "1000.jpg": ["A child in a pink dress , entering .", '" A girl " going in .'],
        "1001.jpg": ["A dog ."],
    }
    (tmp_path / "results_20130124.token").write_bytes(path.read_bytes())
    assert all_of(tmp_path / "results_20130124.token") == all_of(path)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiter_is_detected(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "captions.tsv"
    path.write_text(f"caption{delimiter}filename\na dog{delimiter}a.jpg\n")
    assert all_of(path) == {"a.jpg": ["a dog"]}


def test_json_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    lines = [
        '{"file_name": "a.jpg", "text": "a dog", "split": "val", "labels": ["dog; wet", "grass"]}',
        "",
        '{"file_name": "b.jpg", "text": ["one", "two", "one"]}',
        '{"file_name": "c.jpg"}',
        '{"file_name": "d.jpg", "text": NaN}',
        "[1, 2]",
        "{broken",
        "[" * 100_000,
        '{"text": "lonely"}',
    ]
    path.write_text("\n".join(lines))
    read = read_captions(path)
    assert (read["a.jpg"].captions, read["a.jpg"].labels) == (["a dog"], ["dog; wet", "grass"])
    assert read["a.jpg"].split == "select"
    assert read["b.jpg"].captions == ["one", "two"]
    assert read["c.jpg"].captions == []
    assert [(s.key.partition(":")[2], s.reason.split(":")[0]) for s in read.skipped] == [
        ("3", "duplicate caption"),
        ("4", "empty caption"),
        ("5", "empty caption"),
        ("6", "not a JSON object"),
        ("7", "not a JSON line"),
        ("8", "not a JSON line"),
        ("9", "no image name"),
    ]
    assert all_of(path, Columns(image="text", caption="file_name"))["a dog"] == ["a.jpg"]


def test_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    table = {
        "image_path": ["a.jpg", "b.jpg", "a.jpg", None],
        "caption": [["x", "y"], None, ["x"], ["z"]],
        "labels": [["dog"], [], ["cat"], None],
    }
    pq.write_table(pa.table(table), path)
    read = read_captions(path)
    assert (read["a.jpg"].captions, read["a.jpg"].labels) == (["x", "y"], ["dog", "cat"])
    assert read["b.jpg"].captions == []
    assert [(s.key, s.reason) for s in read.skipped] == [
        ("captions.parquet:2", "empty caption"),
        ("captions.parquet:3", "duplicate caption"),
        ("captions.parquet:4", "no image name"),
    ]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="captions.parquet cannot be read as Parquet"):
        read_captions(path)


def test_unsupported_format_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "captions.xlsx"
    path.write_text("{}")
    with pytest.raises(ValueError, match="has an unknown format; expected one of .csv, .json, "):
        read_captions(path)
    with pytest.raises(ValueError, match="captions.csv.gz is compressed; decompress it first"):
        read_captions(path.rename(tmp_path / "captions.csv.gz"))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", "", "z"]),
                  st.sampled_from(["", "train", "val", "test"])), max_size=12,
    )
)  # fmt: skip
def test_row_grouping_matches_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "captions.csv"
    path.write_text("\n".join(["image,caption,split", *(",".join(row) for row in rows)]))
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    n_faults = 0
    for image, caption, split in rows:
        saved = captions.setdefault(image, [])
        n_faults += not caption or caption in saved
        saved += [caption] if caption and caption not in saved else []
        text = {"val": "select"}.get(split, split)
        n_faults += bool(text and splits.get(image, text) != text)
        if text:
            splits.setdefault(image, text)
    read = read_captions(path)
    assert all_of(path) == captions and list(read) == list(captions)
    assert {key: text.split for key, text in read.items() if text.split} == splits
    assert len(read.skipped) == n_faults


def captions_of(path: Path) -> dict[str, list[str]]:
    return {key: text.captions for key, text in read_captions(path).items()}


@pytest.mark.parametrize(
    ("value", "split"),
    [
        ([{"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b.jpg", "caption": "b"}], ""),
        ({"a.jpg": ["one", "two"], "b.jpg": "b"}, ""),
        ({"a.jpg": {"caption": ["one", "two"], "tags": "x, y"}, "b.jpg": {"caption": "b"}}, ""),
        (
            {
                "images": [
                    {"filename": "a.jpg", "split": "val", "sentences": [{"raw": "one"},
                                                                        {"raw": "two"}]},
                    {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "b"}]},
                ],
                "dataset": "flickr8k",
            },
            "select",
        ),
        (
            {
                "images": [{"id": "x", "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
                "annotations": [
                    {"image_id": "x", "caption": "one"},
                    {"image_id": "x", "caption": "two"},
                    {"image_id": 2, "caption": "b"},
                ],
            },
            "",
        ),
    ],
)  # fmt: skip
def test_json_layouts_are_read(tmp_path: Path, value: object, split: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    assert captions_of(path) == {"a.jpg": ["one", "two"], "b.jpg": ["b"]}
    assert read_captions(path)["a.jpg"].split == split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"info": 1, "images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": []}]}',
         "no annotation has a caption, their keys are image_id, bbox"),
        ('{"a.jpg": "x", "a.jpg": "y"}', "the key 'a.jpg' occurs twice"),
        ("[1, 2]", "holds a list of int; expected a list of objects"),
        ('[{"image_id": 1, "caption": "x"}]', "has no column 'image'; its columns are: image_id"),
        ('{"version": 1, "n": 2}', "the keys version, n, none of them with captions"),
        ("{", "is not JSON"),
    ],
)  # fmt: skip
def test_unsupported_json_error_lists_supported_layouts(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_captions(path)


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("sep=;\nimage;caption\na.jpg;one, two\n", ["one, two"]),
        ("Image_Name,Comment\na.jpg,one\n", ["one"]),
        (",image,caption\n0,a.jpg,one\n", ["one"]),
        ('image, caption\na.jpg, "one, two"\n', ["one, two"]),
        ("image,caption\na.jpg,one, two, three\n", ["one, two, three"]),
        ("image,caption_1,caption_2\na.jpg,one,two\n", ["one", "two"]),
        ('a.jpg,"one, two"\n', ["one, two"]),
        ("a.jpg#0#\tone\na.jpg#1#\ttwo\n", ["one", "two"]),
        ("a.jpg#enc#0\tone\n", ["one"]),
        ("image,caption\na.jpg,\"['one', 'two']\"\n", ["one", "two"]),
        ('image\tcaption\na.jpg\t"one" and two\n', ['"one" and two']),
        ("image,caption\na.jpg,NULL\na.jpg,nan\n", []),
    ],
)
def test_common_text_tables_are_read(tmp_path: Path, text: str, captions: list[str]) -> None:
    assert captions_of(written(tmp_path, text)) == {"a.jpg": captions}


def test_extra_fields_join_the_caption_only_in_the_last_column(tmp_path: Path) -> None:
    text = "image,caption,split\na.jpg,one, two,train\nb.jpg,b,train\n"
    read = read_captions(written(tmp_path, text))
    assert list(read) == ["b.jpg"]
    assert read.skipped[0].reason.startswith("too many fields: 4, expected 3")
    joined = read_captions(written(tmp_path, "image,caption\na.jpg,oneb.jpg,two\n"))
    assert (list(joined), joined.skipped.malformed.total) == ([], 1)


def test_several_caption_columns_are_rejected_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "path,title,description\na.jpg,x,y\n")
    with pytest.raises(ValueError, match="'title' or 'description'; name one with --caption-col"):
        read_captions(path)
    assert read_captions(path, Columns(caption="title"))["a.jpg"].captions == ["x"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_mark_sets_the_encoding(tmp_path: Path, encoding: str) -> None:
    assert captions_of(written(tmp_path, "image,caption\na.jpg,é\n", encoding)) == {"a.jpg": ["é"]}


def test_encoding_can_be_set(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption\na.jpg,é\n", "latin-1")
    assert read_captions(path, Columns(encoding="latin-1"))["a.jpg"].captions == ["é"]
    with pytest.raises(ValueError, match="no encoding 'klingon'"):
        read_captions(path, Columns(encoding="klingon"))


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("image,filename,caption\n3,0.png,a dog\n", "0.png"),
        ("image,path,caption\n0.png,/data/0.PNG,a dog\n", "0.png"),
        ("image,path,caption\n0,/data/x,a dog\n", "0"),
        ("file_name,img,caption\n0.png#1,C:\\p\\0.png,a dog\n", "0.png"),
    ],
)
def test_column_with_file_names_is_chosen(tmp_path: Path, text: str, image: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert list(read_captions(tmp_path / "a.csv")) == [image]


def test_columns_with_different_file_names_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("image,filename,caption\n3.png,0.png,a dog\n1.png,1.png,a cat\n")
    read = read_captions(file)
    assert list(read) == ["1.png"]
    assert [entry.reason for entry in read.skipped] == [
        "row cannot be read: ambiguous image name, 3.png in image and 0.png in filename; name the "
        "column with --image-column"
    ]
    assert list(read_captions(file, Columns(image="filename"))) == ["0.png", "1.png"]


def test_json_lines_in_another_encoding_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"image": "0.png", "caption": "a dog"}\n' * 2, encoding="utf-16")
    with pytest.raises(ValueError, match="a.jsonl is UTF-16; JSON lines are UTF-8"):
        read_captions(file)
