"""Where a run lives: a local directory or an fsspec URL, seen through the few operations the store needs.

Object stores cannot append. There, a file that is being appended to is kept in memory and put whole, so the writer
gives it smaller files (`appends_cheaply`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO, cast

from trainvitals.errors import UsageError


class Folder(ABC):
    """A tree of files addressed by relative POSIX paths."""

    appends_cheaply: bool

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Relative path -> size in bytes of every file below `prefix`; empty where there is none."""

    @abstractmethod
    def read(self, path: str, start: int = 0) -> bytes:
        """The bytes from `start` to the end as they are now. Raises FileNotFoundError."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """The file for random access reading. Raises FileNotFoundError."""

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
    def child_names(self) -> list[str]:
        """Names of the folders directly below."""

    def finish(self, path: str) -> None:  # noqa: B027 - most folders have nothing to do here
        """Nothing more will be appended to this file."""


class LocalFolder(Folder):
    """A directory on a local or mounted file system."""

    appends_cheaply = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._open: dict[str, int] = {}

    def sizes(self, prefix: str = "") -> dict[str, int]:
        found: dict[str, int] = {}
        pending = [str(self.root / prefix)]
        cut = len(str(self.root)) + 1
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        else:
                            found[entry.path[cut:]] = entry.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def read(self, path: str, start: int = 0) -> bytes:
        with self.open(path) as file:
            file.seek(start)
            return file.read()

    def open(self, path: str) -> BinaryIO:
        return open(self.root / path, "rb")

    def append(self, path: str, data: bytes) -> None:
        descriptor = self._open.get(path)
        if descriptor is None:
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = self._open[path] = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if os.write(descriptor, data) != len(data):
            raise OSError(f"{path}: the disk took only a part of {len(data)} bytes")

    def finish(self, path: str) -> None:
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def replace(self, path: str, data: bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            part.write_bytes(data)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def child_names(self) -> list[str]:
        try:
            with os.scandir(self.root) as entries:
                return sorted(entry.name for entry in entries if _is_folder(entry))
        except OSError:
            return []

    def __str__(self) -> str:
        return str(self.root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class RemoteFolder(Folder):
    """A prefix on any fsspec file system, such as `s3://bucket/runs/a` or `memory://runs/a`."""

    appends_cheaply = False

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UsageError(f"Cannot open {url}: {error}. Install the fsspec file system for it.") from error
        self.root = root.rstrip("/")
        self.url = url
        self._growing: dict[str, bytearray] = {}

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def sizes(self, prefix: str = "") -> dict[str, int]:
        try:
            found: dict[str, dict[str, Any]] = self.files.find(self._at(prefix), detail=True)
        except FileNotFoundError:
            return {}
        cut = len(self.root.lstrip("/")) + 1
        return {name.lstrip("/")[cut:]: int(info["size"] or 0) for name, info in found.items()}

    def read(self, path: str, start: int = 0) -> bytes:
        size = self.files.info(self._at(path))["size"]
        return bytes(self.files.cat_file(self._at(path), start=start)) if size > start else b""

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, self.files.open(self._at(path), "rb"))

    def append(self, path: str, data: bytes) -> None:
        whole = self._growing.setdefault(path, bytearray())
        whole += data
        self.replace(path, bytes(whole))

    def finish(self, path: str) -> None:
        self._growing.pop(path, None)

    def replace(self, path: str, data: bytes) -> None:
        self.files.makedirs(self._at(path).rsplit("/", 1)[0], exist_ok=True)
        self.files.pipe_file(self._at(path), data)

    def remove(self, path: str) -> None:
        if self.files.exists(self._at(path)):
            self.files.rm_file(self._at(path))

    def child_names(self) -> list[str]:
        try:
            entries = self.files.ls(self.root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries
                      if entry["type"] == "directory")

    def __str__(self) -> str:
        return self.url


def open_folder(place: str | os.PathLike[str] | Folder) -> Folder:
    """The folder at a path or URL; nothing is created or read yet."""
    if isinstance(place, Folder):
        return place
    text = os.fspath(place)
    if "://" in text and not text.startswith("file://"):
        return RemoteFolder(text)
    return LocalFolder(os.path.expanduser(text.removeprefix("file://")))
