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
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from collectors.importers.importer import BATCH_ROWS
from trainvitals.errors import UsageError

MAGIC = b"SQLite format 3\x00"
WAL_HEAD_BYTES = 32
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
        return _stamp(self._real)

    def _open(self) -> sqlite3.Connection:
        head, waiting, journal = self._head(), _filled(self._real, "-wal"), _filled(self._real, "-journal")
        if head[:16] != MAGIC:
            raise UsageError(f"{self.path} is no SQLite database. Give the file that the tracker wrote.")
        logs_ahead, self._stamp = head[18:20] == b"\x02\x02", None
        try:
            if logs_ahead and waiting:
                return self._connect(self._copied("-wal"), "rw")
            if logs_ahead:
                self._stamp = _stamp(self._real)
                return self._connect(self._real, "ro&immutable=1")
            try:
                return self._connect(self._real, "ro")
            except sqlite3.Error as error:
                if not journal or any(word in str(error) for word in _BUSY):
                    raise
                return self._connect(self._copied("-journal"), "rw")  # a dead writer's: to be rolled back, in the copy
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

    def _copied(self, suffix: str) -> Path:
        """A copy of the database and of the log beside it that fits it. Raises UsageError, OSError."""
        beside = Path(f"{self._real}{suffix}")
        with _COPY.lock:
            if _COPY.is_of(_version(self._real)):
                return _COPY.file
            _COPY.renew()
            room, needed = shutil.disk_usage(_COPY.file.parent).free, self._real.stat().st_size + beside.stat().st_size
            if needed > 0.9 * room:
                raise UsageError(f"{self.path} is read from a copy of {needed / 1e9:,.1f} GB, and {_COPY.file.parent} "
                                 "has no room for it. Set TMPDIR to a larger disk.")
            for _ in range(_TRIES):
                version, before = _version(self._real), (_stamp(self._real), _start(beside))
                shutil.copyfile(self._real, _COPY.file)
                try:
                    shutil.copyfile(beside, f"{_COPY.file}{suffix}")
                except FileNotFoundError:  # the writer has put it into the database and left
                    Path(f"{_COPY.file}{suffix}").unlink(missing_ok=True)
                # An unchanged database and the log's own first bytes, drawn at random whenever it begins anew.
                if before == (_stamp(self._real), _start(beside)):
                    _COPY.made(version)
                    return _COPY.file
                time.sleep(0.05)
        raise UsageError(f"{self.path} is written so often that no whole copy of it could be made. Try again later.")

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


class _Copy:
    """The newest copy of a database with a log, so that not each of its runs makes its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._of: Version | None = None
        self._at = 0.0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def file(self) -> Path:
        """Where it lies; gone with the process."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="trainvitals-", ignore_cleanup_errors=True)
        return Path(self._folder.name, "copy.db")

    def renew(self) -> None:
        """Make room for another. Who has the old one open keeps it."""
        self._of = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def made(self, version: Version) -> None:
        """It is whole."""
        self._of, self._at = version, time.monotonic()

    def is_of(self, version: Version) -> bool:
        """Whether it still is what the database holds, for all that times of files tell."""
        return version == self._of and (version.settled or time.monotonic() - self._at < SETTLED_SECONDS)


_COPY = _Copy()
SETTLED_SECONDS = 2.0
"""A file that was written so lately may be written again within the same tick of its file system's clock."""


@dataclass(frozen=True, slots=True)
class Version:
    """What changes when a database does: sizes, times and first bytes of its files."""

    files: tuple[tuple[int, int, str] | None, ...]
    settled: bool = field(compare=False)


def _version(path: Path) -> Version:
    files: list[tuple[int, int, str] | None] = []
    settled = True
    for suffix in ("", "-wal", "-journal"):
        try:
            told = os.stat(f"{path}{suffix}")
            files.append((told.st_size, told.st_mtime_ns, _start(Path(f"{path}{suffix}"), 100).hex()))
            settled = settled and abs(time.time() - told.st_mtime) >= SETTLED_SECONDS
        except FileNotFoundError:
            files.append(None)
    return Version((*files, (0, 0, str(path))), settled)


def seen(path: Path) -> str:
    """What a look at a database has seen once it is through; "" where the next one has to look again all the same."""
    version = _version(Path(os.path.realpath(path)))
    return repr(version.files) if version.settled else ""


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


def _filled(path: Path, suffix: str) -> bool:
    try:
        return os.stat(f"{path}{suffix}").st_size > 0
    except OSError:
        return False


def _stamp(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def _start(path: Path, most: int = WAL_HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""


def _lost(table: str, after: int, before: int | None) -> str:
    first = "the first one" if after <= 0 else f"row {after:,}"
    if before is None:
        return f"What comes after {first} of table {table} cannot be read: its pages are damaged"
    return f"Rows between {first} and row {before:,} of table {table} cannot be read: their pages are damaged"
