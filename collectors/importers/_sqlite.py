"""SQLite databases that other tools write, read without a trace: no lock held, no file made beside them, none of
their code run.

    with Database(path) as base:
        if {"metrics", "runs"} <= base.tables():
            for rows, lost in base.walk("metrics", ("key", "value"), after=None): ...

A database may be in use: a training job writes it. Reading holds SQLite's shared lock for one batch at a time, so that
no write of the job's waits for longer than its own time-out. One with a write-ahead log is copied first, because
opening it would make files beside it; see https://sqlite.org/wal.html#read_only_databases. The process that reads must
not be the one that writes: closing a file ends all locks that its process holds on it.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from collectors.importers._copies import copied, filled, stamp
from collectors.importers.importer import BATCH_ROWS
from trainvitals.errors import UsageError

MAGIC = b"SQLite format 3\x00"
STATEMENT_SECONDS = 20.0
"""One statement reads a batch, which takes milliseconds; a recursive or unindexed one is stopped after this."""
MOST_CELL_BYTES = 4 << 20
"""A string or blob. The largest that a tracker writes is a configuration."""
MOST_BATCH_BYTES = 32 << 20
MOST_TABLES = 1_000
MOST_DAMAGE = 128
"""Statements that may fail before the rest is given up; each leaps twice as far as the one before."""
LOCK_SECONDS = 3.0
_PROGRESS_OPERATIONS = 20_000
_NO_ROWID = re.compile(r"\)[^)]*WITHOUT\s+ROWID[^)]*$", re.IGNORECASE)
_TRIES = 5
_FUNCTIONS = {"count", "max", "min"}
_BUSY = ("locked", "busy")

Row = tuple[Any, ...]


class Database:
    """One database, open for reading. Raises UsageError where it cannot be read at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = Path(os.path.realpath(path))
        self._stamp: tuple[int, int] | None = None
        """Of the file, where it is read without a lock."""
        self._stop = 0.0
        self._tables: dict[str, set[str]] | None = None
        self._connection = self._open()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def tables(self) -> dict[str, set[str]]:
        """Stored tables with a rowid -> their stored columns: no views, virtual tables or computed columns."""
        if self._tables is None:
            found = self.rows("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 "
                              f"LIMIT {MOST_TABLES}")
            named = [name for name, sql in found if isinstance(name, str) and isinstance(sql, str)
                     and not _NO_ROWID.search(sql)]
            columns = {name: {str(row[1]): row[6] for row in self.rows(f"PRAGMA table_xinfo({_quoted(name)})")}
                       for name in named}
            self._tables = {name: {column for column, hidden in of.items() if not hidden}
                            for name, of in columns.items() if "rowid" not in {column.lower() for column in of}}
        return self._tables

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """What a statement gives, at most `MOST_BATCH_BYTES` of it.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            return self._rows(sql, values)
        except sqlite3.Error as error:
            raise self._sentence(error) from error

    def walk(self, table: str, columns: Sequence[str], after: int | None, where: str = "", values: Sequence[Any] = ()
             ) -> Iterator[tuple[list[Row], str]]:
        """Rows of a table in the order of their rowids, which each of them begins with, batch by batch.

        The second of a pair says, where it is not "", what lies between this batch and the next and cannot be read.

        Args:
            table: its name.
            columns: of `tables()[table]`.
            after: the rowid behind which to begin; None for all.
            where: a condition on the columns, with a "?" for each of `values`.
            values: for the condition.
        """
        names = ", ".join(["rowid", *map(_quoted, columns)])
        sql = (f"SELECT {names} FROM {_quoted(table)} WHERE ({where or '1'}) AND rowid > ? ORDER BY rowid LIMIT ?")
        at = -(2**63) if after is None else after
        alone, damaged, leap = False, 0, 0
        while True:
            found: list[Row] = []
            try:
                self._rows(sql, (*values, at + leap, 1 if alone else BATCH_ROWS), found)
            except sqlite3.Error as error:
                if isinstance(error, sqlite3.OperationalError) and "I/O" not in str(error):
                    raise self._sentence(error) from error
                damaged += 1
                if found:
                    at = found[-1][0]
                    yield found, ""
                # The row before the one that fails is lost with it, unless it is asked for alone.
                alone, leap = True, max(2 * leap, 1) if alone else 0
                at = max(at, 0) if leap else at
                if at + leap >= 2**62 or damaged >= MOST_DAMAGE:
                    yield [], _lost(table, at, None)
                    return
                continue
            if leap:
                yield [], _lost(table, at, found[0][0] if found else None)
            if not found:
                return
            alone, leap, at = alone and not leap, 0, found[-1][0]
            yield found, ""

    # -- inside -------------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, values: Sequence[Any] = (), into: list[Row] | None = None) -> list[Row]:
        """All rows, into `into` one by one, which keeps those before a damaged page."""
        found: list[Row] = [] if into is None else into
        for _ in range(_TRIES):
            self._stop = time.monotonic() + STATEMENT_SECONDS
            size = 0
            try:
                for row in self._connection.execute(sql, values):
                    found.append(row)
                    size += sum(len(cell) for cell in row if isinstance(cell, (str, bytes)))
                    if size > MOST_BATCH_BYTES:
                        break
            except (sqlite3.Error, UnicodeError) as error:
                if self._stamp == self._stat():
                    raise _named(error) from error
            if self._stamp is None or self._stamp == self._stat():
                return found
            found.clear()  # it was written while it was read without a lock
            self.close()
            self._connection = self._open()
        raise sqlite3.OperationalError("database is locked: it changes all the time")

    def _stat(self) -> tuple[int, int] | None:
        if self._stamp is None:
            return None
        return stamp(self._real)

    def _open(self) -> sqlite3.Connection:
        head, waiting, journal = self._head(), filled(self._real, "-wal"), filled(self._real, "-journal")
        if head[:16] != MAGIC:
            raise UsageError(f"{self.path} is no SQLite database. Give the file that the tracker wrote.")
        logs_ahead, self._stamp = head[18:20] == b"\x02\x02", None
        try:
            if logs_ahead and waiting:
                return self._connect(copied(self._real, "-wal"), "rw")
            if logs_ahead:
                self._stamp = stamp(self._real)
                return self._connect(self._real, "ro&immutable=1")
            try:
                return self._connect(self._real, "ro")
            except sqlite3.Error as error:
                if not journal or any(word in str(error) for word in _BUSY):
                    raise
                # A dead writer's: it is to be rolled back, which is done in a copy.
                return self._connect(copied(self._real, "-journal"), "rw")
        except sqlite3.Error as error:
            raise self._sentence(error) from error

    def _head(self) -> bytes:
        with self._real.open("rb") as file:
            return file.read(100)

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=LOCK_SECONDS,
                                     isolation_level=None, check_same_thread=False)
        try:
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CELL_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_progress_handler(lambda: time.monotonic() > self._stop, _PROGRESS_OPERATIONS)
            self._stop = time.monotonic() + STATEMENT_SECONDS
            for pragma in ("trusted_schema = 0", "query_only = 1", "cell_size_check = 1", "mmap_size = 0"):
                connection.execute(f"PRAGMA {pragma}")
            connection.set_authorizer(_authorized)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except BaseException as error:
            connection.close()
            raise _named(error) from error
        return connection

    def _sentence(self, error: sqlite3.Error) -> UsageError:
        said = str(error)
        if any(word in said for word in _BUSY):
            return UsageError(f"{self.path} is locked by the program that writes it. Try again in a moment, or copy it "
                              "and give the copy.")
        if said == "interrupted":
            return UsageError(f"{self.path} takes more than {STATEMENT_SECONDS:.0f} s for a look-up that should take "
                              "milliseconds. Give a database as the tracker itself wrote it.")
        return UsageError(f"{self.path} cannot be read ({ascii(said)[1:120]}). Restore it from a backup, or try "
                          "`sqlite3 FILE .recover`.")


def is_database(path: Path, head: bytes) -> bool:
    """Whether these are the first bytes of a SQLite file."""
    return head[:16] == MAGIC and path.is_file()


def tables_of(path: Path, head: bytes) -> dict[str, set[str]]:
    """Tables of a file that may be a database; none where it cannot be read."""
    if not is_database(path, head):
        return {}
    try:
        with Database(path) as base:
            return base.tables()
    except (UsageError, sqlite3.Error, OSError):
        return {}


def _authorized(action: int, first: str | None, second: str | None, schema: str | None, source: str | None) -> int:
    """Reading stored tables, and nothing that a schema could smuggle in: no views, no functions, no recursion."""
    plain = action == sqlite3.SQLITE_SELECT or action == sqlite3.SQLITE_READ and source is None
    known = (action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS
             or action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    return sqlite3.SQLITE_OK if plain or known else sqlite3.SQLITE_DENY


def _named(error: BaseException) -> BaseException:
    """The error; one whose message quotes a damaged schema cannot be decoded."""
    return sqlite3.DatabaseError("its schema is damaged") if isinstance(error, UnicodeError) else error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _lost(table: str, after: int, before: int | None) -> str:
    first = "the first one" if after <= 0 else f"row {after:,}"
    if before is None:
        return f"What comes after {first} of table {table} cannot be read: its pages are damaged"
    return f"Rows between {first} and row {before:,} of table {table} cannot be read: their pages are damaged"
