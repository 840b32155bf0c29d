"""The thread that takes a writer's rows, events and card to the run folder, so that training never meets the disk.

Twice per flush interval it collects what the frames hold and writes it. So a row is with the operating system at the
latest `flush_seconds` after it was appended, plus the time of the writes under way; nothing else happens in this
thread (segments become history in `Compactor`'s). What the folder does not take waits in bounded queues; when those
are full it is dropped and counted, and the count is an event as soon as the folder takes one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from trainvitals.errors import TrainVitalsError
from trainvitals.store.block import Block
from trainvitals.store.claims import CLAIMS, Claim, all_claims, claim, newer_of_same_rank
from trainvitals.store.eventlog import EventLog
from trainvitals.store.folder import Folder
from trainvitals.store.samplelog import SampleLog
from trainvitals.store.sink import Compactor, Sink

log = logging.getLogger("trainvitals")

QUEUE_BYTES = 64 << 20
"""Rows in memory while the disk does not take them; more are dropped, or waited for."""
CLOSE_SECONDS = 10.0
"""Closing, and a flush that somebody asks for, wait so long for the disk, all in all. Closing a writer that must not
drop rows waits on while something is written."""
RETRY_SECONDS = 2.0
"""How long closing asks a disk again that refuses."""
PATIENCE_SECONDS = 60.0
"""A writer that must not drop rows gives up when the disk took nothing for so long."""
LATE_SECONDS = 5.0
"""Rows that come so much later than promised are named in an event."""
SAMPLE_SECONDS, LAST_SAMPLE_SECONDS = 0.25, 5.0
"""Encoding of images and the like may keep rows waiting for so long at a time, and the end of the writer."""
RELIST_SECONDS = {True: 30.0, False: 300.0}
"""How often the claims are listed though the folder does not show that they changed, by whether it appends cheaply: of
an object store, a thousand ranks would otherwise ask for them all day."""
CLOCK_TOLERANCE_SECONDS = 5.0
"""A host's clock may differ so much from the file system's; NTP keeps them within milliseconds."""


class Disk:
    """One writer's way to its folder. Every method but `_run` and what it calls may be called while training waits."""

    def __init__(self, folder: Folder, mine: Claim, flush_seconds: float, keep_all: bool,
                 collect: Callable[[], None], goes_on: str = "") -> None:
        """`goes_on`: the writer of an earlier process as which this one goes on."""
        self.folder, self.claim, self.keep_all = folder, mine, keep_all
        self.events = EventLog()
        self.samples = SampleLog(self._refused)
        self.dropped_rows = 0
        self._collect, self._goes_on = collect, goes_on
        self._period = flush_seconds / 2 if folder.appends_cheaply else flush_seconds
        self._late_after = flush_seconds + LATE_SECONDS
        self._queue: deque[tuple[str, Block]] = deque()
        self._queued_bytes = 0
        self._sinks: dict[str, Sink] = {}
        self._compactor = Compactor(folder)
        self._card: bytes | None = None
        self._card_due = self._card_kept = False
        self._introduction: tuple[str, dict[str, Any]] | None = None
        self._taken = 0
        self.clock_ahead: float | None = None
        """Seconds by which this host's clock is ahead of the file system's."""
        self._told = {"dropped": 0, "events": 0, "gone": 0, "samples": 0}
        self._failing = self._late = False
        self._stamp: object = None
        self._listed_at = 0.0
        self._rivals: dict[str, tuple[Claim, float]] = {}
        self._wake, self._room, self._ended = threading.Event(), threading.Condition(), threading.Event()
        self._asked = self._answered = 0
        self._closing = False
        self._last_words: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="trainvitals-writer", daemon=True)

    def start(self) -> None:
        """Begin; nothing touches the folder before."""
        self._thread.start()

    # ---- for the training thread: nothing here waits for a disk, unless it was told to ---------------------------

    def put(self, frame: str, block: Block) -> None:
        """Put a block in line; drops it, counted, if the line is too long and must not be waited for."""
        size = block.rows * block.row_bytes
        with self._room:
            if not self.keep_all and self._queued_bytes + size > QUEUE_BYTES and self._queue:
                self.dropped_rows += block.rows
                return
            self._queue.append((frame, block))
            self._queued_bytes += size
        self._wake.set()

    def wait_for_room(self) -> None:
        """Block while the line is long, if no row may be dropped. Raises TrainVitalsError if the disk takes nothing."""
        if not self.keep_all:
            return
        with self._room:
            while self._queued_bytes > QUEUE_BYTES // 4:
                before = self._taken
                if not self._room.wait_for(partial(self._took_more_than, before), timeout=PATIENCE_SECONDS):
                    raise TrainVitalsError(f"{self.folder} took no data for {PATIENCE_SECONDS:g} s. Free the disk, or "
                                           "write elsewhere.")

    def _took_more_than(self, blocks: int) -> bool:
        return self._taken > blocks

    def introduce(self, path: str, line: dict[str, Any]) -> None:
        """The event that a writer begins with; it is told again when the folder has to be made anew."""
        self._introduction = path, line
        self.events.add(path, line)

    def put_card(self, text: bytes) -> None:
        """Store the run card at the next write."""
        self._card, self._card_due = text, True
        self._wake.set()

    def flush(self) -> bool:
        """Wait until everything so far was offered to the folder, at most `CLOSE_SECONDS`; whether it took it all."""
        with self._room:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            # Whoever has ended answers nobody.
            done = self._ended.is_set() or self._room.wait_for(lambda: self._answered >= mine, timeout=CLOSE_SECONDS)
        return done and not (self._queue or self.events or self._card_due or self.samples)

    def takes(self) -> bool:
        """Whether the folder took all that it was offered last."""
        return not self._failing

    def close(self, last_words: Callable[[], None]) -> None:
        """Write what is left and end, within `CLOSE_SECONDS`; what the folder does not take is counted in the log."""
        self._last_words = last_words
        self._closing = True
        self._wake.set()
        deadline = time.monotonic() + CLOSE_SECONDS
        seen = self._taken, self._compactor.waiting
        while not self._ended.wait(min(0.5, max(0.0, deadline - time.monotonic()))):
            if self.keep_all and seen != (self._taken, self._compactor.waiting):
                seen, deadline = (self._taken, self._compactor.waiting), time.monotonic() + CLOSE_SECONDS
            if time.monotonic() >= deadline:
                break
        left = sum(block.rows for _, block in list(self._queue))
        untold = self.dropped_rows > self._told["dropped"] or self.events.dropped > self._told["events"]
        if left or untold or self.events or self.samples:
            log.warning("trainvitals ended without its disk: %s did not take %s rows, %s events and %s samples (%s "
                        "rows were dropped before). They are not in the record.", self.folder, f"{left:,}",
                        f"{len(self.events) + self.events.dropped:,}", f"{len(self.samples):,}",
                        f"{self.dropped_rows:,}")

    # ---- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        deadline = time.monotonic() + self._period
        while not self._closing:
            self._wake.wait(max(0.0, deadline - time.monotonic()))
            self._wake.clear()
            asked = self._asked
            if time.monotonic() >= deadline or asked > self._answered:
                deadline = time.monotonic() + self._period
                self._collect()
                self._drain()
                if asked > self._answered:
                    self._finish_samples()
                with self._room:
                    self._answered = asked
                    self._room.notify_all()
            elif not self._failing:
                self._drain()
        self._finish()

    def _finish(self) -> None:
        deadline = time.monotonic() + RETRY_SECONDS
        self._collect()
        self._drain()
        while self._failing and time.monotonic() < deadline:
            time.sleep(0.2)
            self._drain()
        self._finish_samples()
        for sink in self._sinks.values():
            sink.end()
        if not self._queue:
            self._last_words()
            self._drain()
        with self._room:
            self._answered = self._asked
            self._room.notify_all()
        self._compactor.stop()
        while self._compactor.waiting and not self._compactor.wait(PATIENCE_SECONDS):
            continue  # whoever closes has stopped waiting long before
        self._offered(self._beat)
        if self._introduction is not None:
            self.folder.finish(self._introduction[0])
        self._ended.set()

    def _drain(self) -> None:
        """Offer everything to the folder; what it refuses stays, and does not keep it from the rest."""
        errors = [self._offered(self._take_number)] if not self.claim.attempt else []
        if not any(errors):
            errors = [self._offered(step) for step in (
                self._look_around, self._write_rows, self._write_samples, self._tell_losses, self._write_events,
                self._write_card, self._beat)]
        error = next((error for error in errors if error is not None), None)
        if error is not None and not self._failing:
            log.warning("trainvitals cannot write to %s (%s). Training goes on; rows wait in memory, then are dropped "
                        "and counted. Free the disk or make the folder writable.", self.folder, error)
        self._failing = error is not None

    def _offered(self, step: Callable[[], None]) -> Exception | None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - nothing may end the thread that keeps the rest
            return error
        return None

    def _write_samples(self) -> None:
        if self.samples.write(self.folder, SAMPLE_SECONDS):
            self._wake.set()

    def _finish_samples(self) -> None:
        """Write those that wait, for a bounded time: at the end, and where somebody waits for a flush."""
        deadline = time.monotonic() + LAST_SAMPLE_SECONDS
        while self.samples and not self._failing and (time.monotonic() < deadline or self.keep_all):
            self._drain()
        if self._closing:
            self.samples.give_up("the disk did not take them before the end")

    def _refused(self, head: dict[str, Any], why: str) -> None:
        self._event("sample_refused", f"The {head['kind']} logged as {head['name'][:100]!r} is not stored: {why}",
                    name=head["name"])
        log.warning("trainvitals: the %s logged as %.100r is not stored: %s. Training goes on.", head["kind"],
                    head["name"], why)

    def _write_events(self) -> None:
        self.events.write(self.folder)

    def _beat(self) -> None:
        self.folder.beat(str(self.claim.rank))

    def _take_number(self) -> None:
        began = time.time()
        self.claim = claim(self.folder, self.claim)
        spent = time.time() - began
        modified = self.folder.times(CLAIMS).get(self.claim.path)
        self.clock_ahead = ahead = None if modified is None else began - modified
        self.events.stamp("started", attempt=self.claim.attempt, clock_ahead=ahead)
        if ahead is not None and abs(ahead) > CLOCK_TOLERANCE_SECONDS + abs(spent):
            word = "ahead of" if ahead > 0 else "behind"
            self._event("clock_offset", f"The clock of {self.claim.host} is {abs(ahead):,.0f} s {word} that of the run "
                        "folder's file system: times of its rows and events are off by as much",
                        seconds=round(ahead, 1), host=self.claim.host)

    def _look_around(self) -> None:
        """Is the folder still the one that we began, and does nobody else write our rank?"""
        stamp, now = self.folder.stamp(CLAIMS), time.monotonic()
        again = self._listed_at + RELIST_SECONDS[self.folder.appends_cheaply] if self._listed_at else now
        if stamp == self._stamp and now < again:
            return
        found = all_claims(self.folder)
        self._stamp, self._listed_at = stamp, now
        if self.claim.path not in {other.path for other in found} and self._is_gone():
            self._begin_anew()
        for other in newer_of_same_rank(self.claim, found):
            self._rivals.setdefault(other.writer, (other, time.time()))

    def _is_gone(self) -> bool:
        try:
            self.folder.read(self.claim.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        return False

    def _begin_anew(self) -> None:
        self.folder.replace(self.claim.path, b"")
        process = "-".join(self.claim.writer.split("-")[:3])
        if any(f"{process}-" in path for path in self.folder.sizes("frames")):
            return  # somebody took the claims alone
        rows = sum(sink.begin_anew() for sink in self._sinks.values())
        self._stamp, self._card_due = None, self._card is not None
        message = (f"The run folder was deleted, moved or unmounted while rank {self.claim.rank} wrote: its {rows:,} "
                   "rows so far are not here. The folder was made anew")
        log.warning("trainvitals: %s (%s).", message, self.folder)
        if self._introduction is not None:
            self.folder.finish(self._introduction[0])
            self.events.add(*self._introduction, always=True)
        self._event("folder_lost", message, rows=rows)

    def _write_card(self) -> None:
        if not self._card_due or self._card is None:
            return
        text, self._card_due = self._card, False
        try:
            with contextlib.suppress(FileNotFoundError):
                before = self.folder.read("run.json")
                if before != text and not self._card_kept:  # what follows are versions of this writer's own
                    self.folder.replace(f"cards/before-{self.claim.writer}.json", before)
            self.folder.replace("run.json", text)
            self._card_kept = True
        except OSError:
            self._card_due = True
            raise

    def _write_rows(self) -> None:
        while self._queue:
            frame, block = self._queue[0]
            sink = self._sinks.get(frame)
            if sink is None:
                sink = self._sinks[frame] = Sink(self.folder, self._compactor, self._goes_on)
            try:
                sink.write(block, self.claim.attempt)
            except OSError:
                raise
            except Exception:  # a block that cannot be encoded would never be
                self.dropped_rows += block.rows
                self._take_off()
                raise
            self._take_off()
            self._tell_rivals(block)
            self._tell_late(time.monotonic() - block.born)

    def _take_off(self) -> None:
        with self._room:
            _, block = self._queue.popleft()
            self._queued_bytes -= block.rows * block.row_bytes
            self._taken += 1
            self._room.notify_all()

    # ---- what the record must say of itself ---------------------------------------------------------------------

    def _event(self, kind: str, message: str, **data: Any) -> None:
        if self._introduction is not None:
            path, line = self._introduction
            self.events.add(path, line | {"time": time.time(), "step": None, "kind": kind, "message": message,
                                          "data": data}, always=True)

    def _tell_losses(self) -> None:
        if self.dropped_rows > self._told["dropped"]:
            self._event("rows_dropped", f"{self.dropped_rows} rows dropped: the disk did not keep up",
                        rows=self.dropped_rows)
            self._told["dropped"] = self.dropped_rows
        if self.events.dropped > self._told["events"]:
            self._event("events_dropped", f"{self.events.dropped:,} events dropped: the disk did not keep up",
                        events=self.events.dropped)
            self._told["events"] = self.events.dropped
        lost = dict(self.samples.lost)
        total, told = sum(lost.values()), self._told["samples"]
        if total > (told if self._closing else 2 * told):  # a script that logs on at every step is told of now and then
            for reason, count in lost.items():
                self._event("samples_dropped", f"{count:,} texts, tables, histograms or images are not stored: "
                            f"{reason}", samples=count)
            self._told["samples"] = total
        gone = sum(sink.lost for sink in self._sinks.values())
        if gone > self._told["gone"]:
            self._event("rows_gone", f"Files of rank {self.claim.rank} were taken away while it wrote them, and "
                        f"{gone:,} rows with them", rows=gone)
            log.warning("trainvitals: files were taken out of %s while they were written, %s rows with them.",
                        self.folder, f"{gone:,}")
            self._told["gone"] = gone

    def _tell_rivals(self, block: Block) -> None:
        """Rows that were appended after we saw a newer writer of our rank: two jobs write one run."""
        for name, (other, noticed) in list(self._rivals.items()):
            if noticed and block.times[block.rows - 1] > noticed:
                self._event("overlap", f"Two jobs write rank {self.claim.rank} of this run at once: {self.claim.who} "
                            f"and {other.who}", first=self.claim.writer, second=other.writer)
                self._rivals[name] = other, 0.0

    def _tell_late(self, age: float) -> None:
        late = age > self._late_after
        if late and not self._late:
            self._event("rows_late", f"The disk kept rows waiting for {age:,.1f} s: a kill in that time would have "
                        "lost them", seconds=round(age, 1))
        self._late = late
