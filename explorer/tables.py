"""Tables that leave: CSV that no spreadsheet runs, JSON and Parquet.

Captions, names and notes are anybody's words: see `sieve.data_prep.cells`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.cells import safe_cell


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
