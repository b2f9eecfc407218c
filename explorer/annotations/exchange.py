"""What people keep, as files for version control and for sharing: JSON or CSV.

A dimension a line, sorted, and the same text every time. A cell of CSV that a spreadsheet would
take for a formula gets a leading apostrophe, which reading takes off again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sieve.data_prep.cells import read_cell, safe_cell
from sieve.explorer.annotations.fields import FIELDS, Annotation, read_field, told_time
from sieve.explorer.annotations.searches import SavedSearch
from sieve.explorer.json_fields import read_object, read_whole, refuse_unknown, shown

FORMAT = 1
KINDS = ("json", "csv")
MAX_BYTES = 64 << 20
"""Of a file that is read: 4,096 dimensions with the longest notes have 40 MB."""
_CHANGED = tuple(f"{field}_changed" for field in FIELDS)
_COLUMNS = ("dimension", *FIELDS, *_CHANGED)
_HEAD = {"sieve_annotations", "collection", "checkpoint", "dimensions", "searches"}


class Said(NamedTuple):
    """What a file says of one field of one dimension."""

    dimension: int
    field: str
    value: str
    """As `read_field` gives it; never empty."""
    changed: str
    """When, in UTC as ISO 8601; empty where the file does not tell."""


class Exchanged(NamedTuple):
    """What stands in a file."""

    said: tuple[Said, ...]
    searches: tuple[tuple[str, str, str], ...] = ()
    """Name, link and time of each."""
    collection: str = ""
    """Hash of the collection; empty where the file does not tell."""
    checkpoint: str = ""


def write_json(
    kept: Mapping[int, Annotation], searches: Sequence[SavedSearch], origin: Mapping[str, str]
) -> str:
    """Write everything as JSON, a dimension and a search a line.

    Parameters
    ----------
    kept : mapping of int to Annotation
    searches : sequence of SavedSearch
    origin : mapping of str to str
        Hashes of the collection and the checkpoint.
    """
    dimensions = [_json_entry(j, kept[j]) for j in sorted(kept)]
    told = [{"name": s.name, "link": s.link, "saved": s.saved} for s in searches]
    told.sort(key=lambda search: (search["saved"], search["link"]))
    head = {"sieve_annotations": FORMAT, **origin}
    lists = {"dimensions": [entry for entry in dimensions if len(entry) > 1], "searches": told}
    parts = [f" {_dumps(name)}: {_dumps(value)}" for name, value in head.items()]
    parts += [f" {_dumps(name)}: {_listed(entries)}" for name, entries in lists.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_csv(kept: Mapping[int, Annotation]) -> str:
    """Write names, notes, tags and stars as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for dimension in sorted(kept):
        entry = _json_entry(dimension, kept[dimension])
        if len(entry) > 1:
            tags = {"tags": ", ".join(entry["tags"])} if "tags" in entry else {}
            flag = {"starred": "true"} if "starred" in entry else {}
            cells = {name: str(value) for name, value in (entry | tags | flag).items()}
            writer.writerow({name: safe_cell(cell) for name, cell in cells.items()})
    return stream.getvalue()


def read_exchanged(data: bytes, kind: str, m: int) -> Exchanged:
    """Read a file that anybody may have written.

    Parameters
    ----------
    data : bytes
        UTF-8.
    kind : str
        json or csv.
    m : int
        Number of dimensions.

    Raises
    ------
    ValueError
        In one line that names the place.
    """
    if kind not in KINDS:
        raise ValueError(f"a file of notes ends in .json or .csv; got {shown(kind)}")
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text; save it as UTF-8") from None
    return _read_json(text, m) if kind == "json" else Exchanged(_read_csv(text, m))


def _json_entry(dimension: int, annotation: Annotation) -> dict[str, Any]:
    entry: dict[str, Any] = {"dimension": dimension}
    said = {name: annotation[name] for name in FIELDS if name in annotation}
    said = {name: field for name, field in said.items() if field.value}
    for name, field in said.items():
        flag = True if name == "starred" else field.value
        entry[name] = field.value.split(", ") if name == "tags" else flag
    return entry | {f"{name}_changed": field.changed for name, field in said.items()}


def _listed(entries: Sequence[Mapping[str, Any]]) -> str:
    lines = ",\n".join(f"  {_dumps(entry)}" for entry in entries)
    return f"[\n{lines}\n ]" if lines else "[]"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _read_json(text: str, m: int) -> Exchanged:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file is not JSON: {' '.join(str(error).split())[:120]}") from None
    head = read_object(given, "a file of notes")
    refuse_unknown(head, _HEAD, "a file of notes")
    if head.get("sieve_annotations") != FORMAT:
        raise ValueError(
            f"the file is no file of notes: sieve_annotations must be {FORMAT}; "
            f"got {shown(head.get('sieve_annotations'))}"
        )
    entries, searches = _list(head, "dimensions"), _list(head, "searches")
    return Exchanged(
        _read_entries(enumerate(entries, 1), m, "entry"),
        tuple(_read_search(number, search) for number, search in enumerate(searches, 1)),
        *(_text(head, name, f"{name} of the file") for name in ("collection", "checkpoint")),
    )


def _read_csv(text: str, m: int) -> tuple[Said, ...]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name or "" for name in reader.fieldnames or ()]
        if "dimension" not in columns:
            raise ValueError(f"the first line must name columns, among them dimension; got "
                             f"{shown(','.join(columns))}")  # fmt: skip
        refuse_unknown(dict.fromkeys(columns), set(_COLUMNS), "a file of notes")
        rows = []
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num}: more cells than columns")
            rows.append((reader.line_num, {n: read_cell(v or "") for n, v in row.items()}))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: this is not CSV ({error})") from None
    return _read_entries(rows, m, "line")


def _read_entries(entries: Iterable[tuple[int, Any]], m: int, what: str) -> tuple[Said, ...]:
    said: list[Said] = []
    seen: set[int] = set()
    for number, value in entries:
        try:
            entry = read_object(value, "an entry")
            refuse_unknown(entry, set(_COLUMNS), "an entry")
            dimension = _dimension(entry.get("dimension"), m)
            if dimension in seen:
                raise ValueError(f"dimension {dimension} is there twice")
            seen.add(dimension)
            said += _read_fields(dimension, entry)
        except ValueError as error:
            raise ValueError(f"{what} {number}: {error}") from None
    return tuple(said)


def _read_fields(dimension: int, entry: Mapping[str, Any]) -> Iterable[Said]:
    for field in FIELDS:
        value = read_field(field, entry.get(field, ""))
        if value:
            yield Said(dimension, field, value, _time(entry, f"{field}_changed"))


def _read_search(number: int, value: Any) -> tuple[str, str, str]:
    entry = read_object(value, f"search {number}")
    refuse_unknown(entry, {"name", "link", "saved"}, f"search {number}")
    name, link = (_text(entry, part, f"{part} of search {number}") for part in ("name", "link"))
    return name, link, _time(entry, "saved")


def _dimension(value: Any, m: int) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:12])
    dimension = read_whole("dimension", value)
    if not 0 <= dimension < m:
        raise ValueError(f"there is no dimension {dimension}; there are 0 to {m - 1}")
    return dimension


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list; got {shown(value)}")
    return value


def _text(given: Mapping[str, Any], name: str, what: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text; got {shown(value)}")
    return value


def _time(given: Mapping[str, Any], name: str) -> str:
    """Read a time as it is kept: UTC, to the millisecond, so that times compare as text."""
    value = _text(given, name, name)
    if not value:
        return ""
    try:
        when = datetime.fromisoformat(value)
        return told_time(when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{name} must be a time, as 2026-01-31T12:00:00Z; got {shown(value)}"
        ) from None
