"""One SQLite file of what people keep, opened anew for every read and write.

A connection lives for one call, so nothing is lost with the process, a file that was moved away is
not written to, and any number of pages and programs share one. SQLite's own rollback journal, not
its write-ahead log: that leaves files beside the database, asks for shared memory, and cannot be
read where nothing can be written; measured with one connection a call, it also took twice as long.

A writer that is killed during its commit leaves this journal beside the database, and the next
connection that may write restores the last committed state from it. Readers therefore connect for
writing where the file system allows it. The two files belong together: a database without its
journal may be half written, and a journal must never meet another database.

SQLite keeps no checksums, so a byte that a disk has changed would be read as another word: each
write keeps one of all rows, and each read compares it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sieve.model.files import claim_name, temporary_beside

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
APPLICATION = 0x53696576
"""SQLite's `application_id` of these files: "Siev"."""
WAIT_SECONDS = 10.0
"""For another writer, whose transaction takes milliseconds."""
_SCHEMA = """
CREATE TABLE origin (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
CREATE TABLE fields (
    dimension INTEGER NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
    version INTEGER NOT NULL, changed TEXT NOT NULL, PRIMARY KEY (dimension, field)
);
CREATE TABLE searches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, link TEXT NOT NULL,
    saved TEXT NOT NULL, version INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0
);
"""
_CONTENT = "content"
"""Beside the origin's hashes: the checksum of all rows."""
_ROWS = (
    "SELECT * FROM fields NOT INDEXED ORDER BY dimension, field",
    "SELECT * FROM searches NOT INDEXED ORDER BY id",
    "SELECT * FROM sqlite_sequence",
)
_WHY = {
    "SQLITE_READONLY": "cannot be written",
    "SQLITE_PERM": "cannot be written",
    "SQLITE_CANTOPEN": "cannot be opened",
    "SQLITE_AUTH": "cannot be opened",
    "SQLITE_NOTADB": "is no database",
    "SQLITE_CORRUPT": "is damaged",
    "SQLITE_FULL": "is on a full disk",
    "SQLITE_IOERR": "cannot be read or written",
    "SQLITE_BUSY": f"has been in use for {WAIT_SECONDS:g} seconds",
}
_REMEDY = {
    "SQLITE_BUSY": "close the program that uses it, or try again later",
    "SQLITE_FULL": "free some space and try again",
}
_COMPANIONS = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite keeps beside a database while it is written."""


class Database:
    """The file, its schema, and its faults in one line.

    Parameters
    ----------
    path : Path
        Made at the first write.
    collection, checkpoint : str
        Their hashes: what is kept is of one checkpoint on one collection.
    """

    def __init__(self, path: Path, collection: str, checkpoint: str) -> None:
        self.path = path
        self._origin = {"collection": collection, "checkpoint": checkpoint}

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Read in one transaction; None where nothing was ever written.

        Raises
        ------
        ValueError
            In one line, if the file cannot be read or is none of ours.
        """
        with self._told():
            self._check_companions()
            if not self.path.exists():
                yield None
                return
            # Not "ro", which could not restore what an interrupted writer has left half written;
            # where the file is write-protected, SQLite falls back to reading by itself.
            with closing(self._connect("rw")) as connection:
                connection.execute("BEGIN")
                self._check(connection)
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction, alone; when this returns, it is on the disk.

        Raises
        ------
        ValueError
            In one line, if nothing can be written here; then nothing was.
        """
        with self._told():
            self._check_companions()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._make()
            with closing(self._connect("rw")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                self._check(connection)
                yield connection
                told = (_CONTENT, _checksum(connection))
                connection.execute("INSERT OR REPLACE INTO origin VALUES (?, ?)", told)
                connection.execute("COMMIT")

    def fault(self) -> str:
        """Tell why nothing can be written here, or nothing; tries, and leaves all as it was."""
        try:
            with self._told():
                self._check_companions()
                if self.path.exists():
                    with closing(self._connect("rw")) as connection:
                        connection.execute("BEGIN IMMEDIATE")
                        self._check(connection)
                        # SQLite begins also where it can only read, and tells at the first change.
                        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                        connection.execute("ROLLBACK")
                    return ""
                there = next(folder for folder in self.path.parents if folder.exists())
                effective = os.access in os.supports_effective_ids
                if not (there.is_dir() and os.access(there, os.W_OK, effective_ids=effective)):
                    raise PermissionError(13, "cannot be written", str(there))
        except ValueError as error:
            return str(error)
        return ""

    def _companions(self) -> list[str]:
        """Names of the files that SQLite has left beside the database."""
        paths = (self.path.with_name(self.path.name + ending) for ending in _COMPANIONS)
        return [path.name for path in paths if path.exists()]

    def _check_companions(self) -> None:
        """Refuse a journal without its database: SQLite would write its pages into a new one."""
        left = self._companions()  # first: a writer at work has made its database before them
        if left and not self.path.exists():
            raise ValueError(
                f"notes cannot be kept here: {self.path} is missing, but {' and '.join(left)} "
                "is still there; put the database back beside it, or move that file to where the "
                "database is now"
            )

    def _connect(self, mode: str, path: Path | None = None) -> sqlite3.Connection:
        address = f"{(path or self.path).absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, cached_statements=0
        )
        # With the folder's entry of the journal, so that a power cut undoes nothing that was told.
        connection.execute("PRAGMA synchronous=EXTRA")
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raise a ValueError if the file is another's, or not what was written."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
        if not (application or version or tables):
            # It is made under another name: one that is empty, or shorter than a page, was cut.
            raise ValueError(self._line("is damaged"))
        if application != APPLICATION:
            raise ValueError(self._line("is another program's database"))
        if version != SCHEMA_VERSION:
            raise ValueError(self._line(f"has format {version}, not {SCHEMA_VERSION}"))
        (whole,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        origin = dict(connection.execute("SELECT name, sha256 FROM origin"))
        content = origin.pop(_CONTENT, None)
        if whole != "ok" or content not in (None, _checksum(connection)):
            raise ValueError(self._line("is damaged"))
        if origin != self._origin:
            raise ValueError(self._line("is of another collection or checkpoint"))

    def _make(self) -> None:
        """Make the file under another name; where another process is faster, its own stays."""
        with temporary_beside(self.path) as draft:
            with closing(self._connect("rw", draft)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";")[:-1]:
                    connection.execute(statement)
                connection.executemany("INSERT INTO origin VALUES (?, ?)", self._origin.items())
                connection.execute(f"PRAGMA application_id={APPLICATION}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                connection.execute("COMMIT")
            claim_name(draft, self.path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            log.debug("%s", error, exc_info=True)
            kind = getattr(error, "sqlite_errorname", "") or ""
            short = "_".join(kind.split("_")[:2])
            why = _WHY.get(short, f"fails ({error})")
            raise ValueError(self._line(why, _REMEDY.get(short, ""))) from None
        except UnicodeDecodeError:
            raise ValueError(self._line("is damaged")) from None
        except OSError as error:
            why = f"cannot be made ({error.strerror or error})"
            raise ValueError(self._line(why)) from None

    def _line(self, why: str, remedy: str = "") -> str:
        if not remedy:
            remedy = "move it away, or set $SIEVE_HOME to another folder"
            if left := self._companions():
                remedy = (
                    f"{' and '.join(left)} beside it holds an unfinished write: keep the files "
                    "together, and open them once where they can be written to restore the last "
                    "saved state; or set $SIEVE_HOME to another folder"
                )
        return f"notes cannot be kept here: {self.path} {why}; {remedy}"


def _checksum(connection: sqlite3.Connection) -> str:
    """CRC-32 of all that people keep."""
    crc = 0
    for asked in _ROWS:
        for row in connection.execute(asked):
            crc = zlib.crc32(repr(row).encode("utf-8", "surrogatepass"), crc)
    return f"{crc:08x}"
