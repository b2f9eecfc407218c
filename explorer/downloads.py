"""Export of results, codes and the dimension table as CSV, JSON, Parquet or npz.

JSON and Parquet files contain the hashes of the collection and the checkpoint and, for results, the
complete query, so that `sieve search` can repeat it. Captions, names and notes are untrusted text:
no CSV cell is a spreadsheet formula; see `sieve.model.files`.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array, save_npz

from sieve.data_prep.bundled import collection_reference
from sieve.data_prep.images import read_thumbnail
from sieve.explorer.json_validation import check_choice, without_surrogates
from sieve.explorer.serialize import dimension_records, search_report
from sieve.model.codes import SparseCodes
from sieve.model.collection import Collection
from sieve.model.dimensions.map import nearest_items, project_items
from sieve.model.engine import EncodedQuery, SearchEngine, SearchOutcome
from sieve.model.files import safe_cell


def csv_bytes(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """Serialise a table to CSV in UTF-8, with every cell escaped by `safe_cell`."""
    stream = io.StringIO()
    writer = csv.writer(stream)  # with CR LF as line ending, cells with either are quoted
    writer.writerow(map(safe_cell, columns))
    writer.writerows(map(safe_cell, row) for row in rows)
    # A query may contain a lone surrogate, which cannot be encoded.
    return stream.getvalue().encode("utf-8", "replace")


def json_bytes(value: Any) -> bytes:
    """Write JSON in UTF-8, in people's own script."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    return f"{text}\n".encode("utf-8", "replace")


def parquet_bytes(table: pa.Table, facts: Mapping[str, Any]) -> bytes:
    """Serialise a table to Parquet, with JSON under the metadata key `sieve`."""
    stream = io.BytesIO()
    own = {b"sieve": json.dumps(dict(facts), ensure_ascii=False).encode()}
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **own}), stream)
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
    ("where", pa.string()),
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
    engine: SearchEngine,
    query: EncodedQuery,
    outcome: SearchOutcome,
    strictness: float | str,
    kind: str,
) -> bytes:
    """Serialise search results, best first, to csv, json or parquet.

    `strictness` is s in [0, 1], or "never", or "never:0.2" with another limit. Raises a ValueError
    if the kind is unknown.
    """
    check_choice("kind", kind, TABLE_KINDS)
    metadata = {
        **_origin(engine),
        "query": without_surrogates(query.text),
        "item": query.item,
        "without": without_surrogates(query.without),
        "off": [part.dimension for part in outcome.off],
        "strictness": strictness,
        "where": outcome.where,
    }
    results = search_report(query, outcome)["results"]
    ranked = [{"rank": rank, **each} for rank, each in enumerate(results, 1)]
    if kind == "json":
        return json_bytes({**metadata, "results": ranked})
    shared = {
        "query": without_surrogates(query.text or query.item),
        "without": metadata["without"],
        "off": metadata["off"],
        "strictness": str(strictness),
        "where": outcome.where,
    }
    files = [[copy["file"] for copy in each["copies"]] for each in ranked]
    rows = [{**shared, **each, "copies": of} for each, of in zip(ranked, files, strict=True)]
    names = [name for name, _ in _RESULT_FIELDS]
    if kind == "csv":
        return csv_bytes(names, ([row[name] for name in names] for row in rows))
    return parquet_bytes(pa.Table.from_pylist(rows, schema=pa.schema(_RESULT_FIELDS)), metadata)


def dimensions_bytes(engine: SearchEngine, kind: str) -> bytes:
    """Serialise the table of all dimensions with their names to csv, json or parquet."""
    table = engine.dimension_table()
    if check_choice("kind", kind, TABLE_KINDS) == "csv":
        return table_csv(table)
    if kind == "json":
        return json_bytes({**_origin(engine), "dimensions": dimension_records(table)})
    return parquet_bytes(pa.Table.from_pandas(table, preserve_index=False), _origin(engine))


def download(what: str, kind: str, data: bytes) -> dict[str, str]:
    """Return a file as a name and a data URL, for the page."""
    return {"name": f"sieve-{what}.{kind}", "url": data_url(MIME[kind], data)}


def data_url(mime: str, data: bytes) -> str:
    """Return a file as a data URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def codes_command(collection: Collection) -> str:
    """Return the command that exports all codes of a collection, too large for a page."""
    return f"sieve export {shlex.quote(collection_reference(collection.path))} codes -o codes.npz"


def table_csv(table: pd.DataFrame) -> bytes:
    """Serialise a data frame to CSV; see `csv_bytes`."""
    return csv_bytes(table.columns, table.itertuples(index=False, name=None))


def write_codes(codes: SparseCodes, ids: Sequence[str], path: Path, kind: str) -> None:
    """Write the codes of items or captions, one row each; `ids` has the item of each row.

    `npz` is a CSR matrix as from `scipy.sparse.save_npz`, rows in the order of the ids, which
    `sieve prepare codes` reads. `parquet` is a long format: one line per active dimension, with the
    columns row, id, dimension and value.
    """
    check_choice("kind", kind, CODE_KINDS)
    rows: csr_array = codes.by_row
    if kind == "npz":
        with path.open("wb") as stream:  # given a path, SciPy would add a suffix
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


_NEIGHBORS = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])
_ITEM_FIELDS = (
    ("id", pa.string()),
    ("file", pa.string()),
    ("split", pa.string()),
    ("text", pa.string()),
    ("labels", _TEXTS),
    ("x", pa.float32()),
    ("y", pa.float32()),
    ("neighbors", _NEIGHBORS),
    ("concept", pa.string()),
    ("concepts", _TEXTS),
    ("activations", pa.list_(pa.float32())),
    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
)
_ITEMS_AT_ONCE = 1000
_CLEAR = 0.1
"""Smallest activation of a listed concept, relative to the item's strongest."""


def write_items(engine: SearchEngine, path: Path) -> int:
    """Write all items to Parquet, one row each, with the columns that embedding-atlas reads.

    text                    all captions, one a line
    x, y                    the map of all items, in [-1, 1]
    neighbors               row numbers of the items with the most similar codes, by cosine distance
    concepts, activations   the concepts with at least a tenth of the strongest activation
    concept                 the strongest one
    image                   the thumbnail, as data sets of the Hugging Face Hub store images

    Returns the number of thumbnails that cannot be read.
    """
    collection, codes, names = engine.collection, engine.image_codes, engine.names()
    positions = project_items(collection, engine.checkpoint, codes)
    near, cosines = nearest_items(codes)
    distances = np.clip(1 - cosines, 0, 1)
    leading, sums = engine.concepts.sum(codes.by_row)
    concept_names = [names(dimension) for dimension in leading.tolist()]
    unreadable = 0
    schema = pa.schema(_ITEM_FIELDS, {"sieve": json.dumps(_origin(engine), ensure_ascii=False)})

    def row_of(row: int, item: dict[str, Any]) -> dict[str, Any]:
        nonlocal unreadable
        file, image = collection.file_names[row], None
        try:
            image = read_thumbnail(collection.path, item["id"])
        except (OSError, ValueError):
            unreadable += 1
        sums_of_item = sums[[row]]
        order = np.argsort(-sums_of_item.data, kind="stable")
        values = sums_of_item.data[order]
        clear = values >= _CLEAR * values.max(initial=0)
        concepts = [concept_names[at] for at in sums_of_item.indices[order][clear]]
        return {
            **item,
            "file": file,
            "text": "\n".join(item["captions"]),
            "x": positions[row, 0],
            "y": positions[row, 1],
            "neighbors": {"ids": near[row], "distances": distances[row]},
            "concept": concepts[0] if concepts else None,
            "concepts": concepts,
            "activations": values[clear],
            "image": {"bytes": image, "path": file},
        }

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, codes.n, _ITEMS_AT_ONCE):
            items = collection.items.iloc[start : start + _ITEMS_AT_ONCE].to_dict("records")
            rows = [row_of(row, item) for row, item in enumerate(items, start)]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return unreadable


def _origin(engine: SearchEngine) -> dict[str, Any]:
    return {
        "collection": engine.collection.name,
        "collection_sha256": engine.collection.sha256,
        "checkpoint": Path(engine.checkpoint.path).name,
        "checkpoint_sha256": engine.checkpoint.sha256,
    }
