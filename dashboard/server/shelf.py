"""What the table of runs says of each: read a few runs at a time, so that a folder of a thousand holds nobody up."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from checks.twins.known import twin_paths
from trainvitals.errors import TrainVitalsError
from trainvitals.store import Run, open_run

LOSSES = ("loss/train", "loss/returned")
COURSE_POINTS, CHANGE_SHARE = 30, 0.1
BUDGET_SECONDS = 0.3
"""Reading done at one redraw; a first look at a hundred runs takes a handful of redraws."""
LIVE_SECONDS, STILL_SECONDS, MOST_ROWS = 4.0, 60.0, 2_000


@dataclass(frozen=True, slots=True)
class Row:
    """One run. None and "" where the run does not say."""

    path: str
    level: str = "unknown"
    """Of the findings that are stored."""
    judged_step: int | None = None
    """The last step that they have seen."""
    headline: str = ""
    """The worst of them."""
    status: str = "unknown"
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    """Nats per token, mean of the newest thirtieth."""
    change: float | None = None
    """Of the loss over the newest tenth of the steps, as a fraction."""
    course: tuple[float, ...] = ()
    tokens_per_s: float | None = None
    tokens: float | None = None
    """Input tokens so far: the mean of a step times the steps."""
    created: float | None = None
    """Unix time, seconds."""
    last_time: float | None = None
    group: str = ""
    tags: tuple[str, ...] = ()
    model: str = ""
    params: int | None = None
    twins: int = 0
    error: str = ""


class Shelf:
    """Rows of runs by path, each looked at again when it is due."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, tuple[float, Row]] = OrderedDict()
        """When it was looked at (monotonic seconds), and what was found."""
        self._lock = threading.Lock()

    def look(self, runs: Mapping[str, str], budget: float = BUDGET_SECONDS) -> dict[str, Row]:
        """What is known of the runs by name; those never looked at are not there yet."""
        # While one viewer waits for a slow store, the others see what is known.
        if self._lock.acquire(blocking=False):
            try:
                self._read(self._due(list(runs.values())), time.monotonic() + budget)
            finally:
                self._lock.release()
        # One by one: going over all of them would fail where the one who looks adds to them.
        known = {name: self._rows.get(path) for name, path in runs.items()}
        return {name: entry[1] for name, entry in known.items() if entry is not None}

    def _read(self, due: list[str], until: float) -> None:
        for path in due:
            self._rows[path] = (time.monotonic(), read_row(path))
            if time.monotonic() >= until:
                break
        while len(self._rows) > MOST_ROWS:
            self._rows.popitem(last=False)

    def _due(self, paths: list[str]) -> list[str]:
        """The new ones first, then those whose look is oldest."""
        now = time.monotonic()
        known = [(seen, path) for path in paths if (seen := self._rows.get(path, (0.0, None))[0])]
        stale = [path for seen, path in sorted(known) if now - seen > self._rest(self._rows[path][1])]
        return [path for path in paths if path not in self._rows] + stale

    @staticmethod
    def _rest(row: Row) -> float:
        return LIVE_SECONDS if row.status in ("live", "unknown") and not row.error else STILL_SECONDS


@st.cache_resource(show_spinner=False)
def shelf() -> Shelf:
    """The server's one shelf."""
    return Shelf()


def read_row(path: str) -> Row:
    """Open a run and read what its row needs; a run that cannot be read says so."""
    try:
        return _row(open_run(path))
    except (TrainVitalsError, OSError, ValueError, LookupError, TypeError) as error:
        return Row(path, error=str(error) or type(error).__name__)


def _row(run: Run) -> Row:
    level, headline, judged = _judged(run)
    loss = next((table for name in LOSSES if len(table := _series(run, name, COURSE_POINTS))), pd.DataFrame())
    values = loss["value"].dropna().tolist() if len(loss) else []
    back = max(round(CHANGE_SHARE * COURSE_POINTS), 1)
    rate = _series(run, "throughput/tokens_per_s", 20)
    tokens = _series(run, "throughput/tokens", 4)
    return Row(
        run.path, level, judged, headline, run.status, run.last_step, run.card.total_steps,
        values[-1] if values else None,
        values[-1] / values[-1 - back] - 1 if len(values) > back and values[-1 - back] > 0 else None,
        tuple(values), _last(rate),
        float(tokens["value"].mean()) * run.last_step if len(tokens) and run.last_step else None,
        run.card.created or None, run.last_time, run.card.group, tuple(run.card.tags), run.card.model,
        run.card.params_total, len(twin_paths(run)),
    )  # fmt: skip


def _series(run: Run, name: str, points: int) -> pd.DataFrame:
    try:
        table = run.series(name, max_points=points)
    except (TrainVitalsError, ValueError):
        return pd.DataFrame()
    return table if "label" not in table else pd.DataFrame()


def _last(table: pd.DataFrame) -> float | None:
    known = table["value"].dropna() if len(table) else table
    return float(known.iloc[-1]) if len(known) else None


def _judged(run: Run) -> tuple[str, str, int | None]:
    """Level, worst finding and last step of the stored findings; unknown where a run was not judged.

    `pass` needs the loss to have passed, as in `checks.judge.Report.level`.
    """
    record = run.stored_findings()
    found = [f for f in record.get("findings") or [] if isinstance(f, dict)]
    step = record.get("step") if isinstance(record.get("step"), int) else None
    for level in ("fail", "warn"):
        of_level = [f for f in found if f.get("level") == level]
        if of_level:
            return level, str(of_level[0].get("summary", "")), step
    passed = any(f.get("check") == "loss.divergence" and f.get("level") == "pass" for f in found)
    return "pass" if passed else "unknown", "", step
