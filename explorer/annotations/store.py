"""Store of annotations and saved searches for one checkpoint on one collection.

Concurrent edits are detected: a write names the version that it changes. If that version is no
longer the current one, nothing is written and the current value is returned. A saved search is a
name with the link that repeats the search.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from sieve.data_prep.captions.caption_text import tidy
from sieve.explorer.annotations.database import Database
from sieve.explorer.json_validation import check_choice, check_text
from sieve.explorer.view_state import TAB_TEXTS, TABS, read_link, write_link
from sieve.model.files import sieve_home

if TYPE_CHECKING:
    from sieve.model.engine import SearchEngine

log = logging.getLogger(__name__)

MAX_NAME = 80
FIELDS = ("name", "note", "tags", "starred")
"""Each value is stored as text; an empty text is no value."""
_MAX_NOTE = 10_000
_MAX_TAG = 40
_MAX_TAGS = 20
_MAX_SEARCHES = 1000
_MAX_SEARCH_NAME = 120
_KEPT_GONE = 100
"""Number of deleted searches that can still be restored."""
_SETTLED_NS = 1_000_000_000
"""Time after which a change of a file is sure to change its modification time."""
# Bidirectional control characters would reverse the text around a name.
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_STARRED = {"": "", "0": "", "false": "", "no": "", "1": "1", "true": "1", "yes": "1"}


class Field(NamedTuple):
    """One stored field of one dimension."""

    value: str = ""
    version: int = 0
    """Incremented by every change; 0 if the field was never written."""
    changed: str = ""
    """Time of the last change, in UTC as ISO 8601."""


Annotation = Mapping[str, Field]
"""The fields of a dimension that were ever written, by name."""


def read_field(field: str, value: Any) -> str:
    """Validate a value of one of the `FIELDS` and return the text to store.

    `starred` may also be a bool, and `tags` a list of strings. Raises a ValueError if the field is
    unknown, or the value has the wrong type or is too long.
    """
    check_choice("field", field, FIELDS)
    if field == "starred" and isinstance(value, bool):
        value = str(value)
    if field == "tags" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    text = check_text(field, value, most=1 << 20)
    if field == "name":
        return check_text("a name", _clean_line(text), MAX_NAME)
    if field == "note":
        lines = re.split("\r\n|\r|\n", _BIDI_CONTROLS.sub("", text))
        note = "\n".join(map(_tidy_note_line, lines)).strip("\n")
        return check_text("a note", note, _MAX_NOTE)
    if field == "tags":
        return _read_tags(text)
    return _STARRED[check_choice("starred", text.strip().lower(), tuple(_STARRED))]


def field_json(field: str, value: str) -> Any:
    """Return a stored value as JSON: the tags as a list, the star as a bool."""
    if field == "tags":
        return value.split(", ") if value else []
    return bool(value) if field == "starred" else value


def format_time(when: datetime | None = None) -> str:
    """Return a UTC time, by default now, as ISO 8601 text in milliseconds; it sorts by time."""
    when = when or datetime.now(UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clean_line(text: str) -> str:
    """Return a text as one line without control characters; empty if no character is visible."""
    line = tidy(_BIDI_CONTROLS.sub("", text))
    return line if any(sign.isprintable() and not sign.isspace() for sign in line) else ""


def _tidy_note_line(line: str) -> str:
    """Tidy a line of a note, but keep its indentation, which lists use."""
    bare = line.replace("\t", "    ")
    tidied = tidy(bare)
    return " " * min(len(bare) - len(bare.lstrip(" ")), 16) + tidied if tidied else ""


def _read_tags(text: str) -> str:
    parts = (check_text("a tag", _clean_line(part), _MAX_TAG) for part in re.split("[,;\n]", text))
    tags: dict[str, str] = {}
    for tag in filter(None, parts):
        tags.setdefault(tag.casefold(), tag)
    if len(tags) > _MAX_TAGS:
        raise ValueError(f"a dimension has at most {_MAX_TAGS} tags; got {len(tags):,}")
    return ", ".join(tags[key] for key in sorted(tags))


class SavedSearch(NamedTuple):
    """One saved search."""

    id: int
    name: str
    link: str
    """Query string of the view, `?q=…`."""
    saved: str
    """Time in UTC as ISO 8601."""
    version: int


class SavedSearches:
    """Saved searches, newest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[SavedSearch, ...]:
        """Return all saved searches."""
        with self._database.reading() as connection:
            return tuple(_searches(connection, "gone = 0 ORDER BY id DESC"))

    def save(self, name: str, link: str, when: str = "") -> SavedSearch:
        """Save a search by a link from `search_link`, unless that link is already saved.

        `when` is the time when it was first saved; empty for now.
        """
        name = search_name(name)
        with self._database.writing() as connection:
            if same := _searches(connection, "gone = 0 AND link = ?", link):
                return same[0]
            (n,) = connection.execute("SELECT COUNT(*) FROM searches WHERE gone = 0").fetchone()
            if n >= _MAX_SEARCHES:
                raise ValueError(f"the limit of {n:,} saved searches is reached; delete some first")
            saved = when or format_time()
            number = connection.execute(
                "INSERT INTO searches (name, link, saved, version) VALUES (?, ?, ?, 1)",
                (name, link, saved),
            ).lastrowid
        assert number is not None
        return SavedSearch(number, name, link, saved, 1)

    def rename(self, number: int, name: str, version: int) -> tuple[SavedSearch, bool]:
        """Rename a search, unless its version is no longer the current one.

        Returns the search as it is stored now, and whether it has the new name.
        """
        name = search_name(name)
        with self._database.writing() as connection:
            found = _searches(connection, "gone = 0 AND id = ?", number)
            if not found:
                raise ValueError("this search has been deleted")
            current = found[0]
            if current.name == name or current.version != version:
                return current, current.name == name
            connection.execute(
                "UPDATE searches SET name = ?, version = version + 1 WHERE id = ?", (name, number)
            )
            return current._replace(name=name, version=version + 1), True

    def delete(self, number: int, *, undo: bool = False) -> None:
        """Delete or restore a search; both operations are idempotent."""
        gone = "0" if undo else "(SELECT MAX(gone) + 1 FROM searches)"
        with self._database.writing() as connection:
            update = f"UPDATE searches SET gone = {gone} WHERE id = ?"
            if not connection.execute(update, (number,)).rowcount and undo:
                raise ValueError("this search was deleted too long ago to be restored")
            connection.execute(
                "DELETE FROM searches WHERE gone > 0 AND id NOT IN "
                "(SELECT id FROM searches ORDER BY gone DESC LIMIT ?)",
                (_KEPT_GONE,),
            )


def _searches(connection: Connection, where: str, *values: object) -> list[SavedSearch]:
    query = f"SELECT id, name, link, saved, version FROM searches WHERE {where}"
    return [SavedSearch(*row) for row in connection.execute(query, values)]


def search_link(link: str, collection: str, checkpoint: str, m: int) -> str:
    """Validate an untrusted link, and return the link of its search alone.

    `collection` and `checkpoint` are the names of what is open, `m` the number of dimensions.
    Raises a ValueError if the link contains no search, or a part of it is invalid.
    """
    state, notes = read_link(link, collection, checkpoint, m)
    if notes:
        raise ValueError(f"this link cannot be saved: {notes[0].rstrip('.')}")
    if not (state.q.strip() or state.item):
        raise ValueError("there is no search to save; search for something first")
    search = replace(state, tab=TABS[0], dimension=None, **dict.fromkeys(TAB_TEXTS, ""))
    return write_link(search, collection, checkpoint)


def search_name(name: str) -> str:
    """Return the name of a search as one clean line; ValueError if it is empty or too long."""
    line = check_text("a name", _clean_line(name), _MAX_SEARCH_NAME)
    if not line:
        raise ValueError("a saved search needs a name")
    return line


class WriteResult(NamedTuple):
    """Result of writing a field."""

    field: Field
    """The field as it is stored now."""
    saved: bool
    """False if another user changed the field first; `field` is then that user's value."""


class FieldChange(NamedTuple):
    """A new value of a field, and the one that it replaces."""

    dimension: int
    field: str
    value: str
    """As returned by `read_field`."""
    before: Field = Field()
    changed: str = ""
    """Time of the change, in UTC as ISO 8601; empty for now."""


class Annotations:
    """Names, notes, tags and stars of `m` dimensions. Thread-safe.

    Everything that writes raises a ValueError of one line if it cannot.
    """

    def __init__(self, database: Database, m: int) -> None:
        self._database = database
        self.m = m
        self.searches = SavedSearches(database)
        self._names: tuple[tuple[int, int, int], Mapping[int, str]] | None = None
        self._warned = False

    def fault(self) -> str:
        """Return in one line why nothing can be saved, or an empty string."""
        return self._database.fault()

    def names(self) -> Mapping[int, str]:
        """Return the users' names by dimension; empty if the file cannot be read.

        The file is read only if it has changed, so this can be called for every search.
        """
        try:
            stat = self._database.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._names and self._names[0] == stamp:
                return self._names[1]
            with self._database.reading() as connection:
                named = _annotations(connection, "field = 'name' AND value <> ''")
        except OSError:
            return {}
        except ValueError as error:
            if not self._warned:
                log.warning("%s", error)
            self._warned = True
            return {}
        names = {j: one["name"].value for j, one in named.items() if 0 <= j < self.m}
        if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
            self._names = (stamp, names)
        return names

    def tags(self) -> dict[int, str]:
        """Return the tags of each dimension that has any, separated by a comma and a space."""
        return {j: one["tags"].value for j, one in self.all().items() if "tags" in one}

    def all(self) -> dict[int, Annotation]:
        """Return all annotations by dimension."""
        with self._database.reading() as connection:
            return _annotations(connection, "dimension BETWEEN 0 AND ?", self.m - 1)

    def of(self, dimension: int) -> Annotation:
        """Return the annotation of one dimension."""
        self.check(dimension)
        with self._database.reading() as connection:
            return _annotations(connection, "dimension = ?", dimension).get(dimension, {})

    def write(self, dimension: int, field: str, value: object, version: int) -> WriteResult:
        """Change one field, unless its version is no longer the current one.

        `version` is the one that the user has seen; 0 if there was no value.
        """
        self.check(dimension)
        text = read_field(field, value)
        with self._database.writing() as connection:
            current = _read(connection, dimension, field)
            if text == current.value or version != current.version:
                return WriteResult(current, saved=text == current.value)
            written = _put(connection, dimension, field, text, current, format_time())
            return WriteResult(written, saved=True)

    def apply(self, changes: Iterable[FieldChange]) -> int:
        """Write changes to fields that are still as in `before`, and return the number."""
        written = 0
        with self._database.writing() as connection:
            for change in changes:
                current = _read(connection, change.dimension, change.field)
                if current == change.before:
                    when = change.changed or format_time()
                    _put(connection, change.dimension, change.field, change.value, current, when)
                    written += 1
        return written

    def check(self, dimension: int) -> None:
        """Raise a ValueError if there is no such dimension."""
        if not 0 <= dimension < self.m:
            raise ValueError(f"there is no dimension {dimension}; there are 0 to {self.m - 1}")


def _annotations(connection: Connection, where: str, *values: object) -> dict[int, Annotation]:
    query = f"SELECT * FROM fields WHERE {where} ORDER BY dimension, field"
    annotations: dict[int, dict[str, Field]] = {}
    for dimension, field, *rest in connection.execute(query, values):
        if field in FIELDS:
            annotations.setdefault(dimension, {})[field] = Field(*rest)
    return dict(annotations)


def _read(connection: Connection, dimension: int, field: str) -> Field:
    found = _annotations(connection, "dimension = ? AND field = ?", dimension, field)
    return found.get(dimension, {}).get(field, Field())


def _put(
    connection: Connection, dimension: int, field: str, value: str, before: Field, when: str
) -> Field:
    now = Field(value, before.version + 1, when)
    row = (dimension, field, *now)
    connection.execute("INSERT OR REPLACE INTO fields VALUES (?, ?, ?, ?, ?)", row)
    return now


def open_annotations(collection: str, checkpoint: str, m: int) -> Annotations:
    """Open the annotations of a checkpoint on a collection, both given by their hashes.

    The file is created at the first write. `m` is the number of dimensions.
    """
    name = f"{collection[:16]}-{checkpoint[:24]}.sqlite"
    database = Database(sieve_home() / "annotations" / name, collection, checkpoint)
    return Annotations(database, m)


def attach_annotations(engine: SearchEngine) -> Annotations:
    """Open the annotations of an engine, and let it use the users' names of dimensions."""
    checkpoint = engine.checkpoint
    opened = open_annotations(engine.collection.sha256, checkpoint.sha256, checkpoint.m)
    engine.renamed, engine.tags = opened.names, opened.tags
    return opened
