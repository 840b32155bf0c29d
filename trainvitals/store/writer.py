"""One process's half of the run store: rows go into memory, a background thread takes them to disk.

Appending a row copies numbers into a preallocated block and returns. `Disk` encodes full blocks as they come, and the
partial ones before `flush_seconds` are over, as one `write()` each. When the disk does not take them, blocks wait in a
bounded queue; when that is full, rows are dropped and counted. Training never waits and never sees an error: nothing
that it calls touches the folder.
"""

from __future__ import annotations

import operator
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainvitals.card import RunCard
from trainvitals.catalogue import FIELDS, Field, custom_field, own_name
from trainvitals.errors import UsageError
from trainvitals.store.block import COLUMNAR_ROWS, Block
from trainvitals.store.claims import Claim, launch_of
from trainvitals.store.disk import Disk
from trainvitals.store.eventlog import cut, plain
from trainvitals.store.folder import Folder, open_folder
from trainvitals.store.samplekinds import Taken
from trainvitals.store.samplelog import SAMPLES
from trainvitals.store.segment import RESERVED, Header

if TYPE_CHECKING:
    from trainvitals.store.own import OwnNumbers

STEP_LIMIT = 2**62
"""Steps of readers are below this."""


FLUSH_SECONDS = 2.0
FLUSHES_PER_SECOND = 50.0
"""Of all ranks of a job on an object store, which bills every request and answers a bounded number of them."""
FLUSH_VARIABLE = "TRAINVITALS_FLUSH_SECONDS"


def flush_interval(folder: Folder, world_size: int) -> float:
    """How often a writer flushes unless it is told otherwise, seconds.

    What the environment variable `TRAINVITALS_FLUSH_SECONDS` says; else 2, and on a store that cannot append a second
    more for every 50 ranks above 100. Raises UsageError where the variable is no number above 0.
    """
    text = os.environ.get(FLUSH_VARIABLE, "")
    if not text:
        return FLUSH_SECONDS if folder.appends_cheaply else max(FLUSH_SECONDS, world_size / FLUSHES_PER_SECOND)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{FLUSH_VARIABLE} is {text[:40]!r}, not a number of seconds above 0.")
    return seconds


def whole_step(step: Any) -> int | None:
    """A step as a whole number that readers take; None for anything else."""
    try:
        at = operator.index(step)
    except TypeError:
        return None
    return at if abs(at) < STEP_LIMIT else None


class FrameWriter:
    """Takes the rows of one frame."""

    def __init__(self, owner: RunWriter, header: Header) -> None:
        self._owner = owner
        self._keys: dict[str, str] = {}
        self._block = Block(header, self._keys)
        self._lock = threading.Lock()

    @property
    def header(self) -> Header:
        """Header of the rows that come next."""
        return self._block.header

    def append(self, step: int, values: Mapping[str, Any], now: float | None = None) -> None:
        """Add one row: numbers for scalar fields, arrays [*axes] for the others, None for what is missing.

        `now` is when it was measured, in seconds since 1970; None is now.

        A name that the frame does not know becomes a new scalar field; where ours have that name already it is stored
        as `custom/<name>`, see `own_name`. Raises UsageError for a value that is not a number or has the wrong shape,
        and after `close`.
        """
        if self._owner.closed:
            raise UsageError(f"The writer of {self._owner.folder} is closed: step {step} of frame "
                             f"{self.header.frame!r} cannot be stored. Append before close().")
        try:
            now = time.time() if now is None else now
            with self._lock:
                if not self._block.put(step, now, values):
                    self._widen(self._block.unknown(values))
                    self._block.put(step, now, values)
                full = self._block.rows == self._block.capacity
                if full:
                    self._hand_over()
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"Step {step} of frame {self.header.frame!r} has a value that does not fit: {error}. "
                             "Scalars take a number, vectors an array of the axis' length.") from error
        if full:
            self._owner.disk.wait_for_room()

    def extend(self, steps: NDArray[np.int64], times: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows column by column, with times of their own: what an importer of a million rows needs.

        Args:
            steps: of every row [n].
            times: Unix seconds; NaN where nobody knows [n].
            columns: as the names of `append`: [n], or [n, *axes]; `formulas.MISSING` where a row has no value.

        Raises:
            UsageError: as `append`.
        """
        if self._owner.closed:
            raise UsageError(f"The writer of {self._owner.folder} is closed: rows of frame {self.header.frame!r} "
                             "cannot be stored. Extend before close().")
        try:
            with self._lock:
                self._hand_over()
                if new := self._block.unknown(columns):
                    self._widen(new)
        except (TypeError, ValueError) as error:
            raise UsageError(f"Frame {self.header.frame!r} cannot take these columns: {error}.") from error
        start = 0
        while start < len(steps):
            block = Block(self.header, self._keys, COLUMNAR_ROWS)
            part = slice(start, start + block.capacity)
            try:
                block.fill(steps[part], times[part], {name: column[part] for name, column in columns.items()})
            except (TypeError, ValueError) as error:
                raise UsageError(f"Rows of frame {self.header.frame!r} do not fit: {error}.") from error
            self._owner.disk.put(self.header.frame, block)
            self._owner.disk.wait_for_room()
            start = part.stop

    def hand_over(self) -> None:
        """Queue the rows so far."""
        with self._lock:
            self._hand_over()

    def restart(self, header: Header) -> None:
        """Continue under a new header (another attempt); rows so far are queued under the old one."""
        with self._lock:
            self._hand_over()
            self._block = Block(header, self._keys)

    def _widen(self, names: Iterable[str]) -> None:
        old = self._block.header
        taken = self._block.columns
        fields = {name: custom_field(own_name(name, taken)) for name in names}
        self._hand_over()
        self._keys |= {field.name: name for name, field in fields.items()}
        self._block = Block(replace(old, fields=old.fields + tuple(fields.values())), self._keys)

    def _hand_over(self) -> None:
        if self._block.rows:
            self._owner.disk.put(self.header.frame, self._block)
            self._block = Block(self._block.header, self._keys)


@dataclass(frozen=True, slots=True)
class Continued:
    """Where a writer ended, so that a later process goes on as the same one: an importer at its next look.

    To readers the two are one writer of one attempt, and no resume of the training.
    """

    claim: str
    """Path of its claim in the run folder."""
    writer: str
    started: float
    start_step: int
    rewinds: int


class RunWriter:
    """Writes one rank's share of a run into a run folder.

    Args:
        path: run folder, a local path or an fsspec URL. Nothing is created before the first flush.
        rank, world_size: of this process in its job.
        start_step: the last step done before this process began; 0 for a fresh run. Rows that earlier attempts
            stored at later steps become a branch.
        flush_seconds: when the process is killed, rows older than this are with the operating system or the store, but
            for the time of one write. None: see `flush_interval`.
        when_full: "drop" rows and count them when the disk does not keep up (training), or "wait" for it (importers).
        goes_on: the writer that this one continues; only of rank 0, and only once that one has ended.
    """

    def __init__(self, path: str | os.PathLike[str] | Folder, *, rank: int = 0, world_size: int = 1,
                 start_step: int = 0, flush_seconds: float | None = None,
                 when_full: Literal["drop", "wait"] = "drop", goes_on: Continued | None = None) -> None:
        self.folder = open_folder(path)
        self.rank, self.world_size = rank, world_size
        self.flush_seconds = flush_interval(self.folder, world_size) if flush_seconds is None else flush_seconds
        self.launch = launch_of(os.environ)
        self.closed = False
        self.own: OwnNumbers | None = None
        """What takes the numbers of the script's own, from its first one on."""
        self._rewinds = 0
        self._process = os.getpid()
        self._frames: dict[str, FrameWriter] = {}
        mine = Claim.parse(goes_on.claim) if goes_on is not None else None
        if goes_on is not None and mine is not None:
            self.writer, self.started, self.start_step = goes_on.writer, goes_on.started, goes_on.start_step
            self.launch, self._rewinds = mine.launch, goes_on.rewinds
            self.disk = Disk(self.folder, mine, self.flush_seconds, when_full == "wait", self._hand_over,
                             goes_on=self.writer)
        else:
            self._begin(start_step)
            mine = Claim(0, self.launch, world_size, start_step, self.writer)
            self.disk = Disk(self.folder, mine, self.flush_seconds, when_full == "wait", self._hand_over)
            self._introduce(f"rank {rank} of {world_size} on {socket.gethostname()}")
        self.disk.start()

    @property
    def continued(self) -> Continued | None:
        """How another process goes on as this writer; None before the first flush that the folder took."""
        claim = self.disk.claim
        if not claim.attempt:
            return None
        return Continued(claim.path, self.writer, self.started, self.start_step, self._rewinds)

    def _begin(self, start_step: int) -> None:
        self.start_step, self.started = start_step, time.time()
        host = "".join(c for c in socket.gethostname() if c.isalnum() or c in "._")[:40] or "host"
        self.writer = f"{host}-{self.rank}-{os.getpid()}-{time.time_ns() // 1000}"

    def _introduce(self, message: str) -> None:
        line = self._line("started", self.start_step, message)
        self.disk.introduce(f"events/{self.writer}.jsonl", line | {
            "data": {"attempt": self.disk.claim.attempt, "rewind": self._rewinds, "launch": self.launch,
                     "flush_seconds": self.flush_seconds, "clock_ahead": self.disk.clock_ahead}})

    @property
    def dropped_rows(self) -> int:
        """Rows that found no room in memory while the disk did not take any."""
        return self.disk.dropped_rows

    def frame(self, name: str, fields: Iterable[str | Field], labels: Mapping[str, Iterable[str]] | None = None
              ) -> FrameWriter:
        """Open a frame. `fields` are catalogue names or Fields; `labels` names every axis that they use.

        Raises UsageError for an axis without labels, and for a field with a name that every frame has.
        """
        items = tuple(FIELDS[item] if isinstance(item, str) else item for item in fields)
        known = {axis: tuple(str(label) for label in names) for axis, names in (labels or {}).items()}
        missing = {axis for item in items for axis in item.axes} - set(known)
        if missing:
            raise UsageError(f"Frame {name!r} needs labels for the axes {sorted(missing)}.")
        taken = sorted(RESERVED & {item.name for item in items})
        if taken:
            raise UsageError(f"Frame {name!r} has a field {taken[0]!r}, which every frame has already. Rename it.")
        header = Header(name, self.writer, self.rank, self.world_size, self.start_step, self.started, 0, items, known,
                        rewind=self._rewinds, launch=self.launch)
        if name in self._frames:
            self._frames[name].hand_over()
        self._frames[name] = FrameWriter(self, header)
        return self._frames[name]

    def event(self, kind: str, *, step: int | None = None, message: str = "", **data: Any) -> None:
        """Note something that a human would mark on the time axis. Long texts and large data are cut, with a mark."""
        at = whole_step(step)
        if at is None and step is not None:
            data["step"] = step
        self._add_event(self._line(kind, at, message) | {"data": plain(data)})

    def past_event(self, kind: str, step: int | None, message: str, time: float | None, data: Mapping[str, Any]
                   ) -> None:
        """Note what happened earlier, as an imported log tells it; `time` in Unix seconds, None where it does not."""
        line = self._line(kind, step, message) | {"data": plain(data)}
        self._add_event(line if time is None else line | {"time": time})

    def _add_event(self, line: dict[str, Any]) -> None:
        self.disk.events.add(f"events/{self.writer}.jsonl", line)

    def sample(self, kind: str, name: str, taken: Taken, *, step: int | None = None) -> None:
        """Store a text, table, histogram or image (`trainvitals.store.samplekinds`); the disk's thread encodes it."""
        head = {"time": time.time(), "step": whole_step(step), "kind": kind, "name": name, "rank": self.rank,
                "writer": self.writer}
        self.disk.samples.add(f"{SAMPLES}/{self.writer}.jsonl", head, taken)
        if self.disk.samples.crowded and self.disk.keep_all:
            self.flush()

    def _line(self, kind: str, step: int | None, message: str) -> dict[str, Any]:
        return {"time": time.time(), "step": step, "kind": cut(str(kind), 100), "message": cut(str(message)),
                "rank": self.rank, "world_size": self.world_size, "writer": self.writer, "started": self.started,
                "start_step": self.start_step}

    def write_card(self, card: RunCard) -> None:
        """Store the run card at the next flush; an earlier one that differs is kept beside it."""
        self.disk.put_card(card.to_json().encode())

    def rewind(self, step: int, message: str = "") -> None:
        """This process went back to `step` (a rollback): later rows form a new attempt from there.

        Raises UsageError for what is no step.
        """
        if whole_step(step) is None:
            raise UsageError(f"A run goes back to a whole number of steps, not to {step!r:.80}.")
        self.event("rollback", step=step, message=message or f"went back to step {step}")
        self._hand_over()
        self._rewinds += 1
        self._begin(step)
        for frame in self._frames.values():
            frame.restart(replace(frame.header, writer=self.writer, start_step=step, started=self.started,
                                  rewind=self._rewinds))
        self._introduce(f"rank {self.rank} of {self.world_size}, after a rollback")

    def flush(self) -> bool:
        """Have everything so far written, and wait for it at most 10 s. False if the disk did not take it all."""
        return self.disk.flush()

    def close(self, *, run_ended: bool = True) -> None:
        """Flush, turn the segments into Parquet and end; calling it again does nothing.

        `run_ended`: the run is over, and not only this process's part in writing it.

        Returns within 10 s (`disk.CLOSE_SECONDS`), whatever the disk does; what it did not take is counted in the log.
        """
        if self.closed or os.getpid() != self._process:
            return  # a forked child has the parent's writer in memory, and must not end it
        self.closed = True
        self._hand_over()
        self.disk.close((lambda: self.event("closed", message="the writer ended in order")) if run_ended else
                        lambda: None)

    def _hand_over(self) -> None:
        for frame in list(self._frames.values()):
            frame.hand_over()
