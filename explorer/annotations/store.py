"""What people keep about the dimensions of one checkpoint on one collection.

Two people who write at once lose nothing: a write names the version that it changes, and where
another has changed it meanwhile, nothing is written and both values are told.

Searches that people save: a name, and the readable link that asks again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import TYPE_CHECKING, NamedTuple

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.fields import (
    FIELDS,
    Annotation,
    Field,
    check_length,
    clean_line,
    read_field,
    told_time,
)
from sieve.explorer.view_state import TAB_TEXTS, TABS, read_link, write_link
from sieve.model.files import sieve_home

if TYPE_CHECKING:
    from sieve.model.engine import Engine

MAX_SEARCHES = 1000
MAX_SEARCH_NAME = 120
_KEPT_GONE = 100
"""Deleted searches that can still be brought back."""


class SavedSearch(NamedTuple):
    """One saved search."""

    id: int
    name: str
    link: str
    """The query string of its address, `?q=…`."""
    saved: str
    """When, in UTC as ISO 8601."""
    version: int


class Renamed(NamedTuple):
    """What became of a new name."""

    search: SavedSearch
    """As it is kept now."""
    saved: bool
    """False where another had renamed it meanwhile."""


class SavedSearches:
    """The saved searches of one checkpoint on one collection, the newest first.

    Parameters
    ----------
    database : Database
    now : callable
        Tells the time as it is kept.
    """

    def __init__(self, database: Database, now: Callable[[], str]) -> None:
        self._database = database
        self._now = now

    def all(self) -> tuple[SavedSearch, ...]:
        """Read all; ValueError in one line."""
        with self._database.reading() as connection:
            if connection is None:
                return ()
            rows = connection.execute(
                f"{_SELECT_SEARCHES} WHERE gone = 0 ORDER BY id DESC"
            ).fetchall()
        return tuple(SavedSearch(*row) for row in rows)

    def save(self, name: str, link: str, when: str = "") -> SavedSearch:
        """Save a search; one with the same link that is there already stays as it is.

        Parameters
        ----------
        name : str
        link : str
            Checked by the caller.
        when : str
            When it was saved first, if that was elsewhere.

        Raises
        ------
        ValueError
            In one line: without a name, or with too many searches.
        """
        name = search_name(name)
        with self._database.writing() as connection:
            same = connection.execute(
                f"{_SELECT_SEARCHES} WHERE gone = 0 AND link = ?", (link,)
            ).fetchone()
            if same:
                return SavedSearch(*same)
            (n,) = connection.execute("SELECT COUNT(*) FROM searches WHERE gone = 0").fetchone()
            if n >= MAX_SEARCHES:
                raise ValueError(f"{n:,} searches are saved, which is the most; delete some first")
            saved = when or self._now()
            number = connection.execute(
                "INSERT INTO searches (name, link, saved, version) VALUES (?, ?, ?, 1)",
                (name, link, saved),
            ).lastrowid
        assert number is not None
        return SavedSearch(number, name, link, saved, 1)

    def rename(self, number: int, name: str, version: int) -> Renamed:
        """Rename a search, if nobody else has meanwhile.

        Raises
        ------
        ValueError
            In one line: without a name, or where it was deleted.
        """
        name = search_name(name)
        with self._database.writing() as connection:
            row = connection.execute(
                f"{_SELECT_SEARCHES} WHERE gone = 0 AND id = ?", (number,)
            ).fetchone()
            if row is None:
                raise ValueError("this search was deleted meanwhile")
            kept = SavedSearch(*row)
            if kept.name == name or kept.version != version:
                return Renamed(kept, kept.name == name)
            now = kept._replace(name=name, version=version + 1)
            connection.execute(
                "UPDATE searches SET name = ?, version = ? WHERE id = ?",
                (now.name, now.version, number),
            )
        return Renamed(now, True)

    def delete(self, number: int, *, undo: bool = False) -> None:
        """Delete a search, or bring it back; doing either twice is doing it once."""
        with self._database.writing() as connection:
            changed = connection.execute(
                f"UPDATE searches SET gone = {'0' if undo else _NEXT_GONE} WHERE id = ?", (number,)
            ).rowcount
            if undo and not changed:
                raise ValueError("this search was deleted too long ago to bring it back")
            connection.execute(
                "DELETE FROM searches WHERE gone > 0 AND id NOT IN "
                "(SELECT id FROM searches ORDER BY gone DESC LIMIT ?)",
                (_KEPT_GONE,),
            )


def search_link(link: str, collection: str, checkpoint: str, m: int) -> str:
    """Make the link of a search out of one that anybody may have written.

    Parameters
    ----------
    link : str
        The query string of an address.
    collection, checkpoint : str
        Names of what is open.
    m : int
        Number of dimensions.

    Raises
    ------
    ValueError
        In one line, where it leads to no search, or a part of it cannot be used.
    """
    place, faults = read_link(link, collection, checkpoint, m)
    if faults:
        raise ValueError(f"this link cannot be saved: {faults[0].rstrip('.')}")
    if not (place.q.strip() or place.item):
        raise ValueError("there is no search to save; search for something first")
    asked = replace(place, tab=TABS[0], dimension=None, **dict.fromkeys(TAB_TEXTS, ""))
    return write_link(asked, collection, checkpoint)


_NEXT_GONE = "(SELECT MAX(gone) + 1 FROM searches)"
_SELECT_SEARCHES = "SELECT id, name, link, saved, version FROM searches"


def search_name(name: str) -> str:
    """Make one clean line of a search's name; ValueError where it is too long, or nothing."""
    line = check_length("a name", clean_line(name), MAX_SEARCH_NAME)
    if not line:
        raise ValueError("a saved search needs a name")
    return line


log = logging.getLogger(__name__)

_SETTLED_NS = 1_000_000_000
"""A file that changed this lately may change again without its time telling so."""


class Written(NamedTuple):
    """What became of a write."""

    field: Field
    """What is kept now."""
    saved: bool
    """False where another had changed it meanwhile: then `field` is what the other wrote."""


class FieldChange(NamedTuple):
    """A field to write, and what it is to take the place of."""

    dimension: int
    field: str
    value: str
    """As `read_field` gives it."""
    before: Field
    changed: str
    """When it was written first, in UTC as ISO 8601; empty for now."""


class Annotations:
    """Names, notes, tags and stars; safe to share between threads.

    Parameters
    ----------
    database : Database
    m : int
        Number of dimensions.
    clock : callable
        Tells the time in UTC.
    """

    def __init__(
        self, database: Database, m: int, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self.m = m
        self._clock = clock
        self.searches = SavedSearches(database, self.now)
        self._names: tuple[tuple[int, int, int], Mapping[int, str]] | None = None
        self._warned = False

    def fault(self) -> str:
        """Tell in one line why nothing can be kept here, or nothing."""
        return self._database.fault()

    def names(self) -> Mapping[int, str]:
        """Tell people's names by dimension; never raises: without them there are the checkpoint's.

        Read again only when the file has changed, so that every search may ask.
        """
        try:
            stat = self._database.path.stat()
        except OSError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        kept = self._names
        if kept and kept[0] == stamp:
            return kept[1]
        try:
            names = self._read_names()
        except ValueError as error:
            if not self._warned:
                log.warning("%s", error)
            self._warned = True
            return {}
        if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
            self._names = (stamp, names)
        return names

    def all(self) -> dict[int, Annotation]:
        """Read everything that was ever said, by dimension; ValueError in one line."""
        with self._database.reading() as connection:
            rows = [] if connection is None else connection.execute(f"{_SELECT}").fetchall()
        found: dict[int, dict[str, Field]] = {}
        for dimension, field, value, version, changed in sorted(rows):
            if field in FIELDS and 0 <= dimension < self.m:
                found.setdefault(dimension, {})[field] = Field(value, version, changed)
        return dict(found)

    def of(self, dimension: int) -> Annotation:
        """Read what was said of one dimension; ValueError in one line."""
        self.check(dimension)
        with self._database.reading() as connection:
            if connection is None:
                return {}
            rows = connection.execute(f"{_SELECT} WHERE dimension = ?", (dimension,)).fetchall()
        return {field: Field(*kept) for _, field, *kept in rows if field in FIELDS}

    def write(self, dimension: int, field: str, value: object, version: int) -> Written:
        """Change one field, if nobody else has meanwhile.

        Parameters
        ----------
        dimension : int
        field : str
            One of `FIELDS`.
        value : object
            As for `read_field`.
        version : int
            Of what the person saw; 0 where there was nothing.

        Raises
        ------
        ValueError
            In one line, if it cannot be read or nothing can be written here.
        """
        self.check(dimension)
        text = read_field(field, value)
        with self._database.writing() as connection:
            kept = _read(connection, dimension, field)
            if text == kept.value or version != kept.version:
                return Written(kept, saved=text == kept.value)
            return Written(_put(connection, dimension, field, text, kept, self.now()), saved=True)

    def apply(self, changes: Iterable[FieldChange]) -> int:
        """Make many changes at once, leaving out those that others have made meanwhile.

        Returns
        -------
        int
            How many were made.
        """
        made = 0
        with self._database.writing() as connection:
            for change in changes:
                kept = _read(connection, change.dimension, change.field)
                if kept == change.before:
                    when = change.changed or self.now()
                    _put(connection, change.dimension, change.field, change.value, kept, when)
                    made += 1
        return made

    def now(self) -> str:
        """Tell the time as it is kept."""
        return told_time(self._clock())

    def check(self, dimension: int) -> None:
        """Raise a ValueError if there is no such dimension."""
        if not 0 <= dimension < self.m:
            raise ValueError(f"there is no dimension {dimension}; there are 0 to {self.m - 1}")

    def _read_names(self) -> dict[int, str]:
        with self._database.reading() as connection:
            if connection is None:
                return {}
            asked = "SELECT dimension, value FROM fields WHERE field = 'name' AND value <> ''"
            rows = connection.execute(asked).fetchall()
        return {j: str(name) for j, name in rows if 0 <= j < self.m}


_SELECT = "SELECT dimension, field, value, version, changed FROM fields"


def _read(connection: Connection, dimension: int, field: str) -> Field:
    asked = "SELECT value, version, changed FROM fields WHERE dimension = ? AND field = ?"
    row = connection.execute(asked, (dimension, field)).fetchone()
    return Field(*row) if row else Field()


def _put(
    connection: Connection, dimension: int, field: str, value: str, before: Field, when: str
) -> Field:
    now = Field(value, before.version + 1, when)
    connection.execute(
        "INSERT OR REPLACE INTO fields VALUES (?, ?, ?, ?, ?)",
        (dimension, field, now.value, now.version, now.changed),
    )
    return now


def open_annotations(collection: str, checkpoint: str, m: int) -> Annotations:
    """Open what people keep of a checkpoint on a collection; nothing is made before it is written.

    Parameters
    ----------
    collection, checkpoint : str
        Their hashes.
    m : int
        Number of dimensions.
    """
    name = f"{collection[:16]}-{checkpoint[:24]}.sqlite"
    path = sieve_home() / "annotations" / name
    return Annotations(Database(path, collection, checkpoint), m)


def annotate(engine: Engine) -> Annotations:
    """Open what people keep of what an engine has open, and let their names show wherever it tells.

    Returns
    -------
    Annotations
    """
    opened = open_annotations(
        engine.collection.sha256, engine.checkpoint.sha256, engine.checkpoint.m
    )
    engine.renamed = opened.names
    return opened
