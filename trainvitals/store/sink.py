"""The disk half of a frame: blocks become record batches of a segment; ended segments are left for the compactor."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from trainvitals.store.block import Block
from trainvitals.store.compact import ROWS_PER_FILE, SegmentName, compact, live_path
from trainvitals.store.folder import FileGone, Folder
from trainvitals.store.segment import Header, encode

SEGMENT_BATCHES = 512
SEGMENT_BYTES = {True: 64 << 20, False: 4 << 20}
"""Size at which a segment ends, by whether the folder appends cheaply."""


class Sink:
    """Appends one frame's blocks to its current segment. Used by one thread at a time."""

    def __init__(self, folder: Folder, ended: Callable[[str], None]) -> None:
        self.folder = folder
        self.written = 0
        """Rows that the folder has taken since it was made."""
        self.lost = 0
        """Rows of segments that somebody took away while they were written."""
        self._ended = ended
        self._source: Header | None = None
        self._schema: pa.Schema | None = None
        self._sequence = 0
        self._rows = self._batches = self._bytes = 0

    def write(self, block: Block, attempt: int) -> None:
        """Append a block, opening and ending segments as needed. Raises OSError; the block is then not stored."""
        source = replace(block.header, attempt=attempt)
        if self._source != source:
            self._begin(source)
        try:
            self._append(block)
        except FileGone:
            self._count_gone()
            self._next_segment()
            self._append(block)
        if (self._rows >= ROWS_PER_FILE or self._batches >= SEGMENT_BATCHES
                or self._bytes >= SEGMENT_BYTES[self.folder.appends_cheaply]):
            self.end()

    def end(self) -> None:
        """End the current segment."""
        if self._source is not None and self._batches:
            path = self._path()
            self._next_segment()
            self._ended(path)

    def begin_anew(self) -> int:
        """The folder is gone: go on with a new segment. Returns how many rows went with it."""
        gone, self.written = self.written, 0
        if self._source is not None:
            self._next_segment()
        return gone

    def _append(self, block: Block) -> None:
        assert self._source is not None
        if self._schema is None:
            self._schema = replace(self._source, sequence=self._sequence).schema()
        data = encode(self._schema, block.batch(self._schema), with_schema=not self._batches)
        try:
            self.folder.append(self._path(), data)
        except FileGone:
            raise
        except OSError:
            # A part of the batch may be on disk, and readers stop there: what follows needs a segment of its own.
            self._next_segment()
            raise
        self._rows, self._batches, self._bytes = self._rows + block.rows, self._batches + 1, self._bytes + len(data)
        self.written += block.rows

    def _count_gone(self) -> None:
        """A segment was taken away. If somebody made history of it first, its rows are still there."""
        assert self._source is not None
        place = f"frames/{self._source.frame}/history"
        names = [SegmentName.parse(path) for path in self.folder.sizes(place)]
        if not any(name and name.writer == self._source.writer and name.first <= self._sequence <= name.last
                   for name in names):
            self.lost += self._rows
            self.written -= self._rows

    def _begin(self, source: Header) -> None:
        self.end()
        if self._source is None or self._source.writer != source.writer:
            self._sequence = 0
        self._source, self._schema = source, None

    def _path(self) -> str:
        assert self._source is not None
        return live_path(self._source, self._sequence)

    def _next_segment(self) -> None:
        self.folder.finish(self._path())
        self._sequence, self._schema = self._sequence + 1, None
        self._rows = self._batches = self._bytes = 0


class Compactor:
    """Turns ended segments into history, in a thread of its own, so that rows never wait for it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._paths: deque[str] = deque()
        self._history: dict[tuple[str, str], str | None] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._idle = True

    def add(self, path: str) -> None:
        """Compact this segment when there is time; a disk that refuses leaves it as it is, readable."""
        with self._change:
            self._paths.append(path)
            self._idle = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trainvitals-compactor", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all is done, at most so long; False if something is left."""
        with self._change:
            return self._change.wait_for(lambda: self._idle, timeout=seconds)

    @property
    def waiting(self) -> int:
        """Segments that are not history yet."""
        return len(self._paths)

    def _run(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # Linux: of this thread alone
        while True:
            with self._change:
                if not self._paths:
                    self._idle = True
                    self._change.notify_all()
                    self._change.wait_for(lambda: bool(self._paths))
            self._compact(self._paths[0])
            self._paths.popleft()

    def _compact(self, path: str) -> None:
        name = SegmentName.parse(path)
        key = (name.frame, name.writer) if name else ("", "")
        try:
            self._history[key] = compact(self.folder, path, self._history.get(key)) or self._history.get(key)
        except (OSError, ValueError, pa.ArrowException):
            self._history[key] = None
