"""Rows of caption files, whatever their format.

CSV and its kin, JSON lines, Parquet, and the two files that Flickr8k and Flickr30k come with:
`results.csv`, whose fields end at bars, and `….token`, which has no head and numbers the captions
of an image (`1000092795.jpg#0`).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.text import Columns

LABEL_SEPARATOR = ";"

IMAGE_NAMES = ("image", "image_name", "file_name", "filename", "image_path", "filepath")
CAPTION_NAMES = ("caption", "captions", "comment", "sentence", "text", "TEXT")
_NUMBERED = re.compile(r"#\d+$")
_PLAIN_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".token"}
_JSON_SUFFIXES = {".jsonl", ".ndjson"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}
_MAX_LINE = 1 << 20
_BATCH = 4096

Fault = Callable[[int, str, str], None]
"""Told of a row that is none: its line, its image and why."""


class Row(NamedTuple):
    """One row of a caption file, as it stands there."""

    line: int
    """Counted from 1; the number of the row in a Parquet file."""
    image: str
    caption: str
    split: str = ""
    labels: Sequence[str] = ()


def read_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[Row]:
    """Read the rows of a caption file, one by one.

    Parameters
    ----------
    path : Path
        CSV, TSV and the like (`.csv`, `.tsv`, `.txt`, `.token`; UTF-8 with or without a byte-order
        mark), JSON lines (`.jsonl`) or Parquet. Captions and labels may be lists in the last two;
        in the others semicolons stand between labels.
    columns : Columns
    fault : callable

    Raises
    ------
    ValueError
        If the file is not of its format or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix in _PARQUET_SUFFIXES:
        return _parquet_rows(path, columns)
    if suffix in _JSON_SUFFIXES:
        return _json_rows(path, columns, fault)
    if suffix in _PLAIN_SUFFIXES:
        return _plain_rows(path, columns, fault)
    known = ", ".join(sorted(_PLAIN_SUFFIXES | _JSON_SUFFIXES | _PARQUET_SUFFIXES))
    raise ValueError(
        f"{path} is of no known format: expected one of {known}; "
        "for COCO's JSON use `sieve prepare coco`"
    )


class _Places(NamedTuple):
    """Name or number of each column; None where there is no such column."""

    image: Any
    caption: Any
    split: Any
    labels: Any


def _places(found: Sequence[str], columns: Columns, path: Path) -> _Places:
    """Find the columns by the names given, else by those that are usual."""

    def one(given: str | None, usual: Sequence[str], required: bool) -> str | None:
        wanted = [given] if given is not None else usual
        for name in wanted:
            if name in found:
                return name
        if given is None and not required:
            return None
        names = ", ".join(" ".join(name.split())[:40] for name in found[:20]) or "none"
        raise ValueError(
            f"{path} has no column {wanted[0]!r}; its columns are: {names}. Expected columns such "
            "as image,caption; name others with --image-column and --caption-column"
        )

    return _Places(
        one(columns.image, IMAGE_NAMES, True),
        one(columns.caption, CAPTION_NAMES, True),
        one(columns.split, ("split",), False),
        one(columns.labels, ("labels",), False),
    )


def _plain_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _delimited(stream, path, columns, fault)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def _delimited(stream: TextIO, path: Path, columns: Columns, fault: Fault) -> Iterator[Row]:
    first = stream.readline(_MAX_LINE)
    stream.seek(0)
    delimiter = _delimiter(first)
    headless = delimiter == "\t" and bool(_NUMBERED.search(first.partition("\t")[0]))
    # The Flickr files write quotation marks as they are, as part of a caption.
    quoting = csv.QUOTE_NONE if headless or delimiter == "|" else csv.QUOTE_MINIMAL
    rows = _csv_rows(csv.reader(stream, delimiter=delimiter, quoting=quoting), fault)
    if headless:
        places = _Places(0, 1, None, None)
    else:
        _, header = next(rows, (1, []))
        names = [name.strip() for name in header]
        called = _places(names, columns, path)
        places = _Places(*(None if name is None else names.index(name) for name in called))
    least = max(places.image, places.caption) + 1
    for line, cells in rows:
        name = cells[places.image].strip() if len(cells) > places.image else ""
        name = _NUMBERED.sub("", name) if headless else name
        if len(cells) < least:
            fault(line, name, f"too few fields: {len(cells)}, expected {least}")
            continue
        split, labels = (
            cells[at] if at is not None and at < len(cells) else ""
            for at in (places.split, places.labels)
        )
        yield Row(line, name, cells[places.caption], split, labels.split(LABEL_SEPARATOR))


def _delimiter(first: str) -> str:
    """Tell by the first line what stands between fields."""
    if "\t" in first:
        return "\t"
    return "," if "," in first else next((mark for mark in "|;" if mark in first), ",")


def _csv_rows(reader: Any, fault: Fault) -> Iterator[tuple[int, list[str]]]:
    """All rows with their line; what is no row at all is left out by name."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # most often an unclosed quote that swallows the file
            fault(reader.line_num, "", f"not a CSV row: {error}")
            continue
        if row:
            yield reader.line_num, row


def _json_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[Row]:
    places = None
    with path.open("rb") as stream:
        for number, line in numbered_lines(stream, _MAX_LINE):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                fault(number, "", f"not a JSON line: {error}")
                continue
            if not isinstance(value, dict):
                fault(number, "", f"not a JSON object: {type(value).__name__}")
                continue
            if places is None:
                places = _places(list(value), columns, path)
            yield from _rows_of(number, value, places)


def numbered_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """All lines with their number, counted from 1; what stands after `limit` bytes is dropped."""
    number = 0
    while line := stream.readline(limit):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(limit)
        yield number, line


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as table:
            places = _places(table.schema_arrow.names, columns, path)
            wanted = [name for name in places if name is not None]
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
                for value in batch.to_pylist():
                    number += 1
                    yield from _rows_of(number, value, places)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a Parquet file that can be read: {reason}") from None


def _rows_of(line: int, value: Mapping[str, Any], places: _Places) -> Iterator[Row]:
    """One row a caption."""
    labels = value.get(places.labels)
    named = labels.split(LABEL_SEPARATOR) if isinstance(labels, str) else _texts(labels)
    image, split = as_text(value.get(places.image)).strip(), as_text(value.get(places.split))
    for caption in _texts(value.get(places.caption)) or [""]:
        yield Row(line, image, caption, split, named)


def _texts(value: Any) -> list[str]:
    return [as_text(part) for part in value] if isinstance(value, list) else [as_text(value)]


def as_text(value: Any) -> str:
    """Read a cell of a typed table: nothing for null and NaN."""
    if value is None or value != value:
        return ""
    return value if isinstance(value, str) else str(value)
