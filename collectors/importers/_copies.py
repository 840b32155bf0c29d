"""Copies of databases whose log lies beside them, and how to tell that a database did not change since.

SQLite would write beside the foreign file to open it; a copy of the two that fit together says the same.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from trainvitals.errors import UsageError

HEAD_BYTES = 100
"""Of a database or a log: page size, change counter, salts."""
SETTLED_SECONDS = 2.0
"""A file that was written so lately may be written again within the same tick of its file system's clock."""
TRIES = 5
WAL_HEAD_BYTES = 32


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
        if self._of is None or version != self._of:
            return False
        return self._of.settled or time.monotonic() - self._at < SETTLED_SECONDS


@dataclass(frozen=True, slots=True)
class Version:
    """What changes when a database does: sizes, times and first bytes of its files."""

    files: tuple[tuple[int, int, str] | None, ...]
    settled: bool = field(compare=False)


def version_of(path: Path) -> Version:
    """Of a database as it is now."""
    files: list[tuple[int, int, str] | None] = []
    settled = True
    for suffix in ("", "-wal", "-journal"):
        try:
            told = os.stat(f"{path}{suffix}")
            files.append((told.st_size, told.st_mtime_ns, _start(Path(f"{path}{suffix}"), HEAD_BYTES).hex()))
            settled = settled and abs(time.time() - told.st_mtime) >= SETTLED_SECONDS
        except FileNotFoundError:
            files.append(None)
    return Version((*files, (0, 0, str(path))), settled)


def seen(path: Path) -> str:
    """What a look at a database has seen once it is through; "" where the next one has to look again all the same."""
    version = version_of(Path(os.path.realpath(path)))
    return repr(version.files) if version.settled else ""


def filled(path: Path, suffix: str) -> bool:
    """Whether a log lies beside a database."""
    try:
        return os.stat(f"{path}{suffix}").st_size > 0
    except OSError:
        return False


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file."""
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def _start(path: Path, most: int = WAL_HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""


_COPY = _Copy()


def copied(path: Path, suffix: str) -> Path:
    """A copy of a database and of the log beside it that fits it.

    Raises:
        UsageError: there is no room for it, or it is written all the time.
        OSError: it cannot be read.
    """
    beside = Path(f"{path}{suffix}")
    with _COPY.lock:
        if _COPY.is_of(version_of(path)):
            return _COPY.file
        _COPY.renew()
        room, needed = shutil.disk_usage(_COPY.file.parent).free, path.stat().st_size + beside.stat().st_size
        if needed > 0.9 * room:
            raise UsageError(f"{path} is read from a copy of {needed / 1e9:,.1f} GB, and {_COPY.file.parent} has no "
                             "room for it. Set TMPDIR to a larger disk.")
        for _ in range(TRIES):
            version, before = version_of(path), (stamp(path), _start(beside))
            shutil.copyfile(path, _COPY.file)
            try:
                shutil.copyfile(beside, f"{_COPY.file}{suffix}")
            except FileNotFoundError:  # the writer has put it into the database and left
                Path(f"{_COPY.file}{suffix}").unlink(missing_ok=True)
            # An unchanged database and the log's own first bytes, drawn at random whenever it begins anew.
            if before == (stamp(path), _start(beside)):
                _COPY.made(version)
                return _COPY.file
            time.sleep(0.05)
    raise UsageError(f"{path} is written so often that no whole copy of it could be made. Try again later.")
