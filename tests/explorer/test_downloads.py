"""Test exported tables: lossless and without formulas."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve.explorer.downloads import csv_bytes, json_bytes, parquet_bytes
from sieve.model.files import read_cell, safe_cell


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formula_like_text_is_escaped(start: str) -> None:
    assert safe_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("value", ["a dog", "", "a=b", "'quoted", 3, -3, -0.25, True])
def test_other_values_are_unchanged(value: object) -> None:
    assert safe_cell(value) == value


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA])
def test_missing_values_are_empty_cells(missing: object) -> None:
    assert safe_cell(missing) == ""


def test_lists_become_json() -> None:
    assert json.loads(safe_cell(["=1", "ü"])) == ["=1", "ü"]
    assert safe_cell(["=1"]).startswith("[")


@given(st.from_regex(r"'*[=+@a-]*", fullmatch=True))
def test_cells_round_trip(text: str) -> None:
    assert read_cell(safe_cell(text)) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_cells_round_trip_and_are_not_formulas(texts: list[str]) -> None:
    data = csv_bytes(["=name", "n"], zip(texts, range(len(texts)), strict=True)).decode()
    head, *rows = csv.reader(io.StringIO(data, newline=""))
    assert head == ["'=name", "n"]
    for text, (cell, _) in zip(texts, rows, strict=True):
        assert cell in (text, f"'{text}")
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_unpaired_surrogate_can_be_exported() -> None:
    assert b"?" in csv_bytes(["a"], [["\ud800"]])
    assert b"?" in json_bytes({"a": "\ud800"})


def test_parquet_records_its_source() -> None:
    data = parquet_bytes(pa.table({"a": [1]}), {"query": "ü"})
    table = pq.read_table(io.BytesIO(data))
    assert json.loads(table.schema.metadata[b"sieve"]) == {"query": "ü"}
    assert table["a"].to_pylist() == [1]
