"""Everything the board reads from run folders: shared between viewers, cached by store version, bounded.

One open `Run` per path serves all viewers under a lock. A read is cached under (path, signal, steps, points, version),
so an idle run costs a directory listing per second and N viewers cost one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import streamlit as st

from trainvitals import formulas
from trainvitals.card import RunCard
from trainvitals.errors import RunDamaged, RunNotFound, TrainVitalsError
from trainvitals.store import Run, list_runs, open_run

REFRESH_SECONDS = 1.0
"""A run's folder is listed at most this often, however many viewers ask."""

CACHE_SECONDS, CACHE_ENTRIES = 900, 400
COLUMNS = ["step", "last_step", "label", "value", "lo", "hi", "nonfinite"]
Steps = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a run right now; `error` says why nothing is."""

    path: str
    name: str = ""
    version: str = ""
    status: str = "silent"
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
        self.lock = threading.RLock()
        self._run: Run | None = None
        self._snapshot = Snapshot(path)
        self._checked = -REFRESH_SECONDS

    @property
    def run(self) -> Run:
        """The open run; call with the lock held."""
        if self._run is None:
            self._run = open_run(self.path)
        return self._run

    def poll(self) -> Snapshot:
        """The newest state; looks at the folder at most every `REFRESH_SECONDS`."""
        with self.lock:
            if time.monotonic() - self._checked >= REFRESH_SECONDS:
                self._snapshot = self._look()
                self._checked = time.monotonic()
            return self._snapshot

    def _look(self) -> Snapshot:
        try:
            run = self.run
            run.refresh()
        except (RunNotFound, RunDamaged, OSError) as error:
            self._run = None
            return Snapshot(self.path, name=_last_part(self.path), error=str(error))
        return Snapshot(self.path, run.name, run.version, run.status, run.last_step, run.last_time, run.card,
                        tuple(run.problems()))


@st.cache_resource(max_entries=32, show_spinner=False)
def shared(path: str) -> Shared:
    """The one handle for this path in this server."""
    return Shared(path)


def runs_below(folder: str) -> dict[str, str]:
    """Run name -> path of the runs in a folder, or of the folder itself if it is one; {} if there are none."""
    try:
        paths = [str(path) for path in list_runs(folder)]
    except (TrainVitalsError, OSError):
        return {}
    names = [_last_part(path) for path in paths]
    return {name if names.count(name) == 1 else path: path for name, path in zip(names, paths, strict=True)}


def poll(path: str) -> Snapshot:
    """The newest state of a run."""
    return shared(path).poll()


@st.cache_data(ttl=CACHE_SECONDS, max_entries=CACHE_ENTRIES, show_spinner=False)
def series(path: str, signal: str, version: str, steps: Steps = None, max_points: int = 600,
           branch: str | int | None = None) -> pd.DataFrame:
    """A decimated signal: step, last_step, label, value, lo, hi, nonfinite; empty if the run does not have it."""
    handle = shared(path)
    with handle.lock:
        try:
            table = handle.run.series(signal, steps=steps, max_points=max_points, branch=branch)
        except TrainVitalsError:
            return pd.DataFrame({name: [] for name in COLUMNS}).astype({"value": "float64", "label": "object"})
    return table if "label" in table else table.assign(label="")


@st.cache_data(ttl=CACHE_SECONDS, max_entries=CACHE_ENTRIES, show_spinner=False)
def signals(path: str, version: str) -> pd.DataFrame:
    """The run's signals: name, unit, axis, points, first_step, last_step, meaning ..."""
    handle = shared(path)
    with handle.lock:
        return handle.run.signals()


@st.cache_data(ttl=CACHE_SECONDS, max_entries=64, show_spinner=False)
def events(path: str, version: str) -> pd.DataFrame:
    """The run's events: time, step, kind, message, rank, attempt."""
    handle = shared(path)
    with handle.lock:
        return handle.run.events().drop(columns="data", errors="ignore")


@st.cache_data(ttl=CACHE_SECONDS, max_entries=64, show_spinner=False)
def branches(path: str, version: str) -> pd.DataFrame:
    """Attempts that were left by a rollback: branch, from_step, to_step, kept_until, started."""
    handle = shared(path)
    with handle.lock:
        return handle.run.branches()


def has(path: str, signal: str, version: str) -> bool:
    """Whether the run holds at least one row of a signal."""
    return bool(points(path, signal, version))


def points(path: str, signal: str, version: str) -> int:
    """Rows that the run holds of a signal."""
    table = signals(path, version)
    found = table.loc[table["name"] == signal, "points"]
    return int(found.iloc[0]) if len(found) else 0


@st.cache_data(ttl=CACHE_SECONDS, max_entries=CACHE_ENTRIES, show_spinner=False)
def newest(path: str, signal: str, version: str, rows: int = 50, until: int | None = None) -> pd.DataFrame:
    """The mean over the newest `rows` rows up to a step, one line per label: label, value, first_step, last_step."""
    span = newest_steps(path, signal, version, rows, until)
    table = series(path, signal, version, span, 1) if span else series(path, signal, version, (0, -1), 1)
    return table[["label", "value", "step", "last_step"]].rename(columns={"step": "first_step"})


def newest_steps(path: str, signal: str, version: str, rows: int, until: int | None = None) -> Steps:
    """The step range that holds about the newest `rows` rows of a signal up to `until`."""
    table = signals(path, version)
    found = table[table["name"] == signal]
    if found.empty or not int(found["points"].iloc[0]):
        return None
    first, last = int(found["first_step"].iloc[0]), int(found["last_step"].iloc[0])
    cadence = max((last - first) / max(int(found["points"].iloc[0]) - 1, 1), 1.0)
    end = last if until is None else min(last, until)
    return max(first, round(end - cadence * (rows - 0.5))), end


@st.cache_data(ttl=CACHE_SECONDS, max_entries=64, show_spinner=False)
def added_up(path: str, signal: str, version: str, steps: Steps) -> tuple[np.ndarray, tuple[tuple[str, ...], ...], int, int]:
    """Counts of a stored field summed over a step range, with the labels of every axis and the steps they span."""
    handle = shared(path)
    with handle.lock:
        found = handle.run.array(signal, steps=steps)
    values = np.where(np.isfinite(found.values), found.values, 0.0)
    if not len(found.steps):
        return np.zeros(values.shape[1:]), found.labels, 0, 0
    return values.sum(axis=0), found.labels, int(found.steps[0]), int(found.steps[-1])


def shares(counts: np.ndarray) -> np.ndarray:
    """Counts over their sum along the last axis; NaN where there is none."""
    return formulas.share(counts[None]).values[0]


def _last_part(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1] or path
