"""What a run folder holds right now: its parts, its card, its events, and what of them could not be read."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from trainvitals.card import RunCard
from trainvitals.errors import RunDamaged, RunNotFound
from trainvitals.store.attempts import ENDLESS
from trainvitals.store.compact import SegmentName
from trainvitals.store.folder import Folder
from trainvitals.store.parts import ColumnCache, HistoryPart, LivePart, Part

RELIST_SECONDS = 60.0
"""A folder whose pulse stands still is listed so often all the same: somebody may have copied or deleted files."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a human would mark on the time axis."""

    time: float
    step: int | None
    kind: str
    message: str
    rank: int
    writer: str
    start_step: int
    started: float
    world_size: int
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, line: str) -> Event:
        """An event from its line. Raises ValueError, KeyError or TypeError."""
        raw = json.loads(line)
        step = raw.get("step")
        if step is not None and abs(int(step)) >= ENDLESS:
            raise ValueError(f"step {step} is no step")
        return cls(float(raw["time"]), None if step is None else int(step), str(raw["kind"]),
                   str(raw.get("message", "")), int(raw.get("rank", 0)), str(raw.get("writer", "")),
                   int(raw.get("start_step", 0)), float(raw.get("started", 0.0)), int(raw.get("world_size", 1)),
                   dict(raw.get("data") or {}))


class Contents:
    """Follows a run folder; every `refresh` reads only what is new."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.version = ""
        self.sizes: dict[str, int] = {}
        self.parts: dict[str, Part] = {}
        self.card = RunCard()
        self.events: list[Event] = []
        self.unreadable: dict[str, str] = {}
        """Path -> why it could not be read."""
        self._pulse: str | None = None
        self._listed = 0.0
        self._cache = ColumnCache()

    def refresh(self) -> bool:
        """List the folder and read what is new; True if anything but the findings changed.

        Raises RunNotFound where there is no run.
        """
        pulse = self.folder.pulse()
        if pulse is not None and pulse == self._pulse and time.monotonic() - self._listed < RELIST_SECONDS:
            return False
        changed = self._look()
        self._pulse, self._listed = pulse, time.monotonic()
        return changed

    def _look(self) -> bool:
        self.sizes = {path: size for path, size in self.folder.sizes().items() if not path.endswith(".tmp")}
        data = sorted((path, size) for path, size in self.sizes.items()
                      if path == "run.json" or path.startswith(("frames/", "events/")))
        if not data:
            raise RunNotFound(f"{self.folder} holds no run. Give the folder that has `run.json` and `frames/` in it.")
        version = hashlib.sha1(repr(data).encode(), usedforsecurity=False).hexdigest()[:16]
        if version == self.version:
            return False
        self.unreadable = {}
        self.parts = self._read_parts()
        self.card = self._read_card()
        self.events = self._read_events()
        self.version = version
        return True

    def _read_parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {}
        for path, name in _wanted(self.sizes).items():
            try:
                part = self.parts.get(path) or self._open(path, name)
                if isinstance(part, LivePart):
                    part.refresh(self.sizes[path])
                parts[path] = part
            except FileNotFoundError:
                continue  # compacted since the folder was listed: the next refresh finds its history file
            except (OSError, ValueError, pa.ArrowException) as error:
                self.unreadable[path] = str(error)
        return parts

    def _open(self, path: str, name: SegmentName) -> Part:
        return LivePart(self.folder, path, name) if name.live else HistoryPart(self.folder, path, name, self._cache)

    def _read_card(self) -> RunCard:
        if "run.json" not in self.sizes:
            return RunCard()
        try:
            return RunCard.from_json(self.folder.read("run.json").decode(), f"{self.folder}/run.json")
        except (RunDamaged, OSError, ValueError) as error:
            self.unreadable["run.json"] = str(error)
            return RunCard()

    def _read_events(self) -> list[Event]:
        events = []
        for path in self.sizes:
            if not path.startswith("events/"):
                continue
            try:
                lines = self.folder.read(path).decode(errors="replace").splitlines(keepends=True)
            except OSError as error:
                self.unreadable[path] = str(error)
                continue
            for line in lines:
                if not line.strip():
                    continue  # a writer ends the line that a full disk tore, then goes on
                try:
                    events.append(Event.of(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    if line.endswith("\n"):  # else a torn tail, which is normal
                        self.unreadable[path] = f"a line that is not an event ({error})"
        return sorted(events, key=lambda event: event.time)


def _wanted(sizes: dict[str, int]) -> dict[str, SegmentName]:
    """Files to read: a segment that history covers, and a history file inside a wider one, are left out."""
    names = {path: name for path in sorted(sizes) if (name := SegmentName.parse(path))}
    widest: dict[tuple[str, str, int], int] = {}
    for name in names.values():
        if not name.live:
            for i in range(name.first, name.last + 1):
                key = (name.frame, name.writer, i)
                widest[key] = max(widest.get(key, 0), name.last - name.first + 1)
    return {path: name for path, name in names.items()
            if widest.get((name.frame, name.writer, name.first), 0) <= (0 if name.live else name.last - name.first + 1)}
