"""Test that skipped.csv is safe in spreadsheets and round-trips."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sieve.data_prep.records import Skipped, Tally, read_skipped, write_skipped


def test_cells_are_not_formulas_and_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "skipped.csv"
    left_out = [
        Skipped("=1+1.jpg", "@SUM(A1)", "damaged image: -2"),
        Skipped("'=x", "\t=1", "'quoted'"),
        Skipped("a.jpg", "a.jpg", "empty"),
    ]
    assert write_skipped(path, left_out) == 3
    with path.open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "@", "+", "-", "\t", "\r")]
    assert list(read_skipped(path)) == left_out


def test_rows_of_another_width_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "skipped.csv"
    path.write_text("key,image,reason\na,b,c\nd,e\n")
    with pytest.raises(ValueError, match="line 3 has 2 columns, expected 3; prepare"):
        list(read_skipped(path))


def test_grouped_entry_counts_all_its_rows() -> None:
    tally = Tally([
        Skipped("captions", "e", "caption without an embedding: 1,512 of them; embed them"),
        Skipped("a.jpg", "a.jpg", "damaged image: 3 of 4 bytes"),
        Skipped("b.jpg", "b.jpg", "damaged image: truncated"),
    ])  # fmt: skip
    assert tally.total == 1514
    assert tally.describe() == (
        "1,512 × caption without an embedding (captions), 2 × damaged image (a.jpg)"
    )
