"""Files of notes, given out and taken in: changes are told first, and what is newer here stays.

What people keep, as files for version control and for sharing: JSON or CSV.

A dimension a line, sorted, and the same text every time. A cell of CSV that a spreadsheet would
take for a formula gets a leading apostrophe, which reading takes off again.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sieve.data_prep.csv_safety import read_cell, safe_cell
from sieve.explorer.annotations.fields import FIELDS, Annotation, Field, read_field, told_time
from sieve.explorer.annotations.store import (
    Annotations,
    FieldChange,
    SavedSearch,
    search_link,
    search_name,
)
from sieve.explorer.json_validation import read_object, read_whole, refuse_unknown, short_repr

if TYPE_CHECKING:
    from sieve.model.checkpoint import Checkpoint
    from sieve.model.collection import Collection

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
        raise ValueError(f"a file of notes ends in .json or .csv; got {short_repr(kind)}")
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
            f"got {short_repr(head.get('sieve_annotations'))}"
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
                             f"{short_repr(','.join(columns))}")  # fmt: skip
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
        raise ValueError(f"{name} must be a list; got {short_repr(value)}")
    return value


def _text(given: Mapping[str, Any], name: str, what: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text; got {short_repr(value)}")
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
            f"{name} must be a time, as 2026-01-31T12:00:00Z; got {short_repr(value)}"
        ) from None


class Origin(NamedTuple):
    """What the notes here are of."""

    collection: str
    """Name of the collection."""
    checkpoint: str
    collection_sha256: str
    checkpoint_sha256: str

    @classmethod
    def of(cls, collection: Collection, checkpoint: Checkpoint) -> Origin:
        """Tell what is open, by name and by hash."""
        name = Path(checkpoint.path).name
        return cls(collection.name, name, collection.sha256, checkpoint.sha256)


def export_text(
    annotations: Annotations, origin: Origin, kind: str, *, private: bool = True
) -> str:
    """Write what is kept, as the text of a JSON or CSV file.

    Parameters
    ----------
    annotations : Annotations
    origin : Origin
    kind : str
        json or csv.
    private : bool
        Also what was written for oneself: notes and saved searches.
    """
    kept = annotations.all() if private else without_notes(annotations.all())
    if kind == "csv":
        return write_csv(kept)
    hashes = {"collection": origin.collection_sha256, "checkpoint": origin.checkpoint_sha256}
    return write_json(kept, annotations.searches.all() if private else [], hashes)


def without_notes(kept: Mapping[int, Annotation]) -> dict[int, Annotation]:
    """Leave out notes, and dimensions of which nothing else was said."""
    rest = {j: {name: of[name] for name in of if name != "note"} for j, of in kept.items()}
    return {j: of for j, of in rest.items() if of}


class Plan(NamedTuple):
    """What taking in a file would do."""

    changes: tuple[FieldChange, ...]
    kept: tuple[FieldChange, ...]
    """What the file says otherwise, but what stays as it is here, being as new or newer."""
    same: int
    """How many fields are so already."""
    searches: tuple[tuple[str, str, str], ...]
    """Name, link and time of each saved search that is not here yet."""
    notes: tuple[str, ...]
    """What a person should know, a line each."""

    def summary(self) -> str:
        """Tell it in one line."""
        fields = Counter(change.field for change in self.changes)
        words = {"name": "name", "note": "note", "tags": "set of tags", "starred": "star"}
        parts = [_count(fields[field], word) for field, word in words.items() if fields[field]]
        if self.searches:
            parts.append(_count(len(self.searches), "saved search", "saved searches"))
        told = ", ".join(parts) or "nothing"
        stays = f"; {_count(len(self.kept), 'newer value')} here stay" if self.kept else ""
        return f"{told} to take in, {self.same} the same{stays}"

    def lines(self) -> list[str]:
        """Tell each change in a line, at most a hundred characters of each value."""
        told = [(change, "→") for change in self.changes] + [
            (one, "stays, not") for one in self.kept
        ]
        return [
            f"{change.dimension} {change.field}: {_short(change.before.value)} {arrow} "
            f"{_short(change.value)}"
            for change, arrow in sorted(told)
        ]

    def as_json(self) -> dict[str, Any]:
        """Write it for a page or a script."""
        return {
            "summary": self.summary(),
            "lines": self.lines(),
            "changes": len(self.changes) + len(self.searches),
            "kept": len(self.kept),
            "notes": list(self.notes),
        }


def plan_import(
    given: Exchanged, annotations: Annotations, origin: Origin, *, replace: bool = False
) -> Plan:
    """Tell what taking in a file would change.

    What the file leaves empty says nothing. Where both say something, the newer is taken; a file
    that does not tell when counts as older.

    Parameters
    ----------
    given : Exchanged
    annotations : Annotations
    origin : Origin
    replace : bool
        Take what the file says also where what is here is newer.

    Raises
    ------
    ValueError
        In one line, if the file is of another checkpoint: its dimensions mean nothing here.
    """
    if given.checkpoint and given.checkpoint != origin.checkpoint_sha256:
        raise ValueError(
            f"the file is of checkpoint {given.checkpoint[:12]!r}, but {origin.checkpoint} is "
            f"{origin.checkpoint_sha256[:12]}: its dimensions mean nothing here; choose another "
            "checkpoint"
        )
    kept, now = annotations.all(), annotations.now()
    changes, stays, same = [], [], 0
    for said in given.said:
        before = kept.get(said.dimension, {}).get(said.field, Field())
        if said.value == before.value:
            same += 1
            continue
        # A time to come would win over all that people write until then.
        when = min(said.changed, now)
        change = FieldChange(said.dimension, said.field, said.value, before, when)
        # What was never said is older than anything.
        taken = replace or not before.version or when > before.changed
        (changes if taken else stays).append(change)
    searches, notes = _new_searches(given, annotations, origin)
    return Plan(tuple(changes), tuple(stays), same, searches, notes)


def carry_out(plan: Plan, annotations: Annotations) -> tuple[str, ...]:
    """Take in what a plan says; tells what could not be, a line each."""
    made = annotations.apply(plan.changes) if plan.changes else 0
    for name, link, saved in plan.searches:
        annotations.searches.save(name, link, saved)
    left = len(plan.changes) - made
    changed = "changed here meanwhile and left as they are; import again to see them"
    return (f"{_count(left, 'value')} {changed}",) if left else ()


def _new_searches(
    given: Exchanged, annotations: Annotations, origin: Origin
) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    if not given.searches:
        return (), ()
    if given.collection and given.collection != origin.collection_sha256:
        return (), ("Saved searches are left out: they are of another collection.",)
    there = {search.link for search in annotations.searches.all()}
    found, notes = [], []
    for name, link, saved in given.searches:
        try:
            clean = search_link(link, origin.collection, origin.checkpoint, annotations.m)
            line = search_name(name)
        except ValueError as error:
            notes.append(f"A saved search, {_short(name)}, is left out: {error}.")
            continue
        if clean not in there:
            there.add(clean)
            found.append((line, clean, saved))
    return tuple(found), tuple(notes)


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _short(value: str) -> str:
    line = " ".join(value.split())
    return f"“{line if len(line) <= 60 else line[:59] + '…'}”" if line else "nothing"
