"""Rows of caption files in any format.

CSV and similar text tables, JSON in the layouts that are in use, JSON lines, Parquet, and the files
of Flickr8k and Flickr30k: `results.csv` with `|` between fields, and `*.token`, which has no header
and numbers the captions of an image (`1000092795.jpg#0`).
"""

from __future__ import annotations

import codecs
import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from sieve.data_prep.captions.caption_text import Columns
from sieve.data_prep.captions.cell import NULL_WORDS, CellError, captions_in, is_missing, text_in

log = logging.getLogger(__name__)

LABEL_SEPARATOR = ";"

IMAGE_NAMES = (
    "image", "image_name", "file_name", "filename", "image_path", "filepath",
    "image_file", "path", "file", "img", "img_path",
)  # fmt: skip
CAPTION_NAMES = (
    "caption", "captions", "comment", "sentence", "sentences", "text", "TEXT",
    "title", "prompt", "description", "raw",
)  # fmt: skip
IMAGE_SUFFIX = re.compile(r"(?i)\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf]|jp2|ppm)$")

_NUMBERED_CAPTION = re.compile(r"(?i)(caption|comment|sentence|text)s?[ _-]?\d{1,2}$")
# What Flickr8k, Flickr30k and Multi30k write after a file name to number its captions.
_MARKER = re.compile(r"(?i)(?P<name>.+\.[a-z0-9]{1,5})\s*#(?:[a-z]{1,8}#)?\d{1,3}#?$", re.S)
_TOKEN_LINE = re.compile(
    r"(?i)(?:(?P<name>[^\t]+?\.[a-z0-9]{1,5}(?:\.\d)?\s*#(?:[a-z]{1,8}#)?\d{1,3}#?)\s*\t"
    r"|(?P<other>[^\t,;|]+?\.[a-z0-9]{1,5}(?:\.\d)?\s*#(?:[a-z]{1,8}#)?\d{1,3}#?)[ ,;|])"
    r"\s*(?P<caption>.*)$",
    re.S,
)
_PLAIN_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".token"}
_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}
SUFFIXES = frozenset(_PLAIN_SUFFIXES | _JSON_SUFFIXES | _PARQUET_SUFFIXES)

_DELIMITERS = (",", ";", "\t", "|")
_MAX_LINE = 1 << 20
_MAX_JSON = 4 << 30
_MAX_FIELD_LINES = 30
"""A quoted field over more lines is taken for one whose quotation mark was never closed."""
_BATCH = 4096
_LISTS = ("images", "annotations", "data", "items", "rows", "captions", "samples")

Fault = Callable[[int, str, str], None]
"""Receives a malformed row: its line, its image and the reason."""


class CaptionRow(NamedTuple):
    """One caption of one image, or an image without a caption."""

    line: int
    """Line of a text file, counted from 1; number of a row, an entry or an annotation elsewhere."""
    image: str
    caption: str
    split: str = ""
    labels: Sequence[str] = ()


def read_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[CaptionRow]:
    """Read the rows of a caption file, one by one.

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
    fault : callable
        Receives each row that cannot be read.

    Raises
    ------
    ValueError
        If the file is not of its format or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix in _PARQUET_SUFFIXES:
        return _parquet_rows(path, columns, fault)
    if suffix in _JSON_SUFFIXES:
        return _json_rows(path, columns, fault)
    if suffix in _PLAIN_SUFFIXES:
        return _plain_rows(path, columns, fault)
    if suffix in (".gz", ".bz2", ".xz", ".zip", ".zst"):
        raise ValueError(f"{path} is compressed; decompress it first")
    known = ", ".join(sorted(SUFFIXES))
    raise ValueError(f"{path} is of no known format; expected one of {known}")


# Columns


class _Places(NamedTuple):
    """Name of each column; None if there is no such column."""

    image: str
    captions: tuple[str, ...]
    """Several for `caption_1`, `caption_2`, …"""
    split: str | None
    labels: str | None
    other_images: tuple[str, ...] = ()
    """Further columns that may name the image, unless the user named one."""


def _plain_name(name: object) -> str:
    return re.sub(r"[ .-]+", "_", str(name).strip().lower())


def _places(found: Sequence[str], columns: Columns, path: Path) -> _Places:
    """Find the columns by the names given, else by the usual ones, in upper or lower case."""
    by_plain_name: dict[str, str] = {}
    for name in found:
        by_plain_name.setdefault(_plain_name(name), name)

    def find(given: str | None, usual: Sequence[str]) -> str | None:
        if given is not None and given in found:
            return given
        wanted = usual if given is None else [given]
        names = (by_plain_name.get(_plain_name(name)) for name in wanted)
        return next((name for name in names if name is not None), None)

    def missing(wanted: str) -> ValueError:
        names = ", ".join(" ".join(str(name).split())[:40] for name in found[:20]) or "none"
        return ValueError(
            f"{path} has no column {wanted!r}; its columns are: {names}. Expected columns such "
            "as image,caption; name others with --image-column and --caption-column"
        )

    image = find(columns.image, IMAGE_NAMES)
    if image is None:
        raise missing(columns.image or IMAGE_NAMES[0])
    captions = _caption_columns(columns, [name for name in found if name != image], find, path)
    if not captions:
        raise missing(columns.caption or CAPTION_NAMES[0])
    split, labels = find(columns.split, ("split",)), find(columns.labels, ("labels",))
    for given, column in ((columns.split, split), (columns.labels, labels)):
        if given is not None and column is None:
            raise missing(given)
    usual = [by_plain_name[name] for name in IMAGE_NAMES if name in by_plain_name]
    others = tuple(dict.fromkeys(usual)) if columns.image is None else ()
    taken = {image, *captions, split, labels}
    return _Places(image, captions, split, labels, tuple(n for n in others if n not in taken))


def _caption_columns(
    columns: Columns,
    found: Sequence[str],
    find: Callable[[str | None, Sequence[str]], str | None],
    path: Path,
) -> tuple[str, ...]:
    """Find the column of captions, or several that are numbered."""
    if columns.caption is not None:
        one = find(columns.caption, ())
        return () if one is None else (one,)
    if one := find(None, CAPTION_NAMES[:2]):
        return (one,)
    numbered = [name for name in found if _NUMBERED_CAPTION.fullmatch(str(name).strip())]
    usual = {_plain_name(name) for name in CAPTION_NAMES}
    others = [name for name in found if _plain_name(name) in usual]
    if numbered and not others:
        return tuple(numbered)
    if len(others) + len(numbered) > 1:
        names = " or ".join(repr(name) for name in [*others, *numbered][:3])
        raise ValueError(
            f"{path} has several columns that may hold captions: {names}; name one with "
            "--caption-column"
        )
    return tuple(others)


# Delimited text


def _plain_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[CaptionRow]:
    encoding = columns.encoding or detect_encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as stream:
            yield from _delimited(_lines(stream), path, columns, fault)
    except LookupError:
        raise ValueError(
            f"there is no encoding {columns.encoding!r}; examples: utf-8, utf-16, latin-1, cp1252"
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
    """Return the encoding that a byte-order mark states, else UTF-8."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _lines(stream: TextIO) -> Iterator[str]:
    """Yield lines with their end; the rest of a line that is far too long is dropped."""
    while line := stream.readline(_MAX_LINE):
        rest = line
        while rest and len(rest) == _MAX_LINE and rest[-1] not in "\r\n":
            rest = stream.readline(_MAX_LINE)
        yield line


class _Dialect(NamedTuple):
    """The delimiter and quoting of a table."""

    delimiter: str
    quoted: bool = True
    """Whether quotation marks enclose fields; Flickr's files have them as part of a caption."""
    skip_space: bool = False

    def cells(self, lines: Sequence[str]) -> list[str]:
        """Split one record, which may go over several lines.

        Raises
        ------
        csv.Error
            If its quotation marks do not match.
        """
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        reader = csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=quoting,
            strict=True,
            skipinitialspace=self.skip_space,
        )
        return next(iter(reader), [])

    def is_verbatim(self, record: _Record) -> bool:
        """Whether no quotation mark of a record had a meaning."""
        return (
            not self.quoted
            or '"' not in record.raw
            or self.delimiter.join(record.cells) == record.raw.rstrip("\r\n")
        )


class _Record(NamedTuple):
    line: int
    cells: list[str]
    raw: str


def _delimited(
    lines: Iterator[str], path: Path, columns: Columns, fault: Fault
) -> Iterator[CaptionRow]:
    pending: list[tuple[int, str]] = []
    numbered = enumerate(lines, 1)
    first = next(numbered, (1, ""))
    stated = re.fullmatch(r"(?i)\"?sep=(.)\"?\s*", first[1].rstrip("\r\n"))
    if stated:
        first = next(numbered, (2, ""))
    if _TOKEN_LINE.match(first[1].rstrip("\r\n")) and columns == Columns(encoding=columns.encoding):
        yield from _token_rows(first, numbered, fault)
        return
    dialect, header = _dialect(first[1], stated[1] if stated else None, columns, path)
    if header is None:
        log.warning("%s has no header: its first column is the image, its second the caption", path)
        pending.append(first)
        header = ["image", "caption"]
    names = [name.strip() for name in header]
    places = _places(names, columns, path)
    for name in filter(None, (places.image, *places.captions, places.split, places.labels)):
        if names.count(name) > 1:
            raise ValueError(f"{path} has two columns {name!r}; rename one of them")
    at_image = names.index(places.image)
    at_captions = [names.index(name) for name in places.captions]
    n_joined = 0
    for record in _records(pending, numbered, dialect, at_image, fault):
        cells = record.cells
        name = _unmarked(cells[at_image]) if len(cells) > at_image else ""
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(names):
            # An unquoted comma in a caption; only the last column can hold it without doubt.
            two_rows = any(IMAGE_SUFFIX.search(cell.strip()) for cell in cells[len(names) - 1 :])
            last = at_captions == [len(names) - 1]
            if not last or two_rows or not dialect.is_verbatim(record):
                reason = f"too many fields: {len(cells)}, expected {len(names)}"
                fault(record.line, name, f"{reason}; quote fields that hold a delimiter")
                continue
            cells = record.raw.rstrip("\r\n").split(dialect.delimiter, len(names) - 1)
            n_joined += 1
        if len(cells) <= max(at_image, *at_captions):
            fault(record.line, name, f"too few fields: {len(cells)}, expected {len(names)}")
            continue
        value = dict(zip(names, cells, strict=False))
        yield from _rows_of(record.line, value, places, fault)
    if n_joined:
        log.warning(
            "%s: %s rows have more fields than the header; the rest of each is part of its "
            "caption (%r is not quoted there)", path, f"{n_joined:,}", dialect.delimiter,
        )  # fmt: skip


def _dialect(
    first: str, stated: str | None, columns: Columns, path: Path
) -> tuple[_Dialect, list[str] | None]:
    """Find the delimiter with which the first line is a header; None if it is a row."""
    fault: ValueError | None = None
    dialects = []
    for delimiter in [stated] if stated else _DELIMITERS:
        spaced = first.count(delimiter) == first.count(f"{delimiter} ") > 0
        dialects.append(_Dialect(delimiter, delimiter != "|", spaced and delimiter in ",;"))
    for dialect in dialects:
        try:
            header = dialect.cells([first])
            _places([name.strip() for name in header], columns, path)
        except csv.Error:
            continue
        except ValueError as error:
            fault = error if fault is None or dialect.delimiter in first else fault
            continue
        return dialect, header
    if columns.image is None and columns.caption is None:
        for dialect in dialects:
            cells = first.rstrip("\r\n").split(dialect.delimiter)
            with suppress(csv.Error):
                cells = dialect.cells([first])
            named = [bool(IMAGE_SUFFIX.search(cell.strip())) for cell in cells]
            if named == [True, False]:
                return dialect, None
    raise fault or ValueError(f"{path} has no columns; expected a header such as image,caption")


def _records(
    pending: list[tuple[int, str]],
    lines: Iterator[tuple[int, str]],
    dialect: _Dialect,
    at_image: int,
    fault: Fault,
) -> Iterator[_Record]:
    """Split lines into records; a quotation mark that is never closed costs one line."""

    def following() -> tuple[int, str] | None:
        return pending.pop(0) if pending else next(lines, None)

    while (current := following()) is not None:
        number, raw = current
        if not raw.strip():
            continue
        taken = [current]
        plain = raw.rstrip("\r\n").split(dialect.delimiter)
        name = plain[at_image] if len(plain) > at_image else ""
        while True:
            try:
                cells = dialect.cells([line for _, line in taken])
            except csv.Error as error:
                if "unexpected end of data" in str(error) and len(taken) < _MAX_FIELD_LINES:
                    more = following()
                    if more is not None:
                        taken.append(more)
                        if not _starts_a_row(more[1], dialect, at_image, name):
                            continue
                pending[:0] = taken[1:]
                if dialect.delimiter == "\t":  # quotation marks are part of a caption
                    yield _Record(number, plain, raw)
                else:
                    reason = "a quotation mark is not closed, or stands within a quoted field"
                    fault(number, _unmarked(name.strip('" ')), f"not a CSV row: {reason}")
                break
            yield _Record(number, cells, "".join(line for _, line in taken))
            break


def _starts_a_row(line: str, dialect: _Dialect, at_image: int, name: str) -> bool:
    """Whether a line within a quoted field looks like the next row: it begins with an image."""
    cells = line.rstrip("\r\n").split(dialect.delimiter)
    if len(cells) <= max(at_image, 1):
        return False
    found = cells[at_image].strip()
    if found.count('"') % 2:  # the end of a quoted name that has a line break
        return False
    found = found.strip('"')
    if IMAGE_SUFFIX.search(name.strip().strip('"')):
        return bool(IMAGE_SUFFIX.search(found))
    return bool(found) and not re.search(r"\s", found)  # names without an extension, as ids


def _token_rows(
    first: tuple[int, str], lines: Iterator[tuple[int, str]], fault: Fault
) -> Iterator[CaptionRow]:
    """Read Flickr's token files: a numbered name and a caption a line, without a header."""
    places = _Places("image", ("caption",), None, None)
    for number, line in chain([first], lines):
        found = _TOKEN_LINE.match(line.rstrip("\r\n"))
        if found:
            value = {"image": found["name"] or found["other"], "caption": found["caption"]}
            yield from _rows_of(number, value, places, fault)
        elif line.strip():
            reason = "no numbered image name, such as a.jpg#0, at the start of the line"
            fault(number, line[:200], reason)


def _unmarked(name: str) -> str:
    """Remove the number of a caption after a file name: `a.jpg#0`."""
    found = _MARKER.fullmatch(name)
    return found["name"] if found else name


# JSON


def _json_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[CaptionRow]:
    """Read JSON, or JSON lines under any name: many files `*.json` are."""
    if path.suffix.lower() != ".json":
        yield from _json_line_rows(path, columns, fault)
        return
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path} is larger than {_MAX_JSON:,} bytes; write it as JSON lines")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"{path} is not JSON: {error}") from None
        yield from _json_line_rows(path, columns, fault)
        return
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())[:120]}") from None
    yield from _rows_of_json(value, path, columns, fault)


def _rows_of_json(value: Any, path: Path, columns: Columns, fault: Fault) -> Iterator[CaptionRow]:
    if isinstance(value, dict):
        images, annotations = value.get("images"), value.get("annotations")
        if _objects(images) and _objects(annotations):
            if not any(isinstance(entry, dict) and "caption" in entry for entry in annotations):
                keys = ", ".join(next(entry for entry in annotations if isinstance(entry, dict)))
                raise ValueError(
                    f"{path}: no annotation has a caption, their keys are {keys[:200]}; expected "
                    "COCO's captions_*.json"
                )
            return _coco_rows(images, annotations, fault)
        lists = [name for name in _LISTS if _objects(value.get(name))]
        if len(lists) == 1:
            value = value[lists[0]]
        elif value and not value.keys() & set(_LISTS):
            return _named_rows(value, path, columns, fault)
    if isinstance(value, list) and _objects(value):
        return _object_rows(value, path, columns, fault)
    raise ValueError(
        f"{path} holds {_described(value)}; expected a list of objects such as "
        '[{"image": "a.jpg", "caption": "a dog"}], an object {"a.jpg": ["a dog"]}, Karpathy\'s '
        "dataset_*.json, or COCO's captions_*.json"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has a key twice: Python would drop all but the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:100]!r} occurs twice in one object")
    return value


def _objects(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)


def _described(value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(str(key)[:30] for key in list(value)[:8])
        return f"an object with the keys {keys}" if keys else "an empty object"
    if isinstance(value, list):
        return f"a list of {type(value[0]).__name__}" if value else "an empty list"
    return type(value).__name__


def _object_rows(
    entries: Sequence[Any], path: Path, columns: Columns, fault: Fault
) -> Iterator[CaptionRow]:
    """Read a list of objects, each with the name of an image; Karpathy's images too."""
    places = None
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            fault(number, "", f"not a JSON object: {type(entry).__name__}")
            continue
        places = places or _places(list(entry), columns, path)
        yield from _rows_of(number, _with_folder(entry, places), places, fault)


def _with_folder(entry: dict[str, Any], places: _Places) -> dict[str, Any]:
    """Put Karpathy's `filepath` (a folder) before his `filename`."""
    folder, name = entry.get("filepath"), entry.get("filename")
    if places.image != "filename" or not isinstance(folder, str) or not isinstance(name, str):
        return entry
    whole = folder if folder.endswith(name) else f"{folder.rstrip('/')}/{name}"
    return {**entry, "filename": whole}


def _named_rows(
    value: Mapping[str, Any], path: Path, columns: Columns, fault: Fault
) -> Iterator[CaptionRow]:
    """Read an object whose keys name images, or are ids of objects that name them."""
    places = _Places("image", ("caption",), "split", "labels")
    n_read = 0
    faults: list[tuple[int, str, str]] = []
    for number, (name, entry) in enumerate(value.items(), 1):
        if isinstance(entry, dict) and any(_plain_name(key) in IMAGE_NAMES for key in entry):
            yield from _rows_of(number, entry, _places(list(entry), columns, path), fault)
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
        yield from _rows_of(number, row, places, fault)
    if not n_read:
        raise ValueError(
            f"{path} holds {_described(value)}, none of them with captions ({faults[0][2]}); "
            'expected {"a.jpg": ["a dog"]} or a list [{"image": "a.jpg", "caption": "a dog"}]'
        )
    for entry in faults:
        fault(*entry)


def _coco_rows(
    images: Sequence[Any], annotations: Sequence[Any], fault: Fault
) -> Iterator[CaptionRow]:
    """Read COCO's captions, whose images are named in a list of their own."""
    names: dict[str, set[str]] = {}
    for entry in images:
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            names.setdefault(str(entry.get("id")), set()).add(entry["file_name"])
    for number, entry in enumerate(annotations):
        known = sorted(names.get(str(entry.get("image_id")), ())) if isinstance(entry, dict) else []
        if len(known) != 1:
            both = f"; it is {known[0]} and {known[1]}" if known else ""
            fault(number, "", f"an annotation whose image_id names no one image{both}")
            continue
        row = {"image": known[0], "caption": entry.get("caption")}
        yield from _rows_of(number, row, _Places("image", ("caption",), None, None), fault)


def _json_line_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[CaptionRow]:
    places = None
    if (encoding := detect_encoding(path)) != "utf-8-sig":
        raise ValueError(f"{path} is {encoding.upper()}; JSON lines are UTF-8: save it as UTF-8")
    with path.open("rb") as stream:
        for number, line in numbered_lines(stream, _MAX_LINE):
            text = line.removeprefix(codecs.BOM_UTF8)
            if not text.strip():
                continue
            try:
                value = json.loads(text, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                fault(number, "", f"not a JSON line: {' '.join(str(error).split())[:120]}")
                continue
            if not isinstance(value, dict):
                fault(number, "", f"not a JSON object: {type(value).__name__}")
                continue
            places = places or _places(list(value), columns, path)
            yield from _rows_of(number, value, places, fault)


def numbered_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their number, counted from 1; what follows `limit` bytes is dropped."""
    number = 0
    while line := stream.readline(limit):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(limit)
        yield number, line


# Parquet


def _parquet_rows(path: Path, columns: Columns, fault: Fault) -> Iterator[CaptionRow]:
    try:
        with pq.ParquetFile(path) as table:
            places = _places(table.schema_arrow.names, columns, path)
            kind = table.schema_arrow.field(places.image).type
            image = places.image
            if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
                image = f"{image}.path"  # not the bytes beside it
            elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ValueError(
                    f"{path}: column {places.image!r} holds {kind}, not names of files; if it "
                    "holds the images themselves, use `sieve prepare conceptual-captions`"
                )
            schema = table.schema_arrow
            texts = [n for n in places.other_images if pa.types.is_string(schema.field(n).type)]
            places = places._replace(other_images=tuple(texts))
            others = (*places.captions, places.split, places.labels, *texts)
            wanted = [image, *(name for name in others if name is not None)]
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
                for value in batch.to_pylist():
                    number += 1
                    yield from _rows_of(number, value, places, fault)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a Parquet file that can be read: {reason}") from None


# Cells


def _rows_of(
    line: int, value: Mapping[str, Any], places: _Places, fault: Fault
) -> Iterator[CaptionRow]:
    """Yield a row a caption; one without a caption if there is none."""
    image = ""
    try:
        image = _unmarked(_image_in(value, places))
        split = text_in(None if places.split is None else value.get(places.split))
        labels = _labels_in(None if places.labels is None else value.get(places.labels))
    except CellError as error:
        fault(line, image, f"row cannot be read: {error}")
        return
    try:
        captions = [text for name in places.captions for text in captions_in(value.get(name))]
    except CellError as error:
        fault(line, image, f"caption cannot be read: {error}")
        return
    for caption in captions or [""]:
        yield CaptionRow(line, image, caption, "" if split.lower() in NULL_WORDS else split, labels)


def _image_in(value: Mapping[str, Any], places: _Places) -> str:
    """Return the name of an image; of several columns, from the first that holds file names.

    Raises
    ------
    CellError
        If two columns name different files.
    """
    first = _name_in(value.get(places.image))
    others = {column: _name_in(value.get(column)) for column in places.other_images}
    files = {column: name for column, name in others.items() if IMAGE_SUFFIX.search(name.strip())}
    if not IMAGE_SUFFIX.search(_unmarked(first.strip())):  # perhaps a number
        return next(iter(files.values()), first)
    for column, name in files.items():
        if _base_name(name) != _base_name(first):
            raise CellError(
                f"ambiguous image name, {first[:100]} in {places.image} and {name[:100]} in "
                f"{column}; name the column with --image-column"
            )
    return first


def _base_name(name: str) -> str:
    return _unmarked(name.strip()).replace("\\", "/").rpartition("/")[2].casefold()


def _name_in(value: Any) -> str:
    """Return the name of an image: a text, or the path in Hugging Face's `{"bytes", "path"}`."""
    if isinstance(value, dict):
        value = value.get("path")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    name = text_in(value)
    return name if name.strip() else ""


def _labels_in(value: Any) -> list[str]:
    if is_missing(value):
        return []
    if isinstance(value, str):
        value = value.split(LABEL_SEPARATOR)
    if not isinstance(value, list | tuple):
        value = [value]
    return [text for text in map(text_in, value) if text.strip().lower() not in {"", *NULL_WORDS}]


def image_column_of(names: Sequence[str], value: Mapping[str, Any]) -> str | None:
    """Return the column of a table's first row that names the image; None if there is none.

    Of several, it is the first that holds a file name: beside those, `image` may be a number.
    """
    lower = {column.strip().lower(): column for column in reversed(list(value))}
    found = [lower[name] for name in names if name in lower]
    files = [column for column in found if IMAGE_SUFFIX.search(as_text(value[column]).strip())]
    return next(iter([*files, *found]), None)


def as_text(value: Any) -> str:
    """Read a cell of a typed table as text: empty for null and NaN."""
    if value is None or value != value:
        return ""
    return value if isinstance(value, str) else str(value)
