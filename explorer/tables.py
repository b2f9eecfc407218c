"""Tables that leave: CSV that no spreadsheet runs (see `data_prep.cells`), JSON and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.cells import safe_text


def safe_cell(value: Any) -> Any:
    """Make a value safe to stand in CSV: a text that starts like a formula gets an apostrophe.

    Numbers stay as they are, also negative ones; what is missing or NaN becomes an empty cell;
    lists and objects become JSON.
    """
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if pd.isna(value) else value


def csv_bytes(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """Write a table as CSV in UTF-8, every cell safe; see `safe_cell`."""
    stream = io.StringIO()
    writer = csv.writer(stream)  # ends lines by CR LF: cells with either are then quoted
    writer.writerow(map(safe_cell, columns))
    writer.writerows(map(safe_cell, row) for row in rows)
    # Half of a surrogate pair can stand in a question, but in no file.
    return stream.getvalue().encode("utf-8", "replace")


def json_bytes(value: Any) -> bytes:
    """Write JSON in UTF-8, in people's own script."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    return f"{text}\n".encode("utf-8", "replace")


def parquet_bytes(table: pa.Table, facts: Mapping[str, Any]) -> bytes:
    """Write Parquet, with facts about the table in its metadata, as JSON under `sieve`."""
    stream = io.BytesIO()
    known = table.schema.metadata or {}
    said = {**known, b"sieve": json.dumps(dict(facts), ensure_ascii=False).encode()}
    pq.write_table(table.replace_schema_metadata(said), stream)
    return stream.getvalue()
