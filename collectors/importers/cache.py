"""Where an imported run lies, and what is remembered of its source from one look to the next (`import.json`)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainvitals.errors import UsageError
from trainvitals.imported import FILE, MOST_RECORD_BYTES, Imported
from trainvitals.sealed import opened, seal
from trainvitals.store.folder import LocalFolder

PLACE = Path("runs") / "imported"
LOCK, NEW = "import.lock", f"{FILE}.tmp"
LOCK_SECONDS = 60.0
"""How long to wait for another process that imports the same source."""
HEAD_BYTES, TAIL_BYTES = 64 << 10, 4 << 10
"""What of a source is compared to tell whether it grew or is another: its beginning, and what was its end."""
SQLITE = b"SQLite format 3\0"


def place_of(source: Path, under: Path | None = None) -> Path:
    """The run folder of a source: below the current directory, or a temporary one where that cannot be written."""
    mark = hashlib.sha256(os.fsencode(os.path.abspath(source))).hexdigest()[:10]
    name = re.sub(r"[^\w.-]+", "_", source.stem or source.name)[:60].strip("._") or "log"
    return (under or _writable_place()) / f"{name}-{mark}"


def _writable_place() -> Path:
    if os.access(".", os.W_OK) and (not PLACE.exists() or os.access(PLACE, os.W_OK)):
        return PLACE
    place = Path(tempfile.gettempdir(), f"trainvitals-imported-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(f"{place} belongs to somebody else. Say where imported runs go with --run.")
    return place


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone with the cached run. Raises UsageError where another process keeps it for long."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise UsageError(f"Another process has been importing into {folder} for {LOCK_SECONDS:g} s. Wait "
                                     "for it, or give another --run.") from error
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class Record:
    """What `import.json` holds: what readers of the run see, and what the next look needs."""

    about: Imported
    name: str = ""
    key: str = ""
    maps: list[str] = field(default_factory=list)
    made_by: str = ""
    """Mark of the importer: another version may read more, or know more of what is hidden."""
    state: dict[str, Any] = field(default_factory=dict)
    """The importer's own."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Of the source when the last look began that got through, or the first one."""
    order: dict[str, Any] = field(default_factory=dict)
    targets: list[tuple[str, str, float, str, str]] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    spots: list[dict[str, Any]] = field(default_factory=list)
    """Blind spots that facts of the log brought, as JSON."""
    rows: dict[str, int] = field(default_factory=dict)
    """Frame -> rows in the folder, as far as `state` goes."""
    writer: dict[str, Any] | None = None
    """`store.writer.Continued` as JSON."""
    rewinds: int = 0
    """How often the job had gone back, as far as `state` goes."""
    writers: list[str] = field(default_factory=list)
    """Names of all writers so far."""
    busy: bool = False
    """A look is under way, or was when its process was killed: the folder may hold more rows than `rows`."""
    said: list[str] = field(default_factory=list)
    """Notes that importers' facts brought."""

    def save(self, folder: Path) -> None:
        """Put it into the run folder, whole or not at all. Raises OSError.

        It is not synced to the disk: neither are the rows, and a machine that crashes between the two is found out by
        counting them.
        """
        raw = {name: getattr(self, name) for name in _KEPT} | self.about.to_json()
        new = folder / NEW
        new.write_bytes(json.dumps(seal(raw, default=_number)).encode())
        os.replace(new, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """The record in a run folder; None where there is none that can be used."""
        try:
            raw, state = opened(LocalFolder(folder).read(FILE, 0, MOST_RECORD_BYTES + 1), MOST_RECORD_BYTES)
            about = Imported.from_json(raw)
            record = cls(about, **{name: raw[name] for name in _KEPT})
            record.targets = [(str(c), str(s), float(f), str(label), str(why))
                              for c, s, f, label, why in record.targets]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if state == "whole" else None


_KEPT = ("name", "key", "maps", "made_by", "state", "identity", "order", "targets", "counts", "spots", "rows", "writer",
         "rewinds", "writers", "busy", "said")


def _number(value: Any) -> Any:
    """A numpy number of an importer's state as JSON has it."""
    return value.item() if isinstance(value, np.generic) else str(value)


def empty(folder: Path) -> None:
    """Take away what an earlier import left, but its record and the lock."""
    for entry in list(os.scandir(folder)):
        if entry.name not in (FILE, LOCK):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def usable(folder: Path) -> bool:
    """Whether a folder is ours to import into: empty, or an earlier import."""
    return not folder.exists() or (folder / FILE).is_file() or set(os.listdir(folder)) <= {LOCK, NEW}


def identity(path: Path) -> dict[str, Any]:
    """What tells a source from another one at its path. Raises OSError."""
    found = os.stat(path)
    about: dict[str, Any] = {"inode": found.st_ino, "device": found.st_dev}
    if not stat.S_ISREG(found.st_mode):
        return about
    about |= {"size": found.st_size, "mtime": found.st_mtime_ns}
    with contextlib.suppress(OSError):  # what SQLite has not yet taken into the file itself
        beside = os.stat(f"{path}-wal")
        about["wal"] = [beside.st_size, beside.st_mtime_ns]
    head = min(HEAD_BYTES, found.st_size)
    return about | {"head": _digest(path, 0, head), "tail": _digest(path, max(0, found.st_size - TAIL_BYTES),
                                                                    found.st_size)}


def changed_at(path: Path) -> float | None:
    """When a source last changed, Unix seconds; the newest file of a folder."""
    try:
        times = [os.stat(path).st_mtime]
        if path.is_dir():
            for root, folders, files in os.walk(path):
                times += [os.lstat(os.path.join(root, name)).st_mtime for name in files]
                if len(times) > 10_000:
                    folders.clear()
        return max(times)
    except OSError:
        return None


def unchanged(path: Path, before: dict[str, Any]) -> bool:
    """Whether a file is what it was, as far as its directory entry tells; never of a folder."""
    if "size" not in before:
        return False
    found = os.stat(path)
    wal: list[int] | None = None
    with contextlib.suppress(OSError):
        beside = os.stat(f"{path}-wal")
        wal = [beside.st_size, beside.st_mtime_ns]
    return (found.st_ino, found.st_size, found.st_mtime_ns, wal) == (
        before["inode"], before["size"], before["mtime"], before.get("wal"))


def continues(path: Path, before: dict[str, Any]) -> str:
    """"" where a file begins as it did before and was only added to; else what happened to it, in words."""
    if "size" not in before or _read(path, 0, len(SQLITE)) == SQLITE:
        return ""
    size = os.stat(path).st_size
    if size < before["size"]:
        return f"it had {before['size']:,} bytes and has {size:,}"
    head = min(HEAD_BYTES, before["size"])
    if _digest(path, 0, head) != before["head"]:
        return "it begins with other bytes than before"
    if _digest(path, max(0, before["size"] - TAIL_BYTES), before["size"]) != before["tail"]:
        return "what was its end has changed"
    return ""


def _digest(path: Path, start: int, stop: int) -> str:
    return hashlib.sha256(_read(path, start, stop)).hexdigest()[:24]


def _read(path: Path, start: int, stop: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        file.seek(start)
        return file.read(max(0, stop - start))
