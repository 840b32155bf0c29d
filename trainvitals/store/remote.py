"""A run folder behind a URL: object stores such as `s3://bucket/runs/a`, and any other fsspec file system.

Nothing can be appended there, so nothing ever is: every `append` puts an object of its own, whole, under a name that is
never used again. A put that is repeated because its answer was lost therefore puts the same bytes at the same place,
and a reader sees an object whole or not at all.

Every request has an end (`REQUEST_SECONDS`); within it the file system's own retries apply. What failed raises OSError
and is tried again by whoever asked, at the next flush or the next look. A store that did not answer is left alone for a
quarter of that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from fsspec.asyn import sync

from trainvitals.errors import StoreUnreachable, UsageError
from trainvitals.store.folder import Folder

REQUEST_SECONDS = 20.0
"""One request with all its repetitions; a read of many objects has this for each 100 of them."""
AT_ONCE = 64
"""Requests under way at a time, where many objects are read or deleted."""
WATCHED = ("frames/", "events/", "samples/", "run.json")
"""What a reader looks for: a change of anything else is no news."""
PULSES = 512
"""Pulse objects of a run at most, so that one page of a listing (1,000 keys) holds them all."""
STAMPS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
"""What file systems call the thing that changes when an object is put again."""
FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "cos", "oci", "r2", "memory"})
"""File systems that put an object whole or not at all, and know no folders that must be made first."""


class RemoteFolder(Folder):
    """A prefix on an fsspec file system."""

    appends_cheaply = False

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: tuple[int, Any] | None = None
        self._appended: dict[str, int] = {}
        self._news = False
        self._resting_until = 0.0
        self._fetched: dict[str, tuple[int, bytes]] = {}
        """Path -> what was read ahead of being asked for, and where it begins."""
        try:
            self.root = self._connect()
        except (ImportError, ValueError) as error:
            raise UsageError(f"Cannot open {url}: {error}. Install the fsspec file system for it: `pip install "
                             "'trainvitals[s3]'` for s3://, gcsfs for gs://, adlfs for az://.") from error

    def _connect(self) -> str:
        import fsspec

        # The listings cache would hide what other processes put.
        files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        self._connection = os.getpid(), files
        protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
        self._flat = bool(protocols & FLAT)
        return str(root).rstrip("/")

    @property
    def files(self) -> Any:
        """The file system; a forked child gets a connection of its own, as the parent's thread is not in it."""
        if self._connection is None or self._connection[0] != os.getpid():
            self._connect()
        assert self._connection is not None
        return self._connection[1]

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system, with an end. Raises as `_within`."""
        files = self.files
        if not files.async_impl:
            return self._within(REQUEST_SECONDS, lambda: getattr(files, method)(*args, **kwargs))
        return self._within(REQUEST_SECONDS, lambda: sync(files.loop, getattr(files, f"_{method}"), *args,
                                                          timeout=REQUEST_SECONDS, **kwargs))

    def _within(self, seconds: float, call: Callable[[], Any]) -> Any:
        """What a call answers. Raises FileNotFoundError and its kin, StoreUnreachable for everything else."""
        if time.monotonic() < self._resting_until:
            raise StoreUnreachable(f"{self.url} did not answer of late. It is asked again in a few seconds.")
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise
        except TimeoutError as error:
            # What else is asked for in this look or flush would wait as long, one after the other.
            self._resting_until = time.monotonic() + REQUEST_SECONDS / 4
            raise StoreUnreachable(f"{self.url} did not answer within {seconds:g} s. Check the network and the "
                                   "endpoint.") from error
        except Exception as error:  # clients of stores have errors of their own, without a common base
            raise StoreUnreachable(f"{self.url} cannot be used ({type(error).__name__}: {error}). Check the endpoint "
                                   "and the credentials.") from error

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _relative(self, name: str) -> str:
        return name.lstrip("/")[len(self.root.lstrip("/")) + 1:]

    # -- reading -------------------------------------------------------------------------------------------------

    def sizes(self, prefix: str = "") -> dict[str, int]:
        try:
            found: dict[str, dict[str, Any]] = self._ask("find", self._at(prefix), detail=True)
        except FileNotFoundError:
            return {}
        return {self._relative(name): int(info["size"] or 0) for name, info in found.items()
                if info.get("type") != "directory" and not name.endswith("/")}

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        at, data = self._fetched.get(path, (0, b""))
        if stop is not None and at <= start < stop <= at + len(data):
            return data[start - at:stop - at]
        if stop is not None and stop <= start:
            return b""
        # A start, even 0, spares the file system the question how long the object is.
        try:
            return bytes(self._ask("cat_file", self._at(path), start=start, end=stop))
        except OSError as error:
            if _refuses_range(error):
                return b""  # it begins at the end
            raise

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes | OSError]:
        found = self._ask_many("cat_file", {path: {"start": 0} for path in paths})
        return {path: value if isinstance(value, bytes | OSError) else bytes(value) for path, value in found.items()}

    def prefetch(self, wanted: Mapping[str, tuple[int, int]]) -> None:
        ranges = {path: {"start": start, "end": stop} for path, (start, stop) in wanted.items() if start < stop}
        found = self._ask_many("cat_file", ranges) if len(ranges) > 1 else {}
        self._fetched = {path: (ranges[path]["start"], bytes(data)) for path, data in found.items()
                         if not isinstance(data, OSError)}

    def _ask_many(self, method: str, calls: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Path -> the answer, or the OSError, of a call with these arguments; `AT_ONCE` are under way at a time."""
        files = self.files
        if not files.async_impl:
            return {path: self._try(method, path, **arguments) for path, arguments in calls.items()}

        async def all_of_them() -> list[Any]:
            room = asyncio.Semaphore(AT_ONCE)

            async def one(path: str) -> Any:
                async with room:
                    return await getattr(files, f"_{method}")(self._at(path), **calls[path])

            return await asyncio.gather(*(one(path) for path in calls), return_exceptions=True)

        seconds = REQUEST_SECONDS * (1 + len(calls) // 100)
        answers = self._within(seconds, lambda: sync(files.loop, all_of_them, timeout=seconds))
        return {path: _as_os_error(answer) for path, answer in zip(calls, answers, strict=True)}

    def _try(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            return self._ask(method, self._at(path), **kwargs)
        except OSError as error:
            return error

    def open(self, path: str) -> BinaryIO:
        files = self.files
        return cast(BinaryIO, self._within(REQUEST_SECONDS, lambda: files.open(self._at(path), "rb")))

    def child_names(self) -> list[str]:
        return sorted(name for name, is_folder in self.entries().items() if is_folder)

    def entries(self) -> dict[str, bool]:
        try:
            entries = self._ask("ls", self.root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["type"] == "directory" for entry in entries
                if entry["name"].strip("/") != self.root.strip("/")}

    def times(self, prefix: str = "") -> dict[str, float]:
        try:
            found: dict[str, dict[str, Any]] = self._ask("find", self._at(prefix), detail=True)
        except FileNotFoundError:
            return {}
        stamps = {self._relative(name): _changed(info) for name, info in found.items()}
        return {path: at for path, at in stamps.items() if at is not None}

    def now(self) -> float | None:
        probe = f".clock.{uuid.uuid4().hex}.tmp"
        try:
            self._ask("pipe_file", self._at(probe), b"now")
            at = _changed(self._ask("info", self._at(probe)))
            self._ask("rm_file", self._at(probe))
            return at
        except OSError:
            return None

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, path: str, data: bytes) -> None:
        count = self._appended.get(path, 0)
        stem, dot, ending = path.rpartition(".")
        self.replace(f"{stem}-{count:06d}{dot}{ending}" if count else path, data)
        self._appended[path] = count + 1

    def finish(self, path: str) -> None:
        self._appended.pop(path, None)

    def replace(self, path: str, data: bytes) -> None:
        self._news |= path.startswith(WATCHED)
        target = self._at(path)
        if self._flat:
            self._ask("pipe_file", target, data)
            return
        part = f"{target.rpartition('/')[0]}/.{uuid.uuid4().hex}.tmp"
        self._ask("makedirs", target.rpartition("/")[0], exist_ok=True)
        self._ask("pipe_file", part, data)
        self._ask("mv", part, target)

    def remove(self, path: str) -> None:
        self.remove_many([path])

    def remove_many(self, paths: Sequence[str]) -> None:
        self._news |= any(path.startswith(WATCHED) for path in paths)
        for answer in self._ask_many("rm_file", {path: {} for path in paths}).values():
            if isinstance(answer, OSError) and not isinstance(answer, FileNotFoundError):
                raise answer

    # -- news ----------------------------------------------------------------------------------------------------

    def beat(self, name: str) -> None:
        if self._news:
            number = int(name) % PULSES if name.isdecimal() else name
            self._news = False  # before the put: another thread may have more to tell while it is under way
            try:
                self._ask("pipe_file", self._at(f"pulse/{number}"), f"{uuid.uuid4().hex} {time.time():.3f}\n".encode())
            except OSError:
                self._news = True
                raise

    def pulse(self) -> str | None:
        try:
            entries = self._ask("ls", self._at("pulse"), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamps = [(entry["name"], next((str(entry[key]) for key in STAMPS if entry.get(key)), "")) for entry in entries]
        if not stamps or not all(stamp for _, stamp in stamps):
            return None
        return hashlib.sha1(repr(sorted(stamps)).encode(), usedforsecurity=False).hexdigest()

    def __str__(self) -> str:
        return self.url


def _changed(info: dict[str, Any]) -> float | None:
    """When an object was last put, Unix seconds by the store's clock; None where its listing does not tell."""
    for key in ("LastModified", "last_modified", "updated", "mtime", "created"):
        at = info.get(key)
        if isinstance(at, str):
            with contextlib.suppress(ValueError):
                at = datetime.fromisoformat(at)
        if isinstance(at, datetime):
            return at.timestamp() if at.tzinfo else at.replace(tzinfo=UTC).timestamp()
        if isinstance(at, int | float):
            return float(at)
    return None


def _refuses_range(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that no byte lies in the range."""
    while error is not None:
        if any(word in str(error) for word in ("InvalidRange", "416")):
            return True
        error = error.__cause__
    return False


def _as_os_error(value: Any) -> Any:
    """An exception as an OSError; anything else as it is."""
    if not isinstance(value, BaseException) or isinstance(value, OSError):
        return value
    if not isinstance(value, Exception):
        raise value
    return OSError(f"{type(value).__name__}: {value}")
