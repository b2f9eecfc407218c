"""Caption files in any format: JSON in its common layouts, JSON lines, Parquet, delimited text."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_rows import (
    IMAGE_NAMES,
    CaptionRow,
    ColumnRoles,
    ReportMalformed,
    column_of,
    find_columns,
    rows_of,
)
from sieve.data_prep.captions.caption_text import Columns
from sieve.data_prep.captions.delimited import (
    MAX_LINE,
    delimited_rows,
    detect_encoding,
    numbered_lines,
)
from sieve.model.files import reason_of

_DELIMITED_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".token"}
_JSON_LINES_SUFFIXES = {".jsonl", ".ndjson"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}
SUFFIXES = frozenset({".json"} | _DELIMITED_SUFFIXES | _JSON_LINES_SUFFIXES | _PARQUET_SUFFIXES)

_MAX_JSON = 4 << 30
_BATCH = 4096
_LISTS = ("images", "annotations", "data", "items", "rows", "captions", "samples")
_EXPECTED_JSON = (
    '[{"image": "a.jpg", "caption": "a dog"}], an object {"a.jpg": ["a dog"]}, Karpathy\'s '
    "dataset_*.json, or COCO's captions_*.json"
)


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
        return _parquet_rows(path, columns, report)
    if suffix == ".json":
        return _json_rows(path, columns, report)
    if suffix in _JSON_LINES_SUFFIXES:
        return _object_rows(json_lines(path, report), path, columns, report)
    if suffix in _DELIMITED_SUFFIXES:
        return delimited_rows(path, columns, report)
    if suffix in (".gz", ".bz2", ".xz", ".zip", ".zst"):
        raise ValueError(f"{path} is compressed; decompress it first")
    raise ValueError(f"{path} has an unknown format; expected one of {', '.join(sorted(SUFFIXES))}")


def json_lines(path: Path, report: ReportMalformed) -> Iterator[tuple[int, Any]]:
    """Yield the values of JSON lines, with their line number; report lines that are not JSON."""
    if (encoding := detect_encoding(path)) != "utf-8-sig":
        raise ValueError(f"{path} is {encoding.upper()}; JSON lines are UTF-8: save it as UTF-8")
    with path.open("rb") as stream:
        for number, line in numbered_lines(stream, MAX_LINE):
            text = line.removeprefix(codecs.BOM_UTF8)
            if not text.strip():
                continue
            try:
                value = json.loads(text, object_pairs_hook=_unique_keys)
            except (ValueError, RecursionError) as error:
                report(number, "", f"not a JSON line: {reason_of(error)}")
                continue
            yield number, value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject an object with a repeated key: Python would keep only the last value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:100]!r} occurs twice in one object")
    return value


def _json_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read a JSON file, or JSON lines: many `*.json` files are JSON lines."""
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path} is larger than {_MAX_JSON:,} bytes; write it as JSON lines")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"{path} is not JSON: {error}") from None
        return _object_rows(json_lines(path, report), path, columns, report)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}") from None
    if isinstance(value, dict):
        images, annotations = value.get("images"), value.get("annotations")
        if _has_objects(images) and _has_objects(annotations):
            return _coco_rows(images, annotations, path, report)
        lists = [name for name in _LISTS if _has_objects(value.get(name))]
        if len(lists) == 1:
            value = value[lists[0]]
        elif value and not value.keys() & set(_LISTS):
            return _named_rows(value, path, columns, report)
    if _has_objects(value):
        return _object_rows(enumerate(value, 1), path, columns, report)
    raise ValueError(
        f"{path} holds {_describe_json(value)}; expected a list of objects such as {_EXPECTED_JSON}"
    )


def _has_objects(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)


def _describe_json(value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(str(key)[:30] for key in list(value)[:8])
        return f"an object with the keys {keys}" if keys else "an empty object"
    if isinstance(value, list):
        return f"a list of {type(value[0]).__name__}" if value else "an empty list"
    return type(value).__name__


def _object_rows(
    entries: Iterable[tuple[int, Any]], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read objects that each name an image, such as Karpathy's images."""
    roles = None
    for number, entry in entries:
        if not isinstance(entry, dict):
            report(number, "", f"not a JSON object: {type(entry).__name__}")
            continue
        roles = roles or find_columns(list(entry), columns, path)
        folder, name = entry.get("filepath"), entry.get("filename")
        if roles.image == "filename" and isinstance(folder, str) and isinstance(name, str):
            # Karpathy's `filepath` is the folder of `filename`.
            whole = folder if folder.endswith(name) else f"{folder.rstrip('/')}/{name}"
            entry = {**entry, "filename": whole}
        yield from rows_of(number, entry, roles, report)


def _named_rows(
    value: Mapping[str, Any], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read an object whose keys name images, or are ids of objects that name images."""
    faults: list[tuple[int, str, str]] = []
    for number, (name, entry) in enumerate(value.items(), 1):
        roles = ColumnRoles(split="split")
        row = {"image": name, "caption": entry}
        if isinstance(entry, dict):
            row["split"] = entry.get("split")
            if column_of(IMAGE_NAMES, list(entry)):
                row, roles = entry, find_columns(list(entry), columns, path)
        yield from rows_of(number, row, roles, lambda *fault: faults.append(fault))
    if len(faults) == len(value):
        raise ValueError(
            f"{path} holds {_describe_json(value)}, none of them with captions ({faults[0][2]}); "
            f"expected {_EXPECTED_JSON}"
        )
    for fault in faults:
        report(*fault)


def _coco_rows(
    images: Sequence[Any], annotations: Sequence[Any], path: Path, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read COCO's captions, which refer to a separate list of images."""
    objects = [entry for entry in annotations if isinstance(entry, dict)]
    if not any("caption" in entry for entry in objects):
        raise ValueError(
            f"{path}: no annotation has a caption, their keys are {', '.join(objects[0])[:200]}; "
            "expected COCO's captions_*.json"
        )
    names: dict[str, set[str]] = {}
    for entry in images:
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            names.setdefault(str(entry.get("id")), set()).add(entry["file_name"])
    for number, entry in enumerate(annotations):
        known = sorted(names.get(str(entry.get("image_id")), ())) if isinstance(entry, dict) else []
        if len(known) != 1:
            both = f"; it names {known[0]} and {known[1]}" if known else ""
            report(number, "", f"image_id does not name exactly one image{both}")
            continue
        row = {"image": known[0], "caption": entry.get("caption")}
        yield from rows_of(number, row, ColumnRoles(), report)


def _parquet_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    try:
        with pq.ParquetFile(path) as table:
            schema = table.schema_arrow
            roles = find_columns(schema.names, columns, path)
            kind, image = schema.field(roles.image).type, roles.image
            if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
                image = f"{image}.path"  # not the bytes beside it
            elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ValueError(
                    f"{path}: column {roles.image!r} holds {kind}, not names of files; if it "
                    "holds the images themselves, use `sieve prepare conceptual-captions`"
                )
            texts = [n for n in roles.other_images if pa.types.is_string(schema.field(n).type)]
            roles = roles._replace(other_images=tuple(texts))
            wanted = filter(None, (image, *roles.captions, roles.split, roles.labels, *texts))
            for number, value in enumerate(parquet_values(table, list(wanted)), 1):
                yield from rows_of(number, value, roles, report)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {reason_of(error)}") from None


def parquet_values(
    table: pq.ParquetFile, columns: Sequence[str], groups: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some row groups, by default of all, as dictionaries."""
    for batch in table.iter_batches(_BATCH, row_groups=groups, columns=columns):
        yield from batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows
