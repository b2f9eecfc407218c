"""Structured caption files: JSON in its common layouts, JSON lines and Parquet."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_rows import (
    IMAGE_NAMES,
    CaptionRow,
    ColumnRoles,
    ReportMalformed,
    find_columns,
    plain_name,
    rows_of,
)
from sieve.data_prep.captions.caption_text import Columns
from sieve.data_prep.captions.cell import CellError, captions_in
from sieve.data_prep.captions.delimited import MAX_LINE, detect_encoding, numbered_lines

_MAX_JSON = 4 << 30
_BATCH = 4096
_LISTS = ("images", "annotations", "data", "items", "rows", "captions", "samples")


def json_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a JSON file, or of JSON lines: many `*.json` files are JSON lines."""
    if path.suffix.lower() != ".json":
        yield from _json_line_rows(path, columns, report)
        return
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path} is larger than {_MAX_JSON:,} bytes; write it as JSON lines")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"{path} is not JSON: {error}") from None
        yield from _json_line_rows(path, columns, report)
        return
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())[:120]}") from None
    yield from _rows_of_json(value, path, columns, report)


def _rows_of_json(
    value: Any, path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    if isinstance(value, dict):
        images, annotations = value.get("images"), value.get("annotations")
        if _has_objects(images) and _has_objects(annotations):
            if not any(isinstance(entry, dict) and "caption" in entry for entry in annotations):
                keys = ", ".join(next(entry for entry in annotations if isinstance(entry, dict)))
                raise ValueError(
                    f"{path}: no annotation has a caption, their keys are {keys[:200]}; expected "
                    "COCO's captions_*.json"
                )
            return _coco_rows(images, annotations, report)
        lists = [name for name in _LISTS if _has_objects(value.get(name))]
        if len(lists) == 1:
            value = value[lists[0]]
        elif value and not value.keys() & set(_LISTS):
            return _named_rows(value, path, columns, report)
    if isinstance(value, list) and _has_objects(value):
        return _object_rows(value, path, columns, report)
    raise ValueError(
        f"{path} holds {_describe_json(value)}; expected a list of objects such as "
        '[{"image": "a.jpg", "caption": "a dog"}], an object {"a.jpg": ["a dog"]}, Karpathy\'s '
        "dataset_*.json, or COCO's captions_*.json"
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject an object with a repeated key: Python would keep only the last value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:100]!r} occurs twice in one object")
    return value


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
    entries: Sequence[Any], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read a list of objects that each name an image, such as Karpathy's images."""
    roles = None
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            report(number, "", f"not a JSON object: {type(entry).__name__}")
            continue
        roles = roles or find_columns(list(entry), columns, path)
        yield from rows_of(number, _with_folder(entry, roles), roles, report)


def _with_folder(entry: dict[str, Any], roles: ColumnRoles) -> dict[str, Any]:
    """Prepend Karpathy's `filepath`, a folder, to `filename`."""
    folder, name = entry.get("filepath"), entry.get("filename")
    if roles.image != "filename" or not isinstance(folder, str) or not isinstance(name, str):
        return entry
    whole = folder if folder.endswith(name) else f"{folder.rstrip('/')}/{name}"
    return {**entry, "filename": whole}


def _named_rows(
    value: Mapping[str, Any], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read an object whose keys name images, or are ids of objects that name images."""
    roles = ColumnRoles("image", ("caption",), "split", "labels")
    n_read = 0
    faults: list[tuple[int, str, str]] = []
    for number, (name, entry) in enumerate(value.items(), 1):
        if isinstance(entry, dict) and any(plain_name(key) in IMAGE_NAMES for key in entry):
            yield from rows_of(number, entry, find_columns(list(entry), columns, path), report)
            n_read += 1
            continue
        split = entry.get("split") if isinstance(entry, dict) else None
        try:
            captions = captions_in(entry)
        except CellError as error:
            faults.append((number, name, f"caption cannot be read: {error}"))
            continue
        n_read += 1
        row = {"image": name, "caption": captions, "split": split}
        yield from rows_of(number, row, roles, report)
    if not n_read:
        raise ValueError(
            f"{path} holds {_describe_json(value)}, none of them with captions ({faults[0][2]}); "
            'expected {"a.jpg": ["a dog"]} or a list [{"image": "a.jpg", "caption": "a dog"}]'
        )
    for entry in faults:
        report(*entry)


def _coco_rows(
    images: Sequence[Any], annotations: Sequence[Any], report: ReportMalformed
) -> Iterator[CaptionRow]:
    """Read COCO's captions, which refer to a separate list of images."""
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
        yield from rows_of(number, row, ColumnRoles("image", ("caption",), None, None), report)


def _json_line_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    roles = None
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
                report(number, "", f"not a JSON line: {' '.join(str(error).split())[:120]}")
                continue
            if not isinstance(value, dict):
                report(number, "", f"not a JSON object: {type(value).__name__}")
                continue
            roles = roles or find_columns(list(value), columns, path)
            yield from rows_of(number, value, roles, report)


def parquet_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a Parquet file."""
    try:
        with pq.ParquetFile(path) as table:
            roles = find_columns(table.schema_arrow.names, columns, path)
            kind = table.schema_arrow.field(roles.image).type
            image = roles.image
            if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
                image = f"{image}.path"  # not the bytes beside it
            elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ValueError(
                    f"{path}: column {roles.image!r} holds {kind}, not names of files; if it "
                    "holds the images themselves, use `sieve prepare conceptual-captions`"
                )
            schema = table.schema_arrow
            texts = [n for n in roles.other_images if pa.types.is_string(schema.field(n).type)]
            roles = roles._replace(other_images=tuple(texts))
            others = (*roles.captions, roles.split, roles.labels, *texts)
            wanted = [image, *(name for name in others if name is not None)]
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
                for value in batch.to_pylist():
                    number += 1
                    yield from rows_of(number, value, roles, report)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as Parquet: {reason}") from None
