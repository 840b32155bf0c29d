"""Everything the board reads from run folders: shared between viewers, kept by store version, bounded.

One open `Run` per path serves all viewers under a lock. What was read is kept until the run's version changes, so an
idle run costs one directory listing per second and N viewers cost as much as one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from dashboard.server.runs import runs_below as runs_below
from trainvitals import formulas
from trainvitals.card import RunCard
from trainvitals.catalogue import SIGNALS
from trainvitals.errors import TrainVitalsError
from trainvitals.store import Run, open_run

REFRESH_SECONDS = 1.0
"""A run's folder is listed at most this often, however many viewers ask."""

MOST_RUNS, MOST_READS = 32, 200
"""Open runs of a server, and reads kept per run: about 30 kB each."""

LONG_STEPS, PREFIX_PARTS = 50_000, 32
"""In a live run longer than this, all but the newest 1/32 to 1/16 of the steps is read once, not at every change."""

COLUMNS = ["step", "last_step", "label", "value", "lo", "hi", "nonfinite"]
Steps = tuple[int, int] | None
Counts = tuple[formulas.Array, tuple[tuple[str, ...], ...], int, int]
"""Counts [*axes], the labels of every axis, first and last step."""

UNREADABLE = "This run cannot be read: a file of it is damaged in a way that the reader does not know. The server's " \
    "log has the details."

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a run right now; `error` says why nothing is."""

    path: str
    name: str = ""
    version: str = ""
    status: str = "unknown"
    told_by: str = ""
    """What the status was told by."""
    first_step: int | None = None
    last_step: int | None = None
    last_time: float | None = None
    """Unix time of the newest row, seconds."""
    card: RunCard = field(default_factory=RunCard)
    problems: tuple[str, ...] = ()
    error: str = ""

    @property
    def empty(self) -> bool:
        return self.last_step is None


class Shared:
    """One open run for all viewers."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._run: Run | None = None
        self._snapshot = Snapshot(path)
        self._checked = -REFRESH_SECONDS
        self._kept: OrderedDict[Hashable, tuple[str, object]] = OrderedDict()

    def poll(self) -> Snapshot:
        """The newest state; looks at the folder at most every `REFRESH_SECONDS`."""
        with self._lock:
            if time.monotonic() - self._checked >= REFRESH_SECONDS:
                self._snapshot = self._look()
                self._checked = time.monotonic()
            return self._snapshot

    def _look(self) -> Snapshot:
        try:
            if self._run is None:
                self._run = open_run(self.path)
            run = self._run
            run.refresh()
        except (TrainVitalsError, OSError) as error:
            self._run = None
            return Snapshot(self.path, name=_last_part(self.path), error=str(error))
        except Exception:  # one broken run must not take the board from the others
            log.exception("The run %s cannot be read", self.path)
            self._run = None
            return Snapshot(self.path, name=_last_part(self.path), error=UNREADABLE)
        told = run.liveness
        return Snapshot(
            self.path, run.name, run.version, told.status, told.reason, run.first_step, run.last_step, run.last_time,
            run.card, tuple(run.problems()),
        )  # fmt: skip

    def read(self, key: Hashable, make: Callable[[Run], T], *, valid: str | None = None) -> T:
        """What `make` gives for the run, kept under `key` until the version (or `valid`, if given) changes.

        Readers share the value and must not change it.
        """
        with self._lock:
            if self._run is None:
                self._run = open_run(self.path)
            stamp = self._run.version if valid is None else valid
            kept = self._kept.get(key)
            if kept is None or kept[0] != stamp:
                kept = self._kept[key] = (stamp, make(self._run))
                while len(self._kept) > MOST_READS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return kept[1]  # type: ignore[return-value]  # a key always holds what its own `make` gave


@st.cache_resource(max_entries=MOST_RUNS, show_spinner=False)
def shared(path: str) -> Shared:
    """The one handle for this path in this server."""
    return Shared(path)


def poll(path: str) -> Snapshot:
    """The newest state of a run."""
    return shared(path).poll()


def series(
    path: str, signal: str, steps: Steps = None, max_points: int = 600, branch: int | None = None
) -> pd.DataFrame:
    """A decimated signal: step, last_step, label, value, lo, hi, nonfinite; empty if the run does not have it."""
    handle = shared(path)

    def make(run: Run) -> pd.DataFrame:
        try:
            if steps is None and branch is None and _is_long(run, signal):
                return _long(handle, run, signal, max_points)
            return _table(run, signal, steps, max_points, branch)
        # ValueError: the store cannot shape a signal with axes that has no row in these steps.
        except (TrainVitalsError, ValueError):
            return nothing()

    return handle.read(("series", signal, steps, max_points, branch), make)


def nothing() -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame({name: [] for name in COLUMNS}).astype({"value": "float64", "label": "object"})


def _table(run: Run, signal: str, steps: Steps, max_points: int, branch: int | None = None) -> pd.DataFrame:
    table = run.series(signal, steps=steps, max_points=max_points, branch=branch)
    return table.astype({"label": "object"}) if "label" in table else table.assign(label="")


def _is_long(run: Run, signal: str) -> bool:
    known = SIGNALS.get(signal)
    growing = run.status in ("live", "unknown")
    return (run.last_step or 0) > LONG_STEPS and growing and not (known is not None and known.running)


def _long(handle: Shared, run: Run, signal: str, max_points: int) -> pd.DataFrame:
    """The old part of a long live run as it was read before, and the new part."""
    last = run.last_step or 0
    grid = last // PREFIX_PARTS
    cut = (last // grid - 1) * grid
    made = "/".join(f"{attempt.start_step}@{attempt.started}" for attempt in run.attempts)
    old = handle.read(
        ("prefix", signal, max_points), lambda r: _table(r, signal, (0, cut), max_points), valid=f"{cut}/{made}"
    )
    new = _table(run, signal, (cut + 1, last), max(2 * max_points // PREFIX_PARTS, 2))
    return pd.concat([part for part in (old, new) if len(part)] or [old], ignore_index=True)


def events(path: str) -> pd.DataFrame:
    """The run's events: time, step, kind, message, rank, attempt."""
    return shared(path).read("events", lambda run: run.events().drop(columns="data"))


def branches(path: str) -> pd.DataFrame:
    """Attempts that were left by a rollback: branch, from_step, to_step, kept_until, started."""
    return shared(path).read("branches", lambda run: run.branches())


def has(path: str, signal: str) -> bool:
    """Whether the run holds at least one row of a signal."""

    def make(run: Run) -> bool:
        try:
            return run.has(signal)
        except TrainVitalsError:
            return False

    return shared(path).read(("has", signal), make)


def newest(path: str, signal: str, rows: int = 50, until: int | None = None) -> pd.DataFrame:
    """The mean over about the newest `rows` rows up to a step, one line per label: label, value, step, last_step."""
    span = newest_steps(path, signal, rows, until)
    return nothing() if span is None else series(path, signal, span, 1)


def newest_steps(path: str, signal: str, rows: int, until: int | None = None) -> Steps:
    """The step range that holds the newest `rows` rows of a signal up to `until`; None where there is none."""

    def make(run: Run) -> Steps:
        newest = run.last_step
        end = newest if until is None or newest is None else min(newest, until)
        if end is None:
            return None
        found = _reach(run, signal, rows, lambda span: (end - span + 1, end), end)
        return (int(found[-rows:][0]), int(found[-1])) if len(found) else None

    return shared(path).read(("newest", signal, rows, until), make) if has(path, signal) else None


def oldest_steps(path: str, signal: str, rows: int) -> Steps:
    """The step range that holds the first `rows` rows of a signal; None where there is none."""

    def make(run: Run) -> Steps:
        end = run.last_step
        if end is None:
            return None
        found = _reach(run, signal, rows, lambda span: (0, span), end)
        return (int(found[0]), int(found[:rows][-1])) if len(found) else None

    return shared(path).read(("oldest", signal, rows), make) if has(path, signal) else None


def _reach(run: Run, signal: str, rows: int, window: Callable[[int], tuple[int, int]], most: int) -> NDArray[np.int64]:
    """Steps of a signal in a window that is widened until it holds `rows` rows: a rare signal needs a few tries."""
    field = run.reads(signal)[0]
    span = rows
    while True:
        steps = run.array(field, steps=window(span)).steps
        if len(steps) >= rows or span > most:
            return steps
        span *= 8


def cadence(path: str, signal: str) -> float:
    """Steps from one row of a signal to the next, of late; infinite where there are none."""
    span = newest_steps(path, signal, 20)
    return float("inf") if span is None else max((span[1] - span[0]) / 19, 1.0)


def added_up(path: str, signal: str, steps: Steps) -> Counts:
    """Counts of a stored field summed over a step range, with the labels of every axis and the steps they span."""

    def make(run: Run) -> Counts:
        found = run.array(signal, steps=steps)
        values = np.where(np.isfinite(found.values), found.values, 0.0)
        first, last = (int(found.steps[0]), int(found.steps[-1])) if len(found) else (0, 0)
        return values.sum(axis=0), found.labels, first, last

    return shared(path).read(("added", signal, steps), make)


def shares(counts: formulas.Array) -> formulas.Array:
    """Counts over their sum along the last axis; NaN where there is none."""
    return np.asarray(formulas.share(counts[None]).values[0])


def _last_part(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1] or path
