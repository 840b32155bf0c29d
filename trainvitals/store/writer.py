"""One process's half of the run store: rows go into memory, a background thread takes them to disk.

Appending a row copies numbers into a preallocated block and returns. The thread encodes full blocks, and every
`flush_seconds` the partial ones, as one `write()` each. When the disk does not take them, blocks wait in a bounded
queue; when that is full, rows are dropped and counted. Training never waits and never sees an error.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from trainvitals.card import RunCard
from trainvitals.catalogue import FIELDS, Field, custom_field
from trainvitals.errors import UsageError
from trainvitals.store.block import Block
from trainvitals.store.events import event_line
from trainvitals.store.folder import Folder, open_folder
from trainvitals.store.segment import Header
from trainvitals.store.sink import Sink

log = logging.getLogger("trainvitals")

QUEUE_BYTES = 64 << 20


class FrameWriter:
    """Takes the rows of one frame."""

    def __init__(self, owner: RunWriter, header: Header) -> None:
        self._owner = owner
        self._block = Block(header)
        self._lock = threading.Lock()
        self.sink = Sink(owner.folder)

    @property
    def header(self) -> Header:
        """Header of the rows that come next."""
        return self._block.header

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one row: numbers for scalar fields, arrays [*axes] for the others, NaN or 0 for what is missing.

        A name that the frame does not know becomes a new scalar field. Raises UsageError for a value that is not a
        number or has the wrong shape.
        """
        try:
            with self._lock:
                if not self._block.put(step, time.time(), values):
                    self._extend(self._block.unknown(values))
                    self._block.put(step, time.time(), values)
                full = self._block.rows == self._block.capacity
                if full:
                    self._hand_over()
        except (TypeError, ValueError) as error:
            raise UsageError(f"Step {step} of frame {self.header.frame!r} has a value that does not fit: {error}. "
                             "Scalars take a number, vectors an array of the axis' length.") from error
        if full:
            self._owner.wait_for_room()

    def hand_over(self) -> None:
        """Queue the rows so far."""
        with self._lock:
            self._hand_over()

    def restart(self, header: Header) -> None:
        """Continue under a new header (another attempt); rows so far are queued under the old one."""
        with self._lock:
            self._hand_over()
            self._block = Block(header)

    def _extend(self, names: Iterable[str]) -> None:
        self._hand_over()
        old = self._block.header
        self._block = Block(replace(old, fields=old.fields + tuple(custom_field(name) for name in names)))

    def _hand_over(self) -> None:
        if self._block.rows:
            self._owner.queue(self, self._block)
            self._block = Block(self._block.header)


class RunWriter:
    """Writes one rank's share of a run into a run folder.

    Args:
        path: run folder, a local path or an fsspec URL. Nothing is created before the first flush.
        rank, world_size: of this process in its job.
        start_step: the last step done before this process began; 0 for a fresh run. Rows that earlier attempts
            stored at later steps become a branch.
        flush_seconds: at most so much is lost when the process is killed.
        when_full: "drop" rows and count them when the disk does not keep up (training), or "wait" for it (importers).
    """

    def __init__(self, path: str | os.PathLike[str] | Folder, *, rank: int = 0, world_size: int = 1,
                 start_step: int = 0, flush_seconds: float = 2.0, when_full: Literal["drop", "wait"] = "drop") -> None:
        self.folder = open_folder(path)
        self.rank, self.world_size, self.flush_seconds, self.when_full = rank, world_size, flush_seconds, when_full
        self.dropped_rows = 0
        self._process = os.getpid()
        self._begin(start_step)
        self._frames: dict[str, FrameWriter] = {}
        self._queue: deque[tuple[FrameWriter, Block]] = deque()
        self._events: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        self._failing = False
        self._reported_drops = 0
        self._wake, self._room, self._work = threading.Event(), threading.Condition(), threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="trainvitals-writer", daemon=True)
        self._thread.start()
        self.event("started", step=start_step, message=f"rank {rank} of {world_size} on {socket.gethostname()}")

    def _begin(self, start_step: int) -> None:
        self.start_step, self.started = start_step, time.time()
        host = "".join(c for c in socket.gethostname() if c.isalnum() or c in "._")[:40] or "host"
        self.writer = f"{host}-{self.rank}-{os.getpid()}-{time.time_ns() // 1000}"

    def frame(self, name: str, fields: Iterable[str | Field], labels: Mapping[str, Iterable[str]] | None = None
              ) -> FrameWriter:
        """Open a frame. `fields` are catalogue names or Fields; `labels` names every axis that they use."""
        items = tuple(FIELDS[item] if isinstance(item, str) else item for item in fields)
        known = {axis: tuple(str(label) for label in names) for axis, names in (labels or {}).items()}
        missing = {axis for item in items for axis in item.axes} - set(known)
        if missing:
            raise UsageError(f"Frame {name!r} needs labels for the axes {sorted(missing)}.")
        header = Header(name, self.writer, self.rank, self.world_size, self.start_step, self.started, 0, items, known)
        self._frames[name] = FrameWriter(self, header)
        return self._frames[name]

    def event(self, kind: str, *, step: int | None = None, message: str = "", **data: Any) -> None:
        """Note something that a human would mark on the time axis."""
        line = {"time": time.time(), "step": step, "kind": kind, "message": message, "rank": self.rank,
                "world_size": self.world_size,
                "writer": self.writer, "started": self.started, "start_step": self.start_step, "data": data}
        self._events.append((f"events/{self.writer}.jsonl", event_line(line)))

    def write_card(self, card: RunCard) -> None:
        """Store the run card; an earlier one that differs is kept beside it."""
        try:
            text = card.to_json().encode()
            if "run.json" in self.folder.sizes():
                before = self.folder.read("run.json")
                if before != text:
                    self.folder.replace(f"cards/before-{self.writer}.json", before)
            self.folder.replace("run.json", text)
        except OSError as error:
            self._complain(error)

    def rewind(self, step: int) -> None:
        """This process went back to `step` (a rollback): later rows form a new attempt from there."""
        self.event("rollback", step=step, message=f"went back to step {step}")
        for frame in self._frames.values():
            frame.hand_over()
        self._begin(step)
        for frame in self._frames.values():
            frame.restart(replace(frame.header, writer=self.writer, start_step=step, started=self.started))
        self.event("started", step=step, message=f"rank {self.rank} of {self.world_size}, after a rollback")

    def flush(self) -> None:
        """Take everything so far to the folder, now and in this thread."""
        for frame in self._frames.values():
            frame.hand_over()
        self._drain()

    def close(self) -> None:
        """Flush, turn the segments into Parquet and end; calling it again does nothing."""
        if self._closed or os.getpid() != self._process:
            return  # a forked child has the parent's writer in memory, and must not end it
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=30)
        self.flush()
        for frame in self._frames.values():
            with self._work:
                frame.sink.end()
        self.event("closed", message="the writer ended in order")
        self._drain()

    def queue(self, frame: FrameWriter, block: Block) -> None:
        """Put a block in line for the disk; drops it, counted, if the line is too long and must not wait."""
        size = block.rows * block.row_bytes
        if self.when_full == "drop" and self._queued_bytes + size > QUEUE_BYTES and self._queue:
            self.dropped_rows += block.rows
            return
        with self._room:
            self._queue.append((frame, block))
            self._queued_bytes += size
        self._wake.set()

    def wait_for_room(self) -> None:
        """Block while the queue is full, if this writer was told to wait."""
        if self.when_full == "wait":
            with self._room:
                self._room.wait_for(lambda: self._queued_bytes <= QUEUE_BYTES // 4, timeout=60)

    def _run(self) -> None:
        deadline = time.monotonic() + self.flush_seconds
        while not self._closed:
            self._wake.wait(max(0.0, deadline - time.monotonic()))
            self._wake.clear()
            if time.monotonic() >= deadline:
                for frame in list(self._frames.values()):
                    frame.hand_over()
                deadline = time.monotonic() + self.flush_seconds
                self._drain()
            elif not self._failing:
                self._drain()

    def _drain(self) -> None:
        with self._work:
            try:
                while self._queue:
                    frame, block = self._queue[0]
                    frame.sink.write(block)
                    with self._room:
                        self._queue.popleft()
                        self._queued_bytes -= block.rows * block.row_bytes
                        self._room.notify_all()
                if self.dropped_rows > self._reported_drops:
                    self.event("rows_dropped", message=f"{self.dropped_rows} rows dropped: the disk did not keep up",
                               rows=self.dropped_rows)
                    self._reported_drops = self.dropped_rows
                while self._events:
                    self.folder.append(*self._events[0])
                    self._events.popleft()
                self.folder.beat(str(self.rank))
                self._failing = False
            except OSError as error:
                self._complain(error)
            except Exception as error:  # noqa: BLE001 - an encoding fault must not end the thread that keeps the rest
                self._complain(error)
                if self._queue:
                    with self._room:
                        _, block = self._queue.popleft()
                        self._queued_bytes -= block.rows * block.row_bytes
                        self.dropped_rows += block.rows

    def _complain(self, error: Exception) -> None:
        if not self._failing:
            log.warning("trainvitals cannot write to %s (%s). Training goes on; rows wait in memory, then are dropped "
                        "and counted. Free the disk or make the folder writable.", self.folder, error)
        self._failing = True
