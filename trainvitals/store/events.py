"""What a human would mark on the time axis: one sealed JSON object a line, in a file per writer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainvitals.sealed import opened, seal
from trainvitals.store.folder import Folder
from trainvitals.untrusted import MOST_RANKS, MOST_STEP, number, shown, whole

MOST_LINE_BYTES = 1 << 20
READ_BYTES = 16 << 20
"""Read at once."""
MOST_FILE_BYTES = 256 << 20
"""Of one writer's events: a million of them."""
MOST_TRIES = 64
"""Places in a damaged line at which a whole event is looked for."""
_DECODER = json.JSONDecoder()


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
    def of(cls, raw: Mapping[str, Any]) -> Event:
        """An event from its JSON. Raises ValueError."""
        step, data = raw.get("step"), raw.get("data") or {}
        if not isinstance(raw.get("kind"), str) or not isinstance(data, dict):
            raise ValueError(f"kind is {shown(raw.get('kind'))}, data is {shown(data)}")
        return cls(number(raw.get("time"), "time"),
                   None if step is None else whole(step, "step", -MOST_STEP, MOST_STEP), raw["kind"],
                   str(raw.get("message", "")), whole(raw.get("rank", 0), "rank", 0, MOST_RANKS),
                   str(raw.get("writer", "")), whole(raw.get("start_step", 0), "start_step", -MOST_STEP, MOST_STEP),
                   number(raw.get("started", 0.0), "started"),
                   whole(raw.get("world_size", 1), "world_size", 1, MOST_RANKS), data)


def event_line(record: Mapping[str, Any]) -> bytes:
    """An event's JSON as the line that is stored. What JSON cannot hold is stored as its text."""
    return json.dumps(seal(record, default=str)).encode() + b"\n"


class EventFile:
    """One writer's events so far; every `refresh` reads only the new lines."""

    def __init__(self, folder: Folder, path: str) -> None:
        self.folder, self.path = folder, path
        self.events: list[Event] = []
        self.unsealed = 0
        """Lines without a checksum."""
        self.damaged: list[str] = []
        """Why lines could not be read."""
        self.size = 0
        """Of the file when it was last read."""
        self._offset = 0

    @property
    def torn_bytes(self) -> int:
        """Bytes at the end that are no whole line (yet)."""
        return self.size - self._offset

    def refresh(self, size: int) -> None:
        """Read the lines up to `size` bytes. Raises OSError, also where that is too much."""
        if size > MOST_FILE_BYTES:
            raise OSError(f"it has {size:,} bytes, more than any writer's events")
        if size < self.size:  # another file of that name
            self.events, self.damaged, self.unsealed, self._offset = [], [], 0, 0
        while self._offset < size:
            data = self.folder.read(self.path, self._offset, min(size, self._offset + READ_BYTES))
            end = data.rfind(b"\n") + 1
            if not end and len(data) < READ_BYTES:
                end = self._take_torn(data)
                self._offset += end
                break
            for line in data[:end or len(data)].split(b"\n"):
                if line.strip():
                    self._take(line)
            self._offset += end or len(data)
        self.size = size

    def _take(self, line: bytes) -> None:
        try:
            raw, state = opened(line, MOST_LINE_BYTES)
            if state == "broken":
                raise ValueError("it does not match its checksum")
            self.events.append(Event.of(raw))
            self.unsealed += state == "unsealed"
        except ValueError as error:
            self.events += [event for event, _ in _inside(line)]
            self.damaged.append(str(error))

    def _take_torn(self, data: bytes) -> int:
        """Take an event whose line has no end: the checksum says that it is whole. The bytes that it has."""
        for event, end in _inside(data):
            self.events.append(event)
            return end
        return 0


def _inside(line: bytes) -> Iterator[tuple[Event, int]]:
    """Whole sealed events in a line that is damaged or holds the torn half of another, and where each ends."""
    text = line[:MOST_LINE_BYTES].decode("latin-1")  # one character per byte; what we write is ASCII
    at = 0
    for _ in range(MOST_TRIES):
        at = text.find('{"', at)
        if at < 0:
            return
        try:
            _, end = _DECODER.raw_decode(text, at)
            raw, state = opened(text[at:end])
            if state == "whole":
                yield Event.of(raw), end
            at = end
        except (ValueError, RecursionError):
            at += 1
