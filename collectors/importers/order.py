"""Rows in the order of a log, and what becomes of steps that come again: repeats, later words, branches.

A log is read by one rule, whatever its format. A row goes on where all that it holds is new at its step. A row that was
there already, number by number, is a repeat (a file that was joined twice, ranks that print one line each): it is
counted and left out. Another value at the newest step replaces the one before. A step before the newest one of the same
column is a job that went back: what came after that step becomes a branch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from collectors.importers.importer import Rows
from trainvitals.formulas import given

MOST_BRANCHES = 100
"""A log that goes back more often is out of order, and not a job that was resumed so often."""
STRETCH = 16
"""Rows with rising steps that are worth looking at together."""
WINDOW = 65_536
"""Rows that are known well enough to tell a repeat."""
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Back:
    """The rows that follow belong to a job that went on from `step`."""

    step: int


class Order:
    """What is known of the rows so far. `state` is JSON, to go on later."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._last: dict[str, int] = {str(k): int(v) for k, v in state.get("last", {}).items()}
        self._newest = max(self._last.values(), default=None)
        self._seen: tuple[dict[int, int], dict[int, int]] = {}, {}
        """Step -> fingerprint of its newest row: of a window, and of the one before it."""
        self._value: dict[str, float] = {}
        """The newest value of columns that were looked at one by one."""
        self.repeats, self.replaced, self.backs = (int(state.get(k, 0)) for k in ("repeats", "replaced", "backs"))

    def state(self) -> dict[str, Any]:
        """What the next process needs to go on."""
        return {"last": dict(self._last), "repeats": self.repeats, "replaced": self.replaced, "backs": self.backs}

    def notes(self) -> list[str]:
        """What happened to rows, one sentence each."""
        found = []
        if self.repeats:
            found.append(f"{self.repeats:,} rows stand in the log twice, number by number; each is taken once.")
        if self.replaced:
            found.append(f"{self.replaced:,} rows give another value for a step that the log had already; the last one "
                         "counts.")
        if self.backs > MOST_BRANCHES:
            found.append(f"Steps go back {self.backs:,} times: the log is out of order, or several ranks wrote it. "
                         f"Only the first {MOST_BRANCHES} became branches; then the last value of a step counts.")
        elif self.backs:
            found.append(f"Steps go back {self.backs:,} time{'s' * (self.backs != 1)} without a word: what came after "
                         "is the main line, what was left is a branch.")
        return found

    def resumed(self, step: int) -> None:
        """The job went on from `step`, as the log says."""
        self._last = {name: min(last, step) for name, last in self._last.items()}
        self._newest = max(self._last.values(), default=None)
        self._seen = {}, {}

    def sorted_out(self, rows: Rows) -> Iterator[Rows | Back]:
        """The rows that are to be stored, in order, and where the job went back."""
        batch = _Batch.of(rows)
        start = 0
        while start < len(rows.steps):
            kept, back, start = self._onwards(batch, start)
            if len(kept):
                yield rows if len(kept) == len(rows.steps) else _part(rows, kept)
            if back is not None:
                self.resumed(back)
                yield Back(back)

    def _onwards(self, batch: _Batch, start: int) -> tuple[NDArray[np.int64], int | None, int]:
        """The rows to keep from `start` on, up to one that goes back; the step that it goes on from, and its index."""
        steps = batch.rows.steps
        kept: list[NDArray[np.int64]] = []
        newest = steps[start] - 1 if self._newest is None else self._newest
        before = np.maximum.accumulate(np.append(newest, steps[start:-1]))
        for begin, end, rising in _stretches(steps[start:] > before, start):
            if rising and end - begin >= STRETCH:
                self._take(batch, begin, end)
                kept.append(np.arange(begin, end))
                continue
            for i in range(begin, end):
                verdict = self._one(batch, i)
                if verdict == "back":
                    return _joined(kept), int(steps[i]) - 1, i
                if verdict == "keep":
                    kept.append(np.array([i]))
        return _joined(kept), None, len(steps)

    def _take(self, batch: _Batch, begin: int, end: int) -> None:
        """Rows whose steps rise beyond all before."""
        steps = batch.rows.steps[begin:end]
        self._remember(steps, batch.marks[begin:end])
        self._value = {}
        for name, there in batch.there.items():
            has = there[begin:end]
            if has.any():
                self._last[name] = int(steps[len(has) - 1 - int(has[::-1].argmax())])
                if has[-1]:
                    self._value[name] = float(batch.rows.columns[name][end - 1])
        self._newest = max(self._last.values(), default=None)

    def _one(self, batch: _Batch, i: int) -> Literal["keep", "drop", "back"]:
        step, mark = int(batch.rows.steps[i]), int(batch.marks[i])
        holds = [name for name, there in batch.there.items() if there[i]]
        last = max((self._last[name] for name in holds if name in self._last), default=None)
        if last is not None and step <= last:
            if mark in (self._seen[0].get(step), self._seen[1].get(step)):
                self.repeats += 1
                return "drop"
            if step == last:
                self.replaced += any(step == self._last.get(name) and name in self._value and not _same(
                    self._value[name], batch.rows.columns[name][i]) for name in holds)
            else:
                self.backs += 1
                if self.backs <= MOST_BRANCHES:
                    return "back"
        self._remember(batch.rows.steps[i : i + 1], batch.marks[i : i + 1])
        for name in holds:
            self._last[name] = max(step, self._last.get(name, step))
            self._value[name] = float(batch.rows.columns[name][i])
        self._newest = step if self._newest is None else max(self._newest, step)
        return "keep"

    def _remember(self, steps: NDArray[np.int64], marks: NDArray[np.uint64]) -> None:
        self._seen[0].update(zip(steps.tolist(), marks.tolist(), strict=True))
        if len(self._seen[0]) > WINDOW:
            self._seen = {}, self._seen[0]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows, and what is asked of them again and again."""

    rows: Rows
    there: dict[str, NDArray[np.bool_]]
    """Column -> which rows have it."""
    marks: NDArray[np.uint64]
    """Fingerprint of each row."""

    @classmethod
    def of(cls, rows: Rows) -> _Batch:
        columns = {name: np.ascontiguousarray(values, np.float64) for name, values in rows.columns.items()}
        there = {name: given(values) for name, values in columns.items()}
        return cls(rows, there, _fingerprints(columns, there, len(rows.steps)))


def _stretches(mask: NDArray[np.bool_], start: int) -> Iterator[tuple[int, int, bool]]:
    """Begin, end and value of each run of equal values, counted from `start` on."""
    edges = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(mask)]
    for begin, end in pairwise(edges):
        yield start + begin, start + end, bool(mask[begin])


def _joined(kept: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(kept) if kept else np.empty(0, np.int64)


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


def _part(rows: Rows, at: NDArray[np.int64]) -> Rows:
    return Rows(rows.steps[at], rows.times[at], {name: values[at] for name, values in rows.columns.items()})


def _fingerprints(columns: dict[str, NDArray[np.float64]], there: dict[str, NDArray[np.bool_]], n: int
                  ) -> NDArray[np.uint64]:
    """A number per row that tells which columns it has and their values."""
    marks = np.zeros(n, np.uint64)
    with np.errstate(over="ignore"):
        for name, values in columns.items():
            mixed = (values.view(np.uint64) ^ np.uint64(zlib.crc32(name.encode(errors="replace")) << 16)) * _MIX
            mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX
            marks += np.where(there[name], mixed ^ (mixed >> np.uint64(32)), np.uint64(0))
    return marks
