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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.importers.importer import Rows
from trainvitals.formulas import given

MOST_BRANCHES = 100
"""A log that goes back more often is out of order, and not a job that was resumed so often."""
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
        columns = {name: np.ascontiguousarray(values, np.float64) for name, values in rows.columns.items()}
        there = {name: given(values) for name, values in columns.items()}
        marks = _fingerprints(columns, there, len(rows.steps))
        rising = len(rows.steps) < 2 or bool((np.diff(rows.steps) > 0).all())
        if rising and (self._newest is None or rows.steps[0] > self._newest):
            self._remember(rows.steps, marks)
            for name, has in there.items():
                if has.any():
                    self._last[name] = int(rows.steps[len(has) - 1 - int(has[::-1].argmax())])
            self._newest = max(self._last.values(), default=None)
            self._value = {name: float(columns[name][-1]) for name, has in there.items() if len(has) and has[-1]}
            yield rows
        else:
            yield from self._one_by_one(rows, there, marks)

    def _one_by_one(self, rows: Rows, there: dict[str, NDArray[np.bool_]], marks: NDArray[np.uint64]
                    ) -> Iterator[Rows | Back]:
        names = list(there)
        table = np.column_stack([there[name] for name in names]) if names else np.zeros((len(rows.steps), 0), bool)
        kept: list[int] = []
        for i, (step, mark) in enumerate(zip(rows.steps.tolist(), marks.tolist(), strict=True)):
            holds = [names[j] for j in np.flatnonzero(table[i])]
            last = max((self._last[name] for name in holds if name in self._last), default=None)
            if last is not None and step <= last:
                if mark in (self._seen[0].get(step), self._seen[1].get(step)):
                    self.repeats += 1
                    continue
                if step == last:
                    self.replaced += any(step == self._last.get(name) and name in self._value and not _same(
                        self._value[name], rows.columns[name][i]) for name in holds)
                else:
                    self.backs += 1
                    if self.backs <= MOST_BRANCHES:
                        yield _part(rows, kept)
                        kept = []
                        self.resumed(step - 1)
                        yield Back(step - 1)
            kept.append(i)
            self._remember(rows.steps[i : i + 1], marks[i : i + 1])
            for name in holds:
                self._last[name] = max(step, self._last.get(name, step))
                self._value[name] = float(rows.columns[name][i])
            self._newest = step if self._newest is None else max(self._newest, step)
        yield _part(rows, kept)

    def _remember(self, steps: NDArray[np.int64], marks: NDArray[np.uint64]) -> None:
        self._seen[0].update(zip(steps.tolist(), marks.tolist(), strict=True))
        if len(self._seen[0]) > WINDOW:
            self._seen = {}, self._seen[0]


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


def _part(rows: Rows, kept: list[int]) -> Rows:
    at = np.array(kept, np.int64)
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
