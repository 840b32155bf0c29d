"""Where a run lives: a local directory or an fsspec URL, seen through the few operations the store needs.

Object stores cannot append: see `trainvitals/store/remote.py`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO


class Folder(ABC):
    """A tree of files addressed by relative POSIX paths."""

    appends_cheaply: bool
    """Whether `append` grows a file; else every call makes a file of its own beside it."""
    unlisted: Mapping[str, str] = {}
    """Relative path -> why the last `sizes()` left it out: no regular file, or no permission to look."""

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Relative path -> size in bytes of every regular file below `prefix`; empty where there is none."""

    @abstractmethod
    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes from `start` to `stop`, or to the end as it is now; fewer where the file is shorter.

        Raises OSError: FileNotFoundError where there is none, another where it is no regular file.
        """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """The file for random access reading. Raises OSError as `read` does."""

    @abstractmethod
    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file of which this process is the only writer. Raises OSError."""

    @abstractmethod
    def replace(self, path: str, data: bytes) -> None:
        """Write a whole file so that readers see the old one or the new one, never a part. Raises OSError."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file; one that is gone already is no error."""

    @abstractmethod
    def entries(self) -> dict[str, bool]:
        """Name -> whether it is a folder, of every regular file and folder directly below.

        Raises StoreUnreachable where a store does not answer; a directory that cannot be listed has none.
        """

    @abstractmethod
    def child_names(self) -> list[str]:
        """Names of the folders directly below."""

    def finish(self, path: str) -> None:  # noqa: B027 - most folders have nothing to do here
        """Nothing more will be appended to this file."""

    def times(self, prefix: str = "") -> dict[str, float]:
        """Relative path -> when a file below `prefix` last changed, Unix seconds by the folder's own clock.

        Files whose time the folder cannot tell are left out.
        """
        return {}

    def stamp(self, prefix: str) -> object:
        """Something that changes when files directly below `prefix` come or go; None where only a listing can tell."""
        return None

    def now(self) -> float | None:
        """The time by the folder's own clock, the one of `times`; None where it cannot be learnt."""
        return None

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes | OSError]:
        """Whole files, or why one could not be read."""
        found: dict[str, bytes | OSError] = {}
        for path in paths:
            try:
                found[path] = self.read(path)
            except OSError as error:
                found[path] = error
        return found

    def prefetch(self, wanted: Mapping[str, tuple[int, int]]) -> None:  # noqa: B027 - a disk answers at once
        """Path -> first byte and end of what will be read next: a distant store is asked for all of it at once."""

    def remove_many(self, paths: Sequence[str]) -> None:
        """Delete files; those that are gone already are no error."""
        for path in paths:
            self.remove(path)

    def beat(self, name: str) -> None:  # noqa: B027 - a directory shows by itself what is new
        """Tell readers that something was written since the last time; `name` is the writer's rank, or a word."""

    def pulse(self) -> str | None:
        """Changes after every `beat` of any writer; None where only a listing can tell what is new."""
        return None


class FileGone(OSError):
    """A file that was appended to is no longer at its path."""


NETWORK = frozenset("nfs nfs4 cifs smb3 smbfs lustre gpfs ceph beegfs glusterfs afs 9p virtiofs orangefs".split())
"""File systems of /proc/self/mountinfo that stamp files with the clock of another machine; FUSE may, too."""


def on_network(path: Path) -> bool:
    """Whether files here may be stamped by another machine's clock."""
    try:
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            if left.split()[2:3] == [number]:
                kind = right.split()[0]
                return kind in NETWORK or kind.startswith("fuse")
    except OSError:
        return True
    return False


def _same_file(path: Path, descriptor: int) -> bool:
    """Whether a path still leads to the file that is open."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


class LocalFolder(Folder):
    """A directory on a local or mounted file system."""

    appends_cheaply = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._open: dict[str, int] = {}

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        unlisted: dict[str, str] = {}
        pending = [os.path.join(self.root, prefix)]
        cut = len(str(self.root)) + 1
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        _list(entry, cut, pending, found, unlisted)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                unlisted[folder[cut:] or "."] = f"it cannot be listed ({error.strerror})"
        self.unlisted = unlisted
        return found

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        with self._regular(path, buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            return file.read(max(0, (size if stop is None else min(stop, size)) - start))

    def open(self, path: str) -> BinaryIO:
        return self._regular(path)

    def _regular(self, path: str, buffering: int = -1) -> BinaryIO:
        # A FIFO without a writer would block for ever, and a device has no end.
        file = open(os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering)
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            file.close()
            error = IsADirectoryError if stat.S_ISDIR(mode) else OSError
            raise error(f"it is {_kind(mode)}, not a regular file")
        return file

    def append(self, path: str, data: bytes) -> None:
        target = self.root / path
        descriptor = self._open.get(path)
        if descriptor is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            # A pipe in place of the file would block an opener that waits.
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(f"{path} is no regular file")
            self._open[path] = descriptor
        elif not _same_file(target, descriptor):
            # Deleted, moved, or another file system mounted in its place: what is written here no reader would find.
            self.finish(path)
            raise FileGone(f"{path} is no longer where it was")
        if os.write(descriptor, data) != len(data):
            raise OSError(f"{path}: the disk took only a part of {len(data)} bytes")

    def finish(self, path: str) -> None:
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def replace(self, path: str, data: bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name[:100]}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a rename may reach the disk before the bytes, and what it replaces is gone
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def times(self, prefix: str = "") -> dict[str, float]:
        found: dict[str, float] = {}
        cut = len(str(self.root)) + 1
        for parent, _, names in os.walk(self.root / prefix):
            for name in names:
                path = os.path.join(parent, name)
                try:
                    found[path[cut:]] = os.stat(path, follow_symlinks=False).st_mtime
                except OSError:
                    continue  # gone since it was listed
        return found

    def stamp(self, prefix: str) -> object:
        try:
            found = os.stat(self.root / prefix)
        except FileNotFoundError:
            return "gone"
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def now(self) -> float | None:
        if not on_network(self.root):
            return time.time()  # the kernel that stamps the files is this one
        probe = self.root / f".clock.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime
        except OSError:
            return None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def entries(self) -> dict[str, bool]:
        try:
            with os.scandir(self.root) as entries:
                return {entry.name: _is_folder(entry) for entry in entries if _is_folder(entry) or _is_file(entry)}
        except OSError:
            return {}

    def child_names(self) -> list[str]:
        try:
            with os.scandir(self.root) as entries:
                return sorted(entry.name for entry in entries if _is_folder(entry))
        except OSError:
            return []

    def __str__(self) -> str:
        return str(self.root)


def _list(entry: os.DirEntry[str], cut: int, pending: list[str], found: dict[str, int], unlisted: dict[str, str]
          ) -> None:
    """Note one entry of a folder; one that vanished since is left out, and its neighbours are not."""
    try:
        if entry.is_dir(follow_symlinks=False):
            pending.append(entry.path)
            return
        facts = entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            unlisted[entry.path[cut:]] = "it is a link to nothing"
    except OSError as error:
        unlisted[entry.path[cut:]] = f"it cannot be looked at ({error.strerror})"
    else:
        if stat.S_ISREG(facts.st_mode):
            found[entry.path[cut:]] = facts.st_size
        else:
            unlisted[entry.path[cut:]] = f"it is {_kind(facts.st_mode)}, not a regular file"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
             stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "something else")


def open_folder(place: str | os.PathLike[str] | Folder) -> Folder:
    """The folder at a path or URL; nothing is created or read yet."""
    if isinstance(place, Folder):
        return place
    text = os.fspath(place)
    if "://" in text and not text.startswith("file://"):
        from trainvitals.store.remote import RemoteFolder

        return RemoteFolder(text)
    return LocalFolder(os.path.expanduser(text.removeprefix("file://")))
