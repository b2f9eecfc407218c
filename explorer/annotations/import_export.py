"""Export and import of annotations as JSON or CSV, for version control and sharing.

A file has one dimension per line, sorted, so equal annotations give equal files. A CSV cell that a
spreadsheet would interpret as a formula gets a leading apostrophe, which the import removes.

An import is planned first: the plan lists all changes, and newer values in the store are kept.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, ConfigDict, PlainValidator, ValidationInfo
from pydantic.dataclasses import dataclass

from sieve.explorer.annotations.store import (
    FIELDS,
    Annotation,
    Annotations,
    Field,
    FieldChange,
    SavedSearch,
    field_json,
    format_time,
    read_field,
    search_link,
    search_name,
)
from sieve.explorer.json_validation import Storable, parse_json, short_repr, validate
from sieve.explorer.view_state import Dimension
from sieve.model.checkpoint import Checkpoint
from sieve.model.collection import Collection
from sieve.model.files import read_cell, safe_cell

FORMAT = 1
KINDS = ("json", "csv")
MAX_BYTES = 64 << 20
"""Size limit of an imported file; 4,096 dimensions with the longest notes take 40 MB."""
_COLUMNS = ("dimension", *FIELDS, *(f"{field}_changed" for field in FIELDS))
_STRICT = ConfigDict(extra="forbid")


class AnnotationFile(NamedTuple):
    """The content of an annotations file."""

    values: tuple[FieldChange, ...]
    searches: tuple[tuple[str, str, str], ...] = ()
    """Name, link and time of each saved search."""
    collection: str = ""
    """Hash of the collection; empty if the file does not contain it."""
    checkpoint: str = ""


def write_json(
    kept: Mapping[int, Annotation], searches: Sequence[SavedSearch], origin: Mapping[str, str]
) -> str:
    """Serialise annotations and saved searches to JSON, one entry per line.

    `origin` has the hashes of the collection and the checkpoint.
    """
    saved = [{"name": s.name, "link": s.link, "saved": s.saved} for s in searches]
    saved.sort(key=lambda search: (search["saved"], search["link"]))
    head = {"sieve_annotations": FORMAT, **origin}
    lists = {"dimensions": _entries(kept), "searches": saved}
    parts = [f" {_dumps(name)}: {_dumps(value)}" for name, value in head.items()]
    for name, entries in lists.items():
        lines = ",\n".join(f"  {_dumps(entry)}" for entry in entries)
        parts.append(f" {_dumps(name)}: " + (f"[\n{lines}\n ]" if lines else "[]"))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_csv(kept: Mapping[int, Annotation]) -> str:
    """Serialise names, notes, tags and stars to CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for entry in _entries(kept):
        cells = entry | {"tags": ", ".join(entry.get("tags", ()))}
        cells |= {"starred": "true"} if "starred" in entry else {}
        writer.writerow({name: safe_cell(str(cell)) for name, cell in cells.items()})
    return stream.getvalue()


def _entries(kept: Mapping[int, Annotation]) -> list[dict[str, Any]]:
    """Return the annotated dimensions as JSON objects, with the times of changes at the end."""
    entries = []
    for dimension, annotation in sorted(kept.items()):
        given = {name: annotation[name] for name in FIELDS if name in annotation}
        given = {name: field for name, field in given.items() if field.value}
        if given:
            values = {name: field_json(name, field.value) for name, field in given.items()}
            times = {f"{name}_changed": field.changed for name, field in given.items()}
            entries.append({"dimension": dimension, **values, **times})
    return entries


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _utc(value: str, info: ValidationInfo) -> str:
    try:
        when = datetime.fromisoformat(value)
        return format_time(when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        if not value:
            return ""
        raise ValueError(
            f"{info.field_name} must be a time such as 2026-01-31T12:00:00Z; "
            f"got {short_repr(value)}"
        ) from None


_Value = Annotated[str, PlainValidator(lambda value, info: read_field(str(info.field_name), value))]
_Text = Annotated[str, Storable]
_Time = Annotated[_Text, AfterValidator(_utc)]


@dataclass(frozen=True, config=_STRICT)
class _Entry:
    """One dimension of a file."""

    dimension: Dimension
    name: _Value = ""
    note: _Value = ""
    tags: _Value = ""
    starred: _Value = ""
    name_changed: _Time = ""
    note_changed: _Time = ""
    tags_changed: _Time = ""
    starred_changed: _Time = ""


@dataclass(frozen=True, config=_STRICT)
class _Search:
    """One saved search of a JSON file."""

    name: _Text = ""
    link: _Text = ""
    saved: _Time = ""


@dataclass(frozen=True, config=_STRICT)
class _JsonFile:
    """A JSON file; its dimensions are validated one by one, as those of a CSV file."""

    sieve_annotations: Literal[1]
    collection: _Text = ""
    checkpoint: _Text = ""
    dimensions: tuple[Any, ...] = ()
    searches: tuple[_Search, ...] = ()


def read_annotation_file(data: bytes, kind: str, m: int) -> AnnotationFile:
    """Parse and validate an untrusted annotations file in UTF-8, of kind json or csv.

    `m` is the number of dimensions. Raises a ValueError that names the line or entry.
    """
    if kind not in KINDS:
        raise ValueError(f"an annotations file ends in .json or .csv; got {short_repr(kind)}")
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text; save it as UTF-8") from None
    if kind == "csv":
        return AnnotationFile(_read_entries(_csv_rows(text), m))
    file = validate(_JsonFile, parse_json(text), "an annotations file")
    entries = ((f"entry {number}", entry) for number, entry in enumerate(file.dimensions, 1))
    return AnnotationFile(
        _read_entries(entries, m),
        tuple((search.name, search.link, search.saved) for search in file.searches),
        file.collection,
        file.checkpoint,
    )


def _csv_rows(text: str) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if "dimension" not in (columns := reader.fieldnames or ()):
            got = short_repr(",".join(columns))
            raise ValueError(f"the first line must have a column named dimension; got {got}")
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num}: more cells than columns")
            yield f"line {reader.line_num}", {n: read_cell(v or "") for n, v in row.items()}
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: this is not CSV ({error})") from None


def _read_entries(entries: Iterable[tuple[str, Any]], m: int) -> tuple[FieldChange, ...]:
    values: dict[int, list[FieldChange]] = {}
    for place, given in entries:
        try:
            entry = validate(_Entry, given, "an entry")
            j = entry.dimension
            if j >= m:
                raise ValueError(f"there is no dimension {j}; there are 0 to {m - 1}")
            if j in values:
                raise ValueError(f"dimension {j} occurs twice")
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        cells = vars(entry)
        values[j] = [
            FieldChange(j, field, cells[field], changed=cells[f"{field}_changed"])
            for field in FIELDS
            if cells[field]
        ]
    return tuple(chain.from_iterable(values.values()))


class Origin(NamedTuple):
    """Names and hashes of the collection and the checkpoint that annotations belong to."""

    collection: str
    checkpoint: str
    collection_sha256: str
    checkpoint_sha256: str

    @classmethod
    def of(cls, collection: Collection, checkpoint: Checkpoint) -> Origin:
        """Return the origin for an open collection and checkpoint."""
        name = Path(checkpoint.path).name
        return cls(collection.name, name, collection.sha256, checkpoint.sha256)


def export_text(
    annotations: Annotations, origin: Origin, kind: str, *, private: bool = True
) -> str:
    """Serialise all annotations to the text of a json or csv file.

    Notes and saved searches are private, and included only if `private` is true.
    """
    kept = annotations.all() if private else without_notes(annotations.all())
    if kind == "csv":
        return write_csv(kept)
    hashes = {"collection": origin.collection_sha256, "checkpoint": origin.checkpoint_sha256}
    return write_json(kept, annotations.searches.all() if private else [], hashes)


def without_notes(kept: Mapping[int, Annotation]) -> dict[int, Annotation]:
    """Return the annotations without notes, and without dimensions that have only a note."""
    rest = {j: {name: a[name] for name in a if name != "note"} for j, a in kept.items()}
    return {j: annotation for j, annotation in rest.items() if annotation}


class ImportPlan(NamedTuple):
    """The effect that importing a file would have."""

    changes: tuple[FieldChange, ...]
    kept: tuple[FieldChange, ...]
    """Differing values that are not imported, because the stored ones are as new or newer."""
    same: int
    """Number of fields with equal values."""
    searches: tuple[tuple[str, str, str], ...]
    """Name, link and time of each saved search that is not stored yet."""
    notes: tuple[str, ...]
    """Messages for the user, one line each."""

    def summary(self) -> str:
        """Summarise the plan in one line."""
        fields = Counter(change.field for change in self.changes)
        words = {
            "name": ("name", "names"),
            "note": ("note", "notes"),
            "tags": ("set of tags", "sets of tags"),
            "starred": ("star", "stars"),
        }
        parts = [_count(fields[field], *word) for field, word in words.items() if fields[field]]
        if self.searches:
            parts.append(_count(len(self.searches), "saved search", "saved searches"))
        imported = ", ".join(parts) or "nothing"
        kept = f"; {_count(len(self.kept), 'newer value')} kept" if self.kept else ""
        return f"{imported} to import, {self.same} unchanged{kept}"

    def lines(self) -> list[str]:
        """Describe each change in one line, with shortened values."""
        changes = [(change, "→") for change in self.changes]
        changes += [(change, "kept instead of") for change in self.kept]
        return [
            f"{change.dimension} {change.field}: {_short(change.before.value)} {arrow} "
            f"{_short(change.value)}"
            for change, arrow in sorted(changes)
        ]

    def as_json(self) -> dict[str, Any]:
        """Serialise the plan to JSON-compatible types."""
        return {
            "summary": self.summary(),
            "lines": self.lines(),
            "changes": len(self.changes) + len(self.searches),
            "kept": len(self.kept),
            "notes": list(self.notes),
        }


def plan_import(
    given: AnnotationFile, annotations: Annotations, origin: Origin, *, replace: bool = False
) -> ImportPlan:
    """Return what importing a file would change.

    Empty fields of the file change nothing. If both values differ, the newer one is used, or that
    of the file if `replace` is true; a value without a time counts as older. Raises a ValueError if
    the file belongs to another checkpoint, whose dimensions are different ones.
    """
    if given.checkpoint and given.checkpoint != origin.checkpoint_sha256:
        raise ValueError(
            f"the file belongs to checkpoint {given.checkpoint[:12]!r}, but {origin.checkpoint} is "
            f"{origin.checkpoint_sha256[:12]}, whose dimensions are different ones; choose another "
            "checkpoint"
        )
    stored, now = annotations.all(), format_time()
    changes, kept, same = [], [], 0
    for new in given.values:
        before = stored.get(new.dimension, {}).get(new.field, Field())
        if new.value == before.value:
            same += 1
            continue
        # A time in the future would override all edits until then.
        change = new._replace(before=before, changed=min(new.changed, now))
        # A field that was never written is older than any other.
        is_newer = replace or not before.version or change.changed > before.changed
        (changes if is_newer else kept).append(change)
    searches, notes = _new_searches(given, annotations, origin)
    return ImportPlan(tuple(changes), tuple(kept), same, searches, notes)


def apply_plan(plan: ImportPlan, annotations: Annotations) -> tuple[str, ...]:
    """Import the changes of a plan; return a message for what could not be imported."""
    written = annotations.apply(plan.changes) if plan.changes else 0
    for name, link, saved in plan.searches:
        annotations.searches.save(name, link, saved)
    skipped = len(plan.changes) - written
    reason = "not imported because of edits since the preview; import the file again to review them"
    return (f"{_count(skipped, 'value')} {reason}",) if skipped else ()


def _new_searches(
    given: AnnotationFile, annotations: Annotations, origin: Origin
) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    if not given.searches:
        return (), ()
    if given.collection and given.collection != origin.collection_sha256:
        return (), ("Saved searches are skipped: they belong to another collection.",)
    stored = {search.link for search in annotations.searches.all()}
    new, notes = [], []
    for name, link, saved in given.searches:
        try:
            clean = search_link(link, origin.collection, origin.checkpoint, annotations.m)
            line = search_name(name)
        except ValueError as error:
            notes.append(f"The saved search {_short(name)} is skipped: {error}.")
            continue
        if clean not in stored:
            stored.add(clean)
            new.append((line, clean, saved))
    return tuple(new), tuple(notes)


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _short(value: str) -> str:
    line = " ".join(value.split())
    return f"“{line if len(line) <= 60 else line[:59] + '…'}”" if line else "nothing"
