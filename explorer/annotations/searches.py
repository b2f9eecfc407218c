"""Searches that people save: a name, and the readable link that asks again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sieve.explorer.annotations.database import Database
from sieve.explorer.annotations.fields import check_length, clean_line
from sieve.explorer.links import TAB_TEXTS, TABS, read_link, write_link

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
            rows = connection.execute(f"{_SELECT} WHERE gone = 0 ORDER BY id DESC").fetchall()
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
            same = connection.execute(f"{_SELECT} WHERE gone = 0 AND link = ?", (link,)).fetchone()
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
            row = connection.execute(f"{_SELECT} WHERE gone = 0 AND id = ?", (number,)).fetchone()
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
_SELECT = "SELECT id, name, link, saved, version FROM searches"


def search_name(name: str) -> str:
    """Make one clean line of a search's name; ValueError where it is too long, or nothing."""
    line = check_length("a name", clean_line(name), MAX_SEARCH_NAME)
    if not line:
        raise ValueError("a saved search needs a name")
    return line
