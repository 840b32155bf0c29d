"""From single values, as trackers keep them, to rows: what was logged together stands in one row.

    points = Points(state)
    for at, name, step, value, time in log:
        yield from points.add(step, {name: value}, time, at)
    yield from points.end()

Where every metric has a place of its own, `together(series, state, points)` puts them side by side.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from collectors.importers.importer import BATCH_ROWS, Gather, Item, Note
from trainvitals.untrusted import MOST_STEP

MOST_NAMES = 4_096
"""Metrics of a run. A log with more names has values in its names."""


class Points:
    """Values in the order of the log, as `Rows`.

    Before anything is given, `state["at"]` is set to where the log was when the last row given ended: a later look
    begins there.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._gather = Gather()
        self._step = 0
        self._time = math.nan
        self._row: dict[str, float] = {}
        self._names: set[str] = set()
        self._left_out: set[str] = set()
        self._at: Any = state.get("at")
        """Of the last value taken."""
        self._closed: Any = self._at
        """Of the last value in a closed row."""

    def add(self, step: int, values: Mapping[str, float], time: float = math.nan, at: Any = None) -> Iterator[Item]:
        """Take values that were logged at once; gives what is complete.

        Args:
            step: theirs.
            values: metric -> value.
            time: Unix seconds.
            at: where the log is behind them.
        """
        if step != self._step or not self._row.keys().isdisjoint(values):
            self._close()
            if self._gather.full:
                yield from self._give()
        for name, value in values.items():
            if name not in self._names:
                if len(self._names) >= MOST_NAMES:
                    self._left_out.add(name)
                    continue
                self._names.add(name)
            if not self._row:
                self._step, self._time = step, time
            self._row[name] = value
        self._at = at

    def end(self) -> Iterator[Item]:
        """The rows that are left, and what was left out."""
        self._close()
        yield from self._give()
        if self._left_out:
            yield Note("unreadable", f"{len(self._left_out):,} metrics beyond the first {MOST_NAMES:,} are left out",
                       hides=True)

    def _close(self) -> None:
        if self._row:
            self._gather.add(self._step, self._row, self._time)
            self._row = {}
        self._closed = self._at

    def _give(self) -> Iterator[Item]:
        self._state["at"] = self._closed
        if len(self._gather):
            yield self._gather.take()


class Point(NamedTuple):
    """A value of one series, and where the series is behind it."""

    order: float
    """Points of all series are taken by this: the time, or the step where no series repeats one."""
    step: int
    name: str
    value: float
    time: float
    end: Any


def together(series: Iterable[Iterator[Point]], state: dict[str, Any], points: Points) -> Iterator[Item]:
    """Series that each come in their own order, as one log; `state["ends"]` is where each of them is."""
    ends, n, step = dict(state.get("ends", {})), 0, None
    for point in heapq.merge(*series, key=_order):
        if n >= BATCH_ROWS and point.step != step:
            state["ends"] = dict(ends)
            yield from points.end()
            n = 0
        yield from points.add(point.step, {point.name: point.value}, point.time)
        ends[point.name], step, n = point.end, point.step, n + 1
    state["ends"] = ends
    yield from points.end()


def _order(point: Point) -> tuple[float, int]:
    return point.order, point.step


class Unread:
    """Rows or lines that could not be read, each counted once however often it is met."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._ends: dict[str, float] = dict(state.get("unread", {}))
        self._n = 0

    def met(self, name: str, at: float) -> None:
        """Count the one that ends at `at` in series or table `name`."""
        if name not in self._ends or at > self._ends[name]:
            self._n += 1
            self._ends[name] = at

    def told(self, what: str) -> Iterator[Item]:
        """How many, in a sentence that ends with `what`."""
        self._state["unread"] = self._ends
        if self._n:
            yield Note("unreadable", f"{self._n:,} {what}", hides=True)


def as_step(value: Any) -> int | None:
    """A whole step of a database's or a text's; None where it is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < MOST_STEP:
        return None
    return int(value) if value == int(value) else None


def as_value(value: Any) -> float | None:
    """A number, also NaN and infinity, and such as text; None where it is none."""
    if isinstance(value, str) and len(value) <= 64 and "_" not in value:
        try:
            return float(value)  # which knows nan, inf and infinity
        except ValueError:
            return None
    if isinstance(value, (bool, int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return None


def as_time(value: Any, per_second: float = 1.0) -> float:
    """Unix seconds of a number of seconds or parts of them, or of ISO 8601; NaN where it is neither."""
    if isinstance(value, str):
        try:
            told = datetime.fromisoformat(value)
        except ValueError:
            return math.nan
        try:
            return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
        except (OverflowError, ValueError):
            return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value) / per_second
    except OverflowError:
        return math.nan
