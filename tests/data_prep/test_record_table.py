"""Table of a source's records."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sieve.data_prep.records import Record, RecordTable, read_records

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=3)


def table_of(path: Path, records: list[Record]) -> RecordTable:
    def all_records() -> Iterator[Record]:
        yield from records

    return read_records(SimpleNamespace(name="x", records=all_records), path)  # type: ignore[arg-type]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=15), st.data())
def test_records_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    texts: list[tuple[list[str], list[str]]], data: st.DataObject,
) -> None:  # fmt: skip
    monkeypatch.setattr("sieve.data_prep.records._GROUP_ROWS", 4)
    records = [
        Record(f"k{row}", f"{row}.jpg", tuple(captions), tuple(labels))
        for row, (captions, labels) in enumerate(texts)
    ]
    table = table_of(tmp_path / "records.parquet", records)
    rows = sorted(data.draw(st.sets(st.integers(0, len(records) - 1))))
    for each in (table, pickle.loads(pickle.dumps(table))):
        assert each.records(np.array(rows, np.int64)) == [records[row] for row in rows]


def test_repeated_ids_are_skipped_in_any_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sieve.data_prep.records._GROUP_ROWS", 4)
    keys = ["a", "b", "c", "d", "a", "b", "a", "c", "e", "a", "f"]  # the second row group is empty
    records = [
        Record(key, f"{place}.jpg", (f"caption {place}",) * place) for place, key in enumerate(keys)
    ]
    table = table_of(tmp_path / "records.parquet", records)
    assert [record.image for record in table.records(range(len(table)))] == [
        f"{place}.jpg" for place in (0, 1, 2, 3, 8, 10)
    ]
    assert table.caption_counts(np.array([3, 4])).tolist() == [3, 8]
    assert [table.id(row) for row in range(len(table))] == [Record(k, "").id for k in "abcdef"]
    assert [(entry.image, entry.reason[-12:]) for entry in table.left_out] == [
        (f"{place}.jpg", f"is {keys[place]} already") for place in (4, 5, 6, 7, 9)
    ]


def test_non_utf8_name_is_skipped(tmp_path: Path) -> None:
    records = [Record("a", "a.jpg", ("one",)), Record("\udce9", "\udce9.jpg"), Record("b", "b.jpg")]
    table = table_of(tmp_path / "records.parquet", records)
    assert table.records(range(2)) == [records[0], records[2]]
    assert [(entry.key, entry.reason) for entry in table.left_out] == [
        ("\udce9", "name is not UTF-8: rename it")
    ]
