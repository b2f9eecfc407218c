"""Compressed table of a source's records."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve.data_prep.pipeline import record_table
from sieve.data_prep.pipeline.record_table import PackedRows, read_records
from sieve.data_prep.records import Record

_SCHEMA = pa.schema({"word": pa.string(), "words": pa.list_(pa.string())})


@settings(deadline=None)
@given(st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=6), st.data())
def test_rows_come_back_as_they_were(chunks: list[list[str]], data: st.DataObject) -> None:
    words = [word for chunk in chunks for word in chunk]
    expected = [{"word": word, "words": [word] * (row % 3)} for row, word in enumerate(words)]
    rows = iter(expected)
    batches = (
        pa.RecordBatch.from_pylist([next(rows) for _ in chunk], schema=_SCHEMA) for chunk in chunks
    )
    packed = PackedRows(_SCHEMA, batches)
    assert len(packed) == len(words)
    wanted = data.draw(st.lists(st.integers(0, max(len(words) - 1, 0)), unique=True))
    wanted = sorted(wanted) if words else []
    for each in (packed, pickle.loads(pickle.dumps(packed))):
        assert each.take(np.array(wanted, np.int64)).to_pylist() == [
            expected[row] for row in wanted
        ]


def test_repeated_ids_are_left_out_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_table, "_BATCH_ROWS", 4)
    keys = ["a", "b", "c", "d", "a", "b", "a", "c", "e", "a", "f"]  # the second batch has no row

    def records() -> Iterator[Record]:
        for place, key in enumerate(keys):
            yield Record(key, f"{place}.jpg", (f"caption {place}",) * place)

    table = read_records(SimpleNamespace(name="x", records=records))  # type: ignore[arg-type]
    assert [record.image for record in table.records(0, len(table))] == [
        f"{place}.jpg" for place in (0, 1, 2, 3, 8, 10)
    ]
    assert table.caption_counts(np.array([3, 4])).tolist() == [3, 8]
    assert [table.id(row) for row in range(len(table))] == [Record(k, "").id for k in "abcdef"]
    assert [(entry.image, entry.reason[-12:]) for entry in table.left_out] == [
        (f"{place}.jpg", f"is {keys[place]} already") for place in (4, 5, 6, 7, 9)
    ]
