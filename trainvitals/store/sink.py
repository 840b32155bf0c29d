"""The disk half of a frame: blocks become record batches of a segment; ended segments are left for the compactor."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from dataclasses import dataclass, replace

import pyarrow as pa

from trainvitals.store.block import Block
from trainvitals.store.compact import ROWS_PER_FILE, SegmentName, compact, live_path
from trainvitals.store.folder import FileGone, Folder
from trainvitals.store.history import HistoryFile
from trainvitals.store.levels import Levels
from trainvitals.store.segment import Header, encode

log = logging.getLogger("trainvitals")

SEGMENT_BATCHES = 512
SEGMENT_BYTES = 64 << 20


class Sink:
    """Appends one frame's blocks to its current segment. Used by one thread at a time."""

    def __init__(self, folder: Folder, compactor: Compactor, goes_on: str = "") -> None:
        """`goes_on`: a writer that has segments of an earlier process already; what comes is numbered behind them."""
        self.folder, self._compactor, self._goes_on = folder, compactor, goes_on
        self.written = 0
        """Rows that the folder has taken since it was made."""
        self.lost = 0
        """Rows of segments that somebody took away while they were written."""
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
        if self._rows >= ROWS_PER_FILE or self._batches >= SEGMENT_BATCHES or self._bytes >= SEGMENT_BYTES:
            self.end()

    def end(self) -> None:
        """End the current segment; what follows may have other fields."""
        if self._source is None:
            return
        path, rows = self._path(), self._rows
        if self._batches:
            self._next_segment()
            self._compactor.add(path, rows)
        self._compactor.end(path)

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
        if not self.folder.appends_cheaply:
            self._put(block, data)
            return
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

    def _put(self, block: Block, data: bytes) -> None:
        """A segment of this block alone. One that fails is put again at the same place, whatever became of it there."""
        path = self._path()
        self.folder.replace(path, data)
        self.written += block.rows
        self._next_segment()
        self._compactor.add(path, block.rows, block.rows * block.row_bytes)

    def _count_gone(self) -> None:
        """A segment was taken away. If somebody made history of it first, its rows are still there."""
        assert self._source is not None
        place = f"frames/{self._source.frame}/history"
        kept = 0
        for path, size in self.folder.sizes(place).items():
            name = SegmentName.parse(path)
            if name and name.writer == self._source.writer and name.first <= self._sequence <= name.last:
                with contextlib.suppress(ValueError):
                    kept = max(kept, HistoryFile.open(self.folder, path, size).metadata.num_rows)
        lost = max(0, self._rows - kept)
        self.lost += lost
        self.written -= lost

    def _begin(self, source: Header) -> None:
        self.end()
        if self._source is None or self._source.writer != source.writer:
            self._sequence = self._after_earlier(source) if source.writer == self._goes_on else 0
        self._source, self._schema = source, None

    def _after_earlier(self, source: Header) -> int:
        """The number behind all segments that an earlier process left, which are handed to the compactor."""
        found = [(path, name) for path in self.folder.sizes(f"frames/{source.frame}")
                 if (name := SegmentName.parse(path)) is not None and name.writer == source.writer]
        history = max((item for item in found if not item[1].live), key=lambda item: item[1].last, default=None)
        if history is not None:
            self._compactor.goes_on((source.frame, source.writer), history[0])
        for path, name in sorted(found):
            if name.live and self.folder.appends_cheaply:
                self._compactor.add(path, 0)
        return max((name.last for _, name in found), default=-1) + 1

    def _path(self) -> str:
        assert self._source is not None
        return live_path(self._source, self._sequence)

    def _next_segment(self) -> None:
        self.folder.finish(self._path())
        self._sequence, self._schema = self._sequence + 1, None
        self._rows = self._batches = self._bytes = 0


@dataclass(frozen=True, slots=True)
class Task:
    """A segment that ended; without rows, the end of a series of segments with the same fields."""

    path: str
    rows: int
    nbytes: int

    @property
    def key(self) -> tuple[str, str]:
        """Frame and writer."""
        words = self.path.split("/")
        return words[1], words[3]


class Compactor:
    """Turns ended segments into history, in a thread of its own, so that rows never wait for it.

    A disk that refuses leaves segments as they are, readable.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._tasks: deque[Task] = deque()
        self._history: dict[tuple[str, str], str | None] = {}
        self._levels: dict[tuple[str, str], Levels] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, path: str, rows: int, nbytes: int = 0) -> None:
        """A segment ended: its rows, and what they take in memory."""
        self._queue(Task(path, rows, nbytes))

    def goes_on(self, key: tuple[str, str], history: str) -> None:
        """The newest history file of a frame and writer, left by an earlier process."""
        self._history[key] = history

    def end(self, path: str) -> None:
        """No segment like this one will follow."""
        if not self.folder.appends_cheaply:
            self._queue(Task(path, 0, 0))

    def _queue(self, task: Task) -> None:
        with self._change:
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trainvitals-compactor", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all is done, at most so long; False if something is left."""
        with self._change:
            return self._change.wait_for(lambda: not self._tasks, timeout=seconds)

    def stop(self) -> None:
        """Nothing more will come: the thread ends when it has done what waits."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    @property
    def waiting(self) -> int:
        """Tasks that are not done yet."""
        return len(self._tasks)

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._tasks) or self._stopped)
                if not self._tasks:
                    return
                task = self._tasks[0]
            try:
                self._merge(task) if not self.folder.appends_cheaply else self._compact(task)
            except (OSError, ValueError, pa.ArrowException) as error:
                self._history.pop(task.key, None)
                log.debug("segments of %s stay as they are for now: %s", task.path, error)
            with self._change:
                self._tasks.popleft()
                self._change.notify_all()

    def _compact(self, task: Task) -> None:
        before = self._history.get(task.key)
        self._history[task.key] = compact(self.folder, task.path, before) or before

    def _merge(self, task: Task) -> None:
        if task.rows:
            levels = self._levels.setdefault(task.key, Levels(self.folder))
            levels.add(task.path, task.rows, task.nbytes)
            levels.settle()
        elif task.key in self._levels:
            self._levels.pop(task.key).end()
