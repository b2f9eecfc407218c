"""Caption files in any format: choose the reader by the file's extension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sieve.data_prep.captions.caption_rows import CaptionRow, ReportMalformed
from sieve.data_prep.captions.caption_text import Columns
from sieve.data_prep.captions.delimited import delimited_rows
from sieve.data_prep.captions.structured import json_rows, parquet_rows

_DELIMITED_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".token"}
_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}
SUFFIXES = frozenset(_DELIMITED_SUFFIXES | _JSON_SUFFIXES | _PARQUET_SUFFIXES)


def read_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a caption file lazily.

    Parameters
    ----------
    path : Path
        - `.csv`, `.tsv`, `.tab`, `.txt`, `.token`: UTF-8, or UTF-16 with a byte-order mark, or
          `columns.encoding`. Labels are separated by semicolons.
        - `.json`, `.jsonl`, `.ndjson`: a list of objects such as `{"image": …, "caption": …}`, one
          object a line, an object `{"a.jpg": "a caption"}`, Karpathy's `dataset_*.json`, or COCO's
          `captions_*.json`.
        - `.parquet`.
    columns : Columns
    report : ReportMalformed
        Called with each row that cannot be read.

    Raises
    ------
    ValueError
        If the file is not in its format or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix in _PARQUET_SUFFIXES:
        return parquet_rows(path, columns, report)
    if suffix in _JSON_SUFFIXES:
        return json_rows(path, columns, report)
    if suffix in _DELIMITED_SUFFIXES:
        return delimited_rows(path, columns, report)
    if suffix in (".gz", ".bz2", ".xz", ".zip", ".zst"):
        raise ValueError(f"{path} is compressed; decompress it first")
    raise ValueError(f"{path} has an unknown format; expected one of {', '.join(sorted(SUFFIXES))}")
