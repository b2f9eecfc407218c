from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.captions import Columns, read_captions


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "captions.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_of_one_image_come_together(tmp_path: Path) -> None:
    text = (
        "image,caption,split,labels\n"
        'a.jpg,"a dog, running",train,dog; grass\n'
        'b.jpg,"she said ""hello""\nand left",val,\n'
        "a.jpg,a brown dog,,dog;ball\n"
        "a.jpg,a brown dog,,\n"
    )
    read = read_captions(written(tmp_path, text))
    assert read.images["a.jpg"].captions == ["a dog, running", "a brown dog"]
    assert read.images["a.jpg"].labels == ["dog", "grass", "ball"]
    assert read.images["a.jpg"].split == "train"
    assert read.images["b.jpg"].captions == ['she said "hello" and left']
    assert read.images["b.jpg"].split == "select"
    assert [(s.key, s.reason) for s in read.skipped] == [("captions.csv:6", "duplicate caption")]


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    read = read_captions(written(tmp_path, "\ufeffimage,caption\r\na.jpg,ein Hündchen\r\n"))
    assert read.images["a.jpg"].captions == ["ein Hündchen"]


def test_bad_rows_are_named_and_the_others_kept(tmp_path: Path) -> None:
    rows = ["image,caption", "a.jpg,", "b.jpg", ",lonely", f"c.jpg,{'x' * 6000}", "", "d.jpg,good"]
    read = read_captions(written(tmp_path, "\n".join(rows)))
    assert [(s.key, s.image, s.reason.split(":")[0]) for s in read.skipped] == [
        ("captions.csv:2", "a.jpg", "empty caption"),
        ("captions.csv:3", "b.jpg", "too few fields"),
        ("captions.csv:4", "", "no image name"),
        ("captions.csv:5", "c.jpg", "huge caption"),
    ]
    assert read.images["d.jpg"].captions == ["good"]


def test_an_unclosed_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    lines = ["image,caption", 'a.jpg,"never closed'] + ["b.jpg,a dog"] * 20_000 + ["c.jpg,a cat"]
    read = read_captions(written(tmp_path, "\n".join(lines)))
    assert read.images["c.jpg"].captions == ["a cat"]
    assert any("not a CSV row" in entry.reason for entry in read.skipped)


def test_html_and_emoji_stay_text_and_control_characters_go(tmp_path: Path) -> None:
    text = "image,caption\na.jpg,<b>x</b> & \U0001f469\u200d\U0001f680 \u202bשלום\x07\x00 end\n"
    captions = read_captions(written(tmp_path, text)).images["a.jpg"].captions
    assert captions == ["<b>x</b> & \U0001f469\u200d\U0001f680 \u202bשלום end"]


def test_a_missing_column_is_answered_with_those_found(tmp_path: Path) -> None:
    path = written(tmp_path, "file,comment\na.jpg,a dog\n")
    with pytest.raises(ValueError, match="no column 'image'; its columns are: file, comment"):
        read_captions(path)
    with pytest.raises(ValueError, match="no column 'fold'"):
        read_captions(path, Columns("file", "comment", split="fold"))
    assert read_captions(path, Columns("file", "comment")).images["a.jpg"].captions == ["a dog"]
    with pytest.raises(ValueError, match="its columns are: none"):
        read_captions(written(tmp_path, ""))


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption,split\na.jpg,x,train\na.jpg,y,holdout\n")
    with pytest.raises(ValueError, match="captions.csv:3 has split 'holdout'; expected train"):
        read_captions(path)


def test_the_first_of_two_splits_counts(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption,split\na.jpg,x,test\na.jpg,y,train\n")
    read = read_captions(path)
    assert read.images["a.jpg"].split == "test"
    assert [entry.reason for entry in read.skipped] == [
        "split train contradicts test before, which counts"
    ]


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption\na.jpg,ein Hündchen\n", "latin-1")
    with pytest.raises(ValueError, match="not UTF-8 .* at byte .*save it as UTF-8"):
        read_captions(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no caption file .*none.csv; check --captions"):
        read_captions(tmp_path / "none.csv")
