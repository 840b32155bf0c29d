"""Processes that write a run until they are killed, and how old the rows were that went with them.

Every row carries its step; when each was appended stands in memory that the killer shares, on the monotonic clock that
all processes of a machine have in common. So the age of a lost row at the moment of the kill is exact.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainvitals.catalogue import custom_field
from trainvitals.errors import RunNotFound
from trainvitals.store import RunWriter, open_run, sink

STEPS = 200_000
BEAT_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class Kill:
    """What one kill cost."""

    appended: int
    """Rows that the process had appended."""
    stored: int
    """Rows that a reader finds."""
    oldest_lost: float
    """Seconds from the append of the oldest lost row to the kill; 0 without one."""
    stall: float
    """Longest time in which the loop itself did not get to run in that window, seconds: the machine's, not ours."""
    in_order: bool
    """Whether the rows that are found are the first ones, each as it was appended."""


class Victim:
    """A forked process that appends rows as fast as a small loop does."""

    def __init__(self, path: Path, flush_seconds: float, compact_seconds: float = 0.0, start: int = 0) -> None:
        self.path, self.start = path, start
        self._memory = mmap.mmap(-1, 8 * (STEPS + 1))
        self.stamps = np.frombuffer(self._memory, np.float64)
        self._process = multiprocessing.get_context("fork").Process(
            target=_write, args=(str(path), self.stamps, flush_seconds, compact_seconds, start), daemon=True)
        self._process.start()

    def kill(self, wait: Callable[[], None]) -> Kill:
        """Kill it a while after its first row; `wait` sleeps that while."""
        while not self.stamps[1] and self._process.is_alive():
            time.sleep(0.001)
        wait()
        at = time.monotonic()
        os.kill(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        appended = int(np.flatnonzero(self.stamps[: self._last() + 1])[-1])
        times = np.append(self.stamps[1:appended + 1], at)
        found = _found(self.path, self.start)
        in_order = bool((found == np.arange(1, len(found) + 1)).all())
        lost = times[len(found):]
        age = max(0.0, at - lost[0]) if len(found) < appended else 0.0
        return Kill(appended, len(found), age, float(np.diff(lost).max()) if len(lost) > 1 else 0.0, in_order)

    def _last(self) -> int:
        return int(np.count_nonzero(self.stamps))


def _found(path: Path, start: int) -> np.ndarray:
    """Steps after `start` that a reader finds, counted from there; the value of each row is its step."""
    try:
        run = open_run(path)
    except RunNotFound:  # killed before its first flush
        return np.empty(0, np.int64)
    if not run.has("x/step"):
        return np.empty(0, np.int64)
    stored = run.array("x/step")
    assert (stored.values == stored.steps).all()
    return np.asarray(stored.steps[stored.steps > start] - start)


def _write(path: str, stamps: np.ndarray, flush_seconds: float, compact_seconds: float, start: int) -> None:
    if compact_seconds:
        real = sink.compact

        def slow(*args: object) -> object:
            time.sleep(compact_seconds)
            return real(*args)  # type: ignore[arg-type]

        sink.compact, sink.SEGMENT_BATCHES = slow, 3  # type: ignore[assignment]
    writer = RunWriter(path, start_step=start, flush_seconds=flush_seconds)
    frame = writer.frame("x", [custom_field("x/step")])
    for n in range(1, STEPS):
        stamps[n] = time.monotonic()
        frame.append(start + n, {"x/step": float(start + n)})
        time.sleep(BEAT_SECONDS)
