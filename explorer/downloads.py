"""What people take away: results, codes and the dimension table, for their own scripts.

Each file says what it was made from: the collection, the checkpoint by its hash and, for results,
the whole question, so that `sieve search` finds the same again.

Tables that leave: CSV that no spreadsheet runs, JSON and Parquet.

Captions, names and notes are anybody's words: see `sieve.data_prep.csv_safety`.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array, save_npz

from sieve.data_prep.bundled import collection_reference
from sieve.data_prep.csv_safety import safe_cell
from sieve.explorer.json_validation import check_choice
from sieve.explorer.serialize import dimension_records, search_report
from sieve.explorer.view_state import NEVER

if TYPE_CHECKING:
    import pandas as pd

    from sieve.model.codes import SparseCodes
    from sieve.model.collection import Collection
    from sieve.model.engine import EncodedQuery, Engine, SearchOutcome


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


TABLE_KINDS = ("csv", "json", "parquet")
CODE_KINDS = ("npz", "parquet")
MIME = {
    "csv": "text/csv;charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}

_TEXTS = pa.list_(pa.string())
_PART = pa.struct([("dimension", pa.int32()), ("name", pa.string()), ("value", pa.float64())])
_RESULT_FIELDS = (
    ("query", pa.string()),
    ("without", pa.string()),
    ("off", pa.list_(pa.int32())),
    ("strictness", pa.string()),
    ("rank", pa.int32()),
    ("id", pa.string()),
    ("file", pa.string()),
    ("score", pa.float64()),
    ("captions", _TEXTS),
    ("labels", _TEXTS),
    ("copies", _TEXTS),
    ("contributions", pa.list_(_PART)),
)


def results_bytes(
    engine: Engine, query: EncodedQuery, outcome: SearchOutcome, strictness: float | str, kind: str
) -> bytes:
    """Write what a search found, best first.

    Parameters
    ----------
    engine : Engine
    query : EncodedQuery
    outcome : SearchOutcome
    strictness : float or str
        As it was asked: s in [0, 1], or "never".
    kind : str
        csv, json or parquet.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    check_choice("kind", kind, TABLE_KINDS)
    report = search_report(query, outcome)
    asked = {
        **_origin(engine),
        "query": _storable(query.text),
        "item": query.item,
        "without": _storable(query.without),
        "off": [part.dimension for part in outcome.off],
        "strictness": strictness,
    }
    ranked = [{"rank": rank, **each} for rank, each in enumerate(report["results"], 1)]
    if kind == "json":
        return json_bytes({**asked, "results": ranked})
    told = {
        "query": _storable(query.text or query.item),
        "without": _storable(query.without),
        "off": asked["off"],
        "strictness": str(strictness),
    }
    files = [[copy["file"] for copy in each["copies"]] for each in ranked]
    rows = [{**told, **each, "copies": of} for each, of in zip(ranked, files, strict=True)]
    schema = pa.schema(_RESULT_FIELDS)
    if kind == "csv":
        return csv_bytes(schema.names, ([row[name] for name in schema.names] for row in rows))
    return parquet_bytes(pa.Table.from_pylist(rows, schema=schema), asked)


def dimensions_bytes(engine: Engine, kind: str) -> bytes:
    """Write the table of all dimensions, with their names.

    Parameters
    ----------
    engine : Engine
    kind : str
        csv, json or parquet.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    check_choice("kind", kind, TABLE_KINDS)
    table = engine.dimension_table()
    if kind == "csv":
        return table_csv(table)
    if kind == "json":
        return json_bytes({**_origin(engine), "dimensions": dimension_records(table)})
    return parquet_bytes(pa.Table.from_pandas(table, preserve_index=False), _origin(engine))


def download(what: str, kind: str, data: bytes) -> dict[str, str]:
    """Write a file as the page takes it: a name and a data URL."""
    url = f"data:{MIME[kind]};base64,{base64.b64encode(data).decode()}"
    return {"name": f"sieve-{what}.{kind}", "url": url}


def codes_command(collection: Collection) -> str:
    """Write the command that exports all codes of a collection, which no page could hand over."""
    return f"sieve export {shlex.quote(collection_reference(collection.path))} codes -o codes.npz"


def table_csv(table: pd.DataFrame) -> bytes:
    """Write a table of pandas as CSV, every cell safe."""
    return csv_bytes(table.columns, table.itertuples(index=False, name=None))


def write_codes(codes: SparseCodes, ids: Sequence[str], path: Path, kind: str) -> None:
    """Write codes of items or captions, a row each.

    Parameters
    ----------
    codes : SparseCodes
    ids : sequence of str
        The item that each row is of.
    path : Path
    kind : str
        `npz`: a CSR matrix as `scipy.sparse.save_npz` writes it and `sieve prepare codes` reads it,
        rows in the order of the ids. `parquet`: long, a line an active dimension: row, id,
        dimension, value.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    check_choice("kind", kind, CODE_KINDS)
    rows: csr_array = codes.by_row
    if kind == "npz":
        with path.open("wb") as stream:  # by its name, SciPy would add an ending
            save_npz(stream, rows)
        return
    row = np.repeat(np.arange(codes.n, dtype=np.int32), np.diff(rows.indptr))
    columns = {
        "row": row,
        "id": pa.DictionaryArray.from_arrays(row, pa.array(ids, pa.string())),
        "dimension": rows.indices.astype(np.int32),
        "value": rows.data,
    }
    pq.write_table(pa.table(columns), path)


def _origin(engine: Engine) -> dict[str, Any]:
    return {
        "collection": engine.collection.name,
        "collection_sha256": engine.collection.sha256,
        "checkpoint": Path(engine.checkpoint.path).name,
        "checkpoint_sha256": engine.checkpoint.sha256,
    }


def _storable(text: str) -> str:
    """Half of a surrogate pair can stand in a question, but in no file."""
    return text.encode("utf-8", "replace").decode("utf-8")


def told_strictness(strictness: float, never: bool) -> float | str:
    """Write a strictness as people ask for it."""
    return NEVER if never else strictness
