"""Caption files in any format: JSON in its common layouts, JSON lines, Parquet, delimited text.

Delimited text is CSV and its variants, Flickr30k's `results.csv`, whose delimiter is `|`, and the
token files of Flickr8k and Flickr30k, without a header (`1000092795.jpg#0`, a tab, a caption).
"""

from __future__ import annotations

import codecs
import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, AnyStr, NamedTuple, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_text import (
    IMAGE_NAMES,
    IMAGE_SUFFIX,
    CaptionRow,
    ColumnRoles,
    Columns,
    ReportMalformed,
    column_of,
    find_columns,
    rows_of,
    without_number,
)
from sieve.model.files import reason_of

log = logging.getLogger(__name__)

_DELIMITED_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".token"}
_JSON_LINES_SUFFIXES = {".jsonl", ".ndjson"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}
SUFFIXES = frozenset({".json"} | _DELIMITED_SUFFIXES | _JSON_LINES_SUFFIXES | _PARQUET_SUFFIXES)
"""Formats of caption files, which the help of `sieve prepare folder` and the docstring of
`sieve.prepare_folder` list."""

_MAX_JSON = 4 << 30
_LISTS = ("images", "annotations", "data", "items", "rows", "captions", "samples")
_EXPECTED_JSON = (
    '[{"image": "a.jpg", "caption": "a dog"}], an object {"a.jpg": ["a dog"]}, Karpathy\'s '
    "dataset_*.json, or COCO's captions_*.json"
)

MAX_LINE = 1 << 20
"""Longer lines are cut."""
DELIMITERS = (",", ";", "\t", "|")

_TOKEN_NAME = r"\.[a-z0-9]{1,5}(?:\.\d)?\s*#(?:[a-z]{1,8}#)?\d{1,3}#?"
_TOKEN_LINE = re.compile(
    rf"(?i)(?:(?P<name>[^\t]+?{_TOKEN_NAME})\s*\t|(?P<other>[^\t,;|]+?{_TOKEN_NAME})[ ,;|])"
    r"\s*(?P<caption>.*)$",
    re.S,
)
_MAX_FIELD_LINES = 30
"""A quoted field with more lines is read as one with an unclosed quotation mark."""

_Line = tuple[int, str]


def read_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a caption file lazily; call `report` with each row that cannot be read.

    - `.csv`, `.tsv`, `.tab`, `.txt`, `.token`: UTF-8, or UTF-16 with a byte-order mark, or
      `columns.encoding`. Labels are separated by semicolons.
    - `.json`, `.jsonl`, `.ndjson`: a list of objects such as `{"image": …, "caption": …}`, one
      object a line, an object `{"a.jpg": "a caption"}`, Karpathy's `dataset_*.json`, or COCO's
      `captions_*.json`.
    - `.parquet`.

    Raise ValueError if the file is not in its format or lacks a column.
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
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
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
    for batch in table.iter_batches(4096, row_groups=groups, columns=columns):
        yield from batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows


def delimited_rows(path: Path, columns: Columns, report: ReportMalformed) -> Iterator[CaptionRow]:
    """Read the rows of a delimited file; see `sieve.data_prep.captions.formats.read_rows`."""
    encoding = columns.encoding or detect_encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as stream:
            yield from _rows(numbered_lines(stream, MAX_LINE), path, columns, report)
    except LookupError:
        raise ValueError(
            f"there is no encoding {columns.encoding!r}; use utf-8, utf-16, latin-1 or cp1252"
        ) from None
    except UnicodeError as error:
        where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        reason = getattr(error, "reason", str(error))
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise ValueError(
            f"{path} is not {name} ({reason}{where}); save it as UTF-8, or name its encoding, "
            "such as --encoding latin-1"
        ) from None


def detect_encoding(path: Path) -> str:
    """Return the encoding that a byte-order mark indicates, else UTF-8."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def numbered_lines(stream: IO[AnyStr], limit: int) -> Iterator[tuple[int, AnyStr]]:
    """Yield lines with their number, counted from 1; cut a line at `limit` characters or bytes."""
    for number, line in enumerate(iter(partial(stream.readline, limit), stream.read(0)), 1):
        rest = line
        while len(rest) == limit and rest[-1:] not in ("\n", "\r", b"\n"):
            rest = stream.readline(limit)
        yield number, line


class _Dialect(NamedTuple):
    """The delimiter and quoting of a table."""

    delimiter: str
    quoted: bool = True
    """Whether quotation marks enclose fields; in Flickr's files they are part of a caption."""
    skip_space: bool = False

    @classmethod
    def of(cls, delimiter: str, header: str) -> _Dialect:
        spaced = header.count(delimiter) == header.count(f"{delimiter} ") > 0
        return cls(delimiter, delimiter != "|", spaced and delimiter in ",;")

    def cells(self, lines: Sequence[str]) -> list[str]:
        """Split one record; raise csv.Error if its quotation marks do not match."""
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        style = {"delimiter": self.delimiter, "skipinitialspace": self.skip_space}
        return next(csv.reader(lines, quoting=quoting, strict=True, **style), [])

    def split(self, line: str, most: int = -1) -> list[str]:
        """Split a line at every delimiter, whatever its quotation marks."""
        return line.rstrip("\r\n").split(self.delimiter, most)


def _rows(
    lines: Iterator[_Line], path: Path, columns: Columns, report: ReportMalformed
) -> Iterator[CaptionRow]:
    first = next(lines, (1, ""))
    delimiters = DELIMITERS
    if stated := re.fullmatch(r"(?i)\"?sep=(.)\"?\s*", first[1]):
        delimiters, first = (stated[1],), next(lines, (2, ""))
    if _TOKEN_LINE.match(first[1]) and columns == Columns(encoding=columns.encoding):
        yield from _token_rows(chain([first], lines), report)
        return
    dialects = [_Dialect.of(delimiter, first[1]) for delimiter in delimiters]
    dialect, names, roles = _detect_columns(first[1], dialects, columns, path)
    if not names:
        log.warning("%s has no header: its first column is the image, its second the caption", path)
        lines, names = chain([first], lines), ["image", "caption"]
    for name in filter(None, (roles.image, *roles.captions, roles.split, roles.labels)):
        if names.count(name) > 1:
            raise ValueError(f"{path} has two columns {name!r}; rename one of them")
    at_image = names.index(roles.image)
    at_captions = [names.index(name) for name in roles.captions]
    n_joined = 0
    for number, cells, raw in _records(lines, dialect, at_image, report):
        name = without_number(cells[at_image]) if len(cells) > at_image else ""
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(names):
            # An unquoted comma in a caption is unambiguous only in the last column.
            two_rows = any(IMAGE_SUFFIX.search(cell.strip()) for cell in cells[len(names) - 1 :])
            verbatim = not dialect.quoted or '"' not in raw or cells == dialect.split(raw)
            if at_captions != [len(names) - 1] or two_rows or not verbatim:
                reason = f"too many fields: {len(cells)}, expected {len(names)}"
                report(number, name, f"{reason}; quote fields that hold a delimiter")
                continue
            cells = dialect.split(raw, len(names) - 1)
            n_joined += 1
        if len(cells) <= max(at_image, *at_captions):
            report(number, name, f"too few fields: {len(cells)}, expected {len(names)}")
            continue
        yield from rows_of(number, dict(zip(names, cells, strict=False)), roles, report)
    if n_joined:
        log.warning(
            "%s: %s rows have more fields than the header; the extra fields were added to the "
            "caption (%r is not quoted there)", path, f"{n_joined:,}", dialect.delimiter,
        )  # fmt: skip


def _detect_columns(
    first: str, dialects: Sequence[_Dialect], columns: Columns, path: Path
) -> tuple[_Dialect, list[str], ColumnRoles]:
    """Detect the delimiter and the columns from the first line; no names if it is a row."""
    fault: ValueError | None = None
    plain_rows = []
    for dialect in dialects:
        names: list[str] = []
        try:
            names = [name.strip() for name in dialect.cells([first])]
            return dialect, names, find_columns(names, columns, path)
        except csv.Error:
            names = dialect.split(first)
        except ValueError as error:
            fault = error if fault is None or dialect.delimiter in first else fault
        if [bool(IMAGE_SUFFIX.search(name.strip())) for name in names] == [True, False]:
            plain_rows.append(dialect)
    if plain_rows and columns.image is None and columns.caption is None:
        return plain_rows[0], [], ColumnRoles()
    raise fault or ValueError(f"{path} has no columns; expected a header such as image,caption")


def _records(
    lines: Iterator[_Line], dialect: _Dialect, at_image: int, report: ReportMalformed
) -> Iterator[tuple[int, list[str], str]]:
    """Yield the line, the cells and the text of each record.

    An unclosed quotation mark affects one line only.
    """
    pending: list[_Line] = []
    while current := pending.pop(0) if pending else next(lines, None):
        number, raw = current
        if not raw.strip():
            continue
        taken = [current]
        plain = dialect.split(raw)
        name = plain[at_image] if len(plain) > at_image else ""
        while True:
            try:
                cells = dialect.cells([line for _, line in taken])
            except csv.Error as error:
                if "unexpected end of data" in str(error) and len(taken) < _MAX_FIELD_LINES:
                    more = pending.pop(0) if pending else next(lines, None)
                    if more is not None:
                        taken.append(more)
                        if not _starts_a_row(more[1], dialect, at_image, name):
                            continue
                pending[:0] = taken[1:]
                if dialect.delimiter == "\t":  # quotation marks are part of a caption
                    yield number, plain, raw
                else:
                    reason = "a quotation mark is not closed, or is inside a quoted field"
                    report(number, without_number(name.strip('" ')), f"not a CSV row: {reason}")
                break
            yield number, cells, "".join(line for _, line in taken)
            break


def _starts_a_row(line: str, dialect: _Dialect, at_image: int, name: str) -> bool:
    """Return whether a line inside a quoted field looks like the next row, with an image name."""
    cells = dialect.split(line)
    if len(cells) <= max(at_image, 1) or cells[at_image].count('"') % 2:
        return False  # an odd number of marks ends a quoted name that has a line break
    found = cells[at_image].strip().strip('"')
    if IMAGE_SUFFIX.search(name.strip().strip('"')):
        return bool(IMAGE_SUFFIX.search(found))
    return bool(found) and not re.search(r"\s", found)  # names without an extension, such as ids


def _token_rows(lines: Iterator[_Line], report: ReportMalformed) -> Iterator[CaptionRow]:
    for number, line in lines:
        if found := _TOKEN_LINE.match(line):
            value = {"image": found["name"] or found["other"], "caption": found["caption"]}
            yield from rows_of(number, value, ColumnRoles(), report)
        elif line.strip():
            reason = "no numbered image name, such as a.jpg#0, at the start of the line"
            report(number, line[:200], reason)
