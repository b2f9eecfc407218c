"""The SQLite file of annotations, with a new connection for every read and write.

One connection per call: nothing is lost if the process ends, a file that was moved away is not
written to, and any number of pages and programs can use it. The journal mode is SQLite's rollback
journal. Its write-ahead log leaves files beside the database, needs shared memory, and cannot be
read on a read-only file system; with one connection per call it was also twice as slow.

A writer that is killed during its commit leaves the journal beside the database, and the next
connection with write access restores the last committed state from it. Readers therefore connect
with write access if the file system allows it. The two files belong together: a database without
its journal may be half written, and a journal must not be combined with another database.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sieve.model.files import claim_name, temporary_beside

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
APPLICATION = 0x53696576
"""SQLite's `application_id` of these files: "Siev"."""
WAIT_SECONDS = 10.0
"""Time to wait for another writer, in seconds; a transaction takes milliseconds."""
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
_WHY = {
    "SQLITE_READONLY": "cannot be written",
    "SQLITE_PERM": "cannot be written",
    "SQLITE_CANTOPEN": "cannot be opened",
    "SQLITE_AUTH": "cannot be opened",
    "SQLITE_NOTADB": "is not a database",
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
"""Suffixes of the files that SQLite creates beside a database while it is written."""


class Database:
    """Transactions on the SQLite file, which is created at the first write.

    `collection` and `checkpoint` are the hashes that the annotations belong to. Errors are
    ValueErrors of one line.
    """

    def __init__(self, path: Path, collection: str, checkpoint: str) -> None:
        self.path = path
        self._origin = {"collection": collection, "checkpoint": checkpoint}

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction for reading; the database is empty if nothing was ever written."""
        with self._guarded():
            if not self.path.exists():
                with closing(sqlite3.connect(":memory:")) as connection:
                    connection.executescript(_SCHEMA)
                    yield connection
                return
            # Mode "ro" could not apply the journal of an interrupted writer. If the file is
            # write-protected, SQLite falls back to reading.
            with self._transaction("BEGIN") as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open an exclusive transaction; once this returns, the changes are on the disk."""
        with self._guarded():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._create()
            with self._transaction("BEGIN IMMEDIATE") as connection:
                yield connection
                # Earlier versions stored a checksum of all rows, which these changes invalidate.
                connection.execute("DELETE FROM origin WHERE name = 'content'")
                connection.execute("COMMIT")

    def fault(self) -> str:
        """Return why the file cannot be written, or an empty string; changes nothing."""
        try:
            with self._guarded():
                if self.path.exists():
                    with self._transaction("BEGIN IMMEDIATE") as connection:
                        # A read-only SQLite file raises an error only at the first change.
                        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                        connection.execute("ROLLBACK")
                    return ""
                parent = next(folder for folder in self.path.parents if folder.exists())
                effective = os.access in os.supports_effective_ids
                if not (parent.is_dir() and os.access(parent, os.W_OK, effective_ids=effective)):
                    raise PermissionError(13, "cannot be written", str(parent))
        except ValueError as error:
            return str(error)
        return ""

    def _companions(self) -> list[str]:
        """Return the names of SQLite's files beside the database."""
        paths = (self.path.with_name(self.path.name + ending) for ending in _COMPANIONS)
        return [path.name for path in paths if path.exists()]

    def _check_companions(self) -> None:
        """Refuse a journal without its database: SQLite would apply it to a new database."""
        left = self._companions()  # checked first: a writer creates its database before them
        if left and not self.path.exists():
            raise ValueError(
                f"notes cannot be saved: {self.path} is missing, but {' and '.join(left)} still "
                "exists; move the database back, or move that file to the folder of the database"
            )

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with closing(self._connect(self.path)) as connection:
            connection.execute(begin)
            self._check(connection)
            yield connection

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=WAIT_SECONDS,
            isolation_level=None,
            cached_statements=0,
        )
        # Also syncs the directory, so a power failure cannot undo a committed transaction.
        connection.execute("PRAGMA synchronous=EXTRA")
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raise a ValueError if the file is damaged or is not the expected database."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
        if not (application or version or tables):
            # Databases are created under another name, so an empty one has been truncated.
            raise ValueError(self._line("is damaged"))
        if application != APPLICATION:
            raise ValueError(self._line("is another program's database"))
        if version != SCHEMA_VERSION:
            raise ValueError(self._line(f"has format {version}, not {SCHEMA_VERSION}"))
        (integrity,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if integrity != "ok":
            raise ValueError(self._line("is damaged"))
        origin = connection.execute("SELECT name, sha256 FROM origin WHERE name <> 'content'")
        if dict(origin) != self._origin:
            raise ValueError(self._line("belongs to another collection or checkpoint"))

    def _create(self) -> None:
        """Create the file atomically; if another process was faster, its file is used."""
        with temporary_beside(self.path) as draft:
            with closing(self._connect(draft)) as connection:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                connection.executemany("INSERT INTO origin VALUES (?, ?)", self._origin.items())
                connection.execute(f"PRAGMA application_id={APPLICATION}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                connection.execute("COMMIT")
            claim_name(draft, self.path)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Check the companions, and raise every error as a ValueError of one line."""
        try:
            self._check_companions()
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
            why = f"cannot be created ({error.strerror or error})"
            raise ValueError(self._line(why)) from None

    def _line(self, why: str, remedy: str = "") -> str:
        if not remedy:
            remedy = "move it away, or set $SIEVE_HOME to another folder"
            if left := self._companions():
                remedy = (
                    f"{' and '.join(left)} beside it holds an unfinished write: keep the files "
                    "together and open them once with write access to restore the last saved "
                    "state; or set $SIEVE_HOME to another folder"
                )
        return f"notes cannot be saved: {self.path} {why}; {remedy}"
