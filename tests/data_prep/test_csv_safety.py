"""Test that lists of skipped and duplicate files contain no formulas."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sieve.data_prep.pipeline.near_duplicates import write_duplicates
from sieve.data_prep.records import Skipped, read_skipped, write_skipped
from sieve.model.collection import DUPLICATES, IMAGE_EMBEDDINGS, ITEMS, thumbnail_path
from sieve.model.files import read_cell, safe_cell


@given(st.from_regex(r"'*[=+@a-]*", fullmatch=True))
def test_reading_reverses_writing(text: str) -> None:
    assert read_cell(safe_cell(text)) == text
    assert not safe_cell(text).startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0.jpg", "@SUM(1).png", "-1+1.jpg", "+a.jpg"])
def test_name_of_a_skipped_file_is_not_a_formula(tmp_path: Path, name: str) -> None:
    entry = Skipped(name, f"={name}", "damaged image")
    write_skipped(tmp_path / "skipped.csv", [entry])
    with (tmp_path / "skipped.csv").open(newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert list(read_skipped(tmp_path / "skipped.csv")) == [entry]


def test_name_of_a_duplicate_is_not_a_formula(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0.jpg", "@SUM(1).png"]
    ids = [f"{n:016x}" for n in range(2)]
    table = pd.DataFrame({"id": ids, "image": names, "width": 4, "height": 3, "split": "train"})
    table.to_parquet(tmp_path / ITEMS)
    np.save(tmp_path / IMAGE_EMBEDDINGS, np.array([[1, 0], [1, 0]], np.float16))
    for item_id in ids:
        place = tmp_path / thumbnail_path(item_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(place)
    assert write_duplicates(tmp_path) == 1
    with (tmp_path / DUPLICATES).open(newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert {f"'{name}" for name in names} < set(cells)
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
