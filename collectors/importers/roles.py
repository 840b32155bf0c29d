"""Which column of a table counts the steps, which holds the time, which tells runs apart; and what counts as a step.

One rule for every format: a step is a whole number. Where rows are counted in samples or tokens, that number is the
step, and it is said; where they are counted in fractions (epochs), or not at all, a row's own number is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from collectors.importers.importer import BlindSpot
from collectors.importers.names import guess
from trainvitals.formulas import given

Counted = Literal["steps", "samples", "tokens", "epochs", "rows"]

SCALARS_ONLY = BlindSpot(
    "absent", ("throughput/step_time_by_rank", "router/", "grad/norm_by_layer"),
    "A table has one number per step and name, without ranks, layers or experts",
    "Train with tv.attach(model, optimizer, ...)")  # fmt: skip
_WHOLE = 2.0**53
_STEPS = ("step", "global step", "trainer global step", "train global step", "optimizer step", "iteration", "iter",
          "steps", "iterations", "num steps", "update", "updates", "num updates", "train step", "it")
_COUNTS: tuple[tuple[str, Counted], ...] = (
    ("consumed samples", "samples"), ("samples", "samples"), ("samples seen", "samples"), ("num samples", "samples"),
    ("consumed tokens", "tokens"), ("tokens", "tokens"), ("tokens seen", "tokens"), ("num tokens", "tokens"),
    ("epoch", "epochs"), ("epochs", "epochs"))  # fmt: skip
_TIMES = ("timestamp", "wall time", "walltime", "time", "created at", "datetime", "date")
_RUNS = ("run", "run id", "run name", "seed", "experiment", "trial")
_UNIX_SECONDS = (3e8, 2e10)
"""1979 to 2603: smaller numbers are durations, larger ones are in milli-, micro- or nanoseconds."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Columns that are no series."""

    step: str = ""
    counted: Counted = "rows"
    time: str = ""
    run: str = ""

    @property
    def blind(self) -> tuple[BlindSpot, ...]:
        """What follows for the steps."""
        if self.counted == "steps":
            return ()
        what = {"rows": "The table does not say which step a row belongs to: rows are numbered",
                "epochs": f"Rows are counted in epochs ({self.step}), not in steps: rows are numbered",
                "samples": f"Rows are counted in samples ({self.step}), not in optimizer steps",
                "tokens": f"Rows are counted in tokens ({self.step}), not in optimizer steps"}[self.counted]
        return (BlindSpot("steps", ("loss/", "grad/", "lr/", "throughput/"), what,
                          "Log the optimizer step, or name its column with --map step=COLUMN"),)


def roles_of(names: Sequence[str], told: Mapping[str, str] = {}) -> Roles:  # noqa: B006 - never changed
    """The roles of columns. `told`: role -> column, as the user said with `--map step=COLUMN`."""
    spelled: dict[str, str] = {}
    for name in names:
        spelled.setdefault(re.sub(r"[\s_/.-]+", " ", name).strip().lower(), name)
    time = told.get("time") or next((spelled[word] for word in _TIMES if word in spelled), "")
    run = told.get("run") or next((spelled[word] for word in _RUNS if word in spelled), "")
    if "step" in told:
        return Roles(told["step"], "steps", time, run)
    if (step := next((spelled[word] for word in _STEPS if word in spelled), "")):
        return Roles(step, "steps", time, run)
    found = next(((spelled[word], counted) for word, counted in _COUNTS if word in spelled), ("", "rows"))
    return Roles(found[0], found[1], time, run)


def of_training(names: Iterable[str]) -> bool:
    """Whether any name counts steps or is one that everybody in the field knows: else a table is about other things."""
    found = list(names)
    return roles_of(found).counted == "steps" or any(guess(name) is not None for name in found)


@dataclass(slots=True)
class Steps:
    """Turns the counting column of batch after batch into steps."""

    counted: Counted
    rows: int = 0
    """So far."""

    def of(self, values: NDArray[np.float64] | None, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Steps of the next rows [count], and which rows have one [count]."""
        numbers = np.arange(self.rows + 1, self.rows + count + 1, dtype=np.int64)
        self.rows += count
        if values is None or self.counted in ("rows", "epochs"):
            return numbers, np.ones(count, bool)
        with np.errstate(invalid="ignore"):
            whole = given(values) & np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < _WHOLE)
        return np.where(whole, values, 0).astype(np.int64), whole


def seconds(cells: Iterable[Any]) -> NDArray[np.float64] | None:
    """A column of times as Unix seconds, NaN where a cell has none; None where they are no times of day."""
    found = np.array([_seconds(cell) for cell in cells], np.float64)
    known = found[np.isfinite(found)]
    if not len(known):
        return None
    scale = next((s for s in (1.0, 1e3, 1e6, 1e9) if _UNIX_SECONDS[0] < known[0] / s < _UNIX_SECONDS[1]), None)
    return None if scale is None else found / scale


def _seconds(cell: Any) -> float:
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return float(cell) if abs(cell) < 1e300 else float("nan")
    if not isinstance(cell, str) or not cell:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(cell.strip().replace(" UTC", "+00:00"))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("nan")
