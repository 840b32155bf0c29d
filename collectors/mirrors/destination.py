"""Where a mirrored run goes: into the tap or run that this process has open, or into a run folder of its own."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from collectors.logger import Logger, open_loggers
from collectors.place import process_rank
from collectors.start import Recorder, begin
from trainvitals.store import RunWriter

log = logging.getLogger("trainvitals")
_said: set[str] = set()
MOST_SAID = 50


def quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call; what it raises is said once by kind, and None returned: the script must not notice us."""
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - see above
        say(f"a mirror failed ({type(error).__name__}: {error}), and what it saw is not stored", repr(type(error)))
        return None


def say(message: str, key: str = "") -> None:
    """Say something in the log, once."""
    key = key or message
    if key not in _said and len(_said) < MOST_SAID:
        _said.add(key)
        log.warning("trainvitals: %s. The script goes on.", message)


def after(owner: type, name: str, then: Callable[..., None]) -> None:
    """Have `then` called with the arguments of a method after each call that returns."""
    around(owner, name, lambda *args, **kwargs: None, then)


def before(owner: type, name: str, first: Callable[..., None]) -> None:
    """Have `first` called with the arguments of a method before each call."""
    around(owner, name, first, lambda *args, **kwargs: None)


def around(owner: type, name: str, first: Callable[..., Any], then: Callable[..., Any]) -> None:
    """Have both: `first` before each call, `then` after each that returns."""
    original = owner.__dict__.get(name)
    if original is None or hasattr(original, "_trainvitals"):
        return

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        quietly(first, self, *args, **kwargs)
        result = original(self, *args, **kwargs)
        quietly(then, self, *args, **kwargs)
        return result

    call._trainvitals = True  # type: ignore[attr-defined]
    setattr(owner, name, call)


class Destination:
    """The logger of one mirrored run."""

    def __init__(self, given: str | None, own: str, said: Callable[[], dict[str, Any]]) -> None:
        """`given` is the folder that the user named, `own` the one to use else; `said` gives what `start` takes."""
        self._given, self._own, self._said = given, own, said
        self._logger: Recorder | None = None
        self.in_tap = False
        """Whether it goes into the run of a tap, which knows the step by itself."""
        self.process = os.getpid()

    @property
    def logger(self) -> Logger | None:
        """The logger; None where the run cannot be mirrored, which has been said then."""
        return self._logger

    def open(self) -> None:
        """Find the tap, or begin a run."""
        self._logger = quietly(self._open)

    def _open(self) -> Recorder:
        said = self._said()
        path, (rank, world_size) = self._given or self._own, process_rank() if self._given else (0, 1)
        here = _open_here() if self._given is None else None
        if here is not None:
            # With a logger of its own there, what comes after a tap was closed is stored, too.
            path, rank, world_size = str(here.folder), here.rank, here.world_size
            said["name"] = None
        recorder = begin(path, rank, world_size, **said)
        self.in_tap = recorder.follows is not None
        _OPEN.append(self)
        return recorder

    def close(self) -> None:
        """End the run, or leave it to the tap."""
        if self._logger is not None:
            self._logger.close()
        self._logger = None
        if self in _OPEN:
            _OPEN.remove(self)


_OPEN: list[Destination] = []
"""Destinations that write."""


def _open_here() -> RunWriter | None:
    """The writer of the one tap that this process has open, or else of its one run; None where a mirror has it."""
    mirrors = [other._logger for other in _OPEN]
    loggers = [logger for logger in open_loggers() if logger not in mirrors]
    found = {id(logger.writer): logger.writer for logger in loggers if logger.follows_training} or {
        id(logger.writer): logger.writer for logger in loggers}
    writer = next(iter(found.values())) if len(found) == 1 else None
    return None if any(mirror is not None and mirror.writer is writer for mirror in mirrors) else writer


class MirroredRun(ABC):
    """One run of another tracker; its methods are called one at a time."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.lock = threading.RLock()

    @abstractmethod
    def finish(self, *args: Any) -> None:
        """Store what is left."""


Kind = TypeVar("Kind", bound=MirroredRun)


class Mirror(Generic[Kind]):
    """The runs of one tracker that are mirrored in this process, by the object that the tracker has for each."""

    def __init__(self) -> None:
        self._runs: dict[int, tuple[Any, Kind]] = {}
        self._lock = threading.Lock()

    def of(self, owner: Any, make: Callable[[], Kind | None]) -> Kind | None:
        """The mirrored run of a tracker's object, made if there is none."""
        with self._lock:
            if id(owner) in self._runs:
                return self._runs[id(owner)][1]
            mirrored = make()
            if mirrored is not None:
                self._runs[id(owner)] = owner, mirrored
                mirrored.destination.open()
                # What is registered last ends first: rows that wait must reach the writer before it ends.
                atexit.unregister(self.finish_all)
                atexit.register(self.finish_all)
            return mirrored

    def end(self, owner: Any, *args: Any) -> None:
        """The tracker's run ends."""
        with self._lock:
            _, mirrored = self._runs.pop(id(owner), (None, None))
        if mirrored is not None:
            with mirrored.lock:
                quietly(mirrored.finish, *args)
            mirrored.destination.close()

    def finish_all(self) -> None:
        """At the end of the process, before our writers end."""
        for owner, mirrored in list(self._runs.values()):
            if mirrored.destination.process == os.getpid():
                self.end(owner)
