"""One writer's texts, tables, histograms and images on their way to its file, bounded in memory and on disk.

What is over a bound is not stored, counted by the reason, and told as an event.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainvitals.errors import UsageError
from trainvitals.sealed import seal
from trainvitals.store.folder import FileGone, Folder
from trainvitals.store.samplekinds import Taken
from trainvitals.store.samples import head_bytes

SAMPLES = "samples"
WAITING_BYTES, WAITING_SAMPLES = 64 << 20, 500
"""In memory while the disk does not take them, or until they are encoded."""
MOST_SAMPLES = 20_000
"""Of one process."""
MOST_RUN_BYTES = 1 << 30
"""Of all of a run's files of samples; a process that begins looks once how much there is."""
PUT_BYTES = 4 << 20
"""Of lines that are put as one object where a file cannot grow."""


@dataclass(slots=True)
class _Waiting:
    path: str
    head: dict[str, Any]
    taken: Taken
    line: bytes = b""
    """Encoded; empty before that."""


class SampleLog:
    """Keeps samples until the disk has them; `room` and `add` from any thread, `write` from one."""

    def __init__(self, refused: Callable[[dict[str, Any], str], None]) -> None:
        """`refused` is told of a sample that cannot be encoded, and why."""
        self._refused = refused
        self._waiting: deque[_Waiting] = deque()
        self._bytes = self._count = 0
        self._lock = threading.Lock()
        self._left: int | None = None
        """Bytes that the run may still grow by; None before the first look."""
        self._torn: set[str] = set()
        self.lost: dict[str, int] = {}
        """Why samples were not stored -> how many."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Whether so much waits that no more is taken."""
        return self._bytes > WAITING_BYTES or len(self._waiting) >= WAITING_SAMPLES

    def room(self) -> bool:
        """Whether one more sample is taken; it is counted as lost if not."""
        reason = ""
        if self._left is not None and self._left <= 0:
            reason = f"a run holds at most {MOST_RUN_BYTES >> 20:,} MB of them"
        elif self._count >= MOST_SAMPLES:
            reason = f"a process stores at most {MOST_SAMPLES:,} of them"
        elif self.crowded:
            reason = "they came faster than the disk takes them"
        if reason:
            self.lose(reason)
        return not reason

    def lose(self, reason: str, count: int = 1) -> None:
        """Count samples that are not stored."""
        with self._lock:
            self.lost[reason] = self.lost.get(reason, 0) + count

    def add(self, path: str, head: dict[str, Any], taken: Taken) -> None:
        """Queue one sample for a file."""
        with self._lock:
            self._waiting.append(_Waiting(path, head, taken))
            self._bytes += taken.nbytes
            self._count += 1

    def write(self, folder: Folder, seconds: float) -> bool:
        """Encode and append for about so long; True if more waits. Raises OSError; what is not written stays."""
        if self._left is None and self._waiting:
            self._left = MOST_RUN_BYTES - sum(folder.sizes(SAMPLES).values())
        deadline = time.monotonic() + seconds
        while self._waiting and time.monotonic() < deadline:
            path, lines = self._ready(not folder.appends_cheaply)
            if lines:
                self._append(folder, path, b"".join(lines))
            for _ in lines:
                self._take_off()
        return bool(self._waiting)

    def give_up(self, reason: str) -> None:
        """The end: what still waits is lost, and counted."""
        if self._waiting:
            self.lose(reason, len(self._waiting))
        self._waiting.clear()
        self._bytes = 0

    def _ready(self, several: bool) -> tuple[str, list[bytes]]:
        """Encoded lines of the oldest samples that go to one file; those that cannot be encoded are taken off."""
        lines: list[bytes] = []
        path = self._waiting[0].path
        for item in list(self._waiting):
            if item.path != path or (lines and not several) or sum(map(len, lines)) > PUT_BYTES:
                break
            try:
                item.line = item.line or _line(item)
            except Exception as error:  # noqa: BLE001 - whatever a script handed over must not stop the rest
                if lines:
                    break  # it is met again as the first
                self._take_off()
                self._refused(item.head, str(error) if isinstance(error, UsageError) else repr(error))
                return path, []
            lines.append(item.line)
        return path, lines

    def _append(self, folder: Folder, path: str, data: bytes) -> None:
        # After a failure a part of the last line may be on disk, and what follows must not become a part of it.
        data = b"\n" + data if path in self._torn else data
        try:
            folder.append(path, data)
        except FileGone:
            folder.append(path, data)  # a new file
        except OSError:
            self._torn.add(path)
            raise
        self._torn.discard(path)
        self._left = (self._left or 0) - len(data)

    def _take_off(self) -> None:
        with self._lock:
            self._bytes -= self._waiting.popleft().taken.nbytes


def _line(item: _Waiting) -> bytes:
    """A sample as it is stored: a sealed object that tells length and checksum of the payload, a tab, the payload."""
    content = item.taken.make()
    head = seal(item.head | {"data": content.data, "bytes": len(content.payload),
                             "payload_crc32": f"{zlib.crc32(content.payload):08x}"})
    return head_bytes(head) + b"\t" + content.payload + b"\n"
