"""What the detector remembers of a series, as flat numpy records, and the bounds that it judges by.

Everything is fixed in size but the list of episodes, so a state is saved as bytes. Legend: a *row* is one finite
value; a *block* of level k is 2^k rows; u is log y, or y where a logarithm has no meaning.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

LEVELS = 17
"""Blocks of 1 to 65,536 rows."""
RING = 18
"""16 blocks of reference and 2 under test."""
ERRORS = 48
TRAIL = 64
RECENT = 16
DIFFERENCES = 256
FOLD = 8
FOLD_FROM = 4096
"""From this row on windows under 8 rows, where most of the time goes, are left to the test of single rows."""
NOTES = 256
"""Single rows that stood out, the newest."""
LEAST_ROWS = 9
"""Below, only effects of the size `huge` can be told."""

STATE = np.dtype(
    [
        ("rows", "i8"), ("since", "i8"), ("origin", "i8"), ("mode", "i8"), ("open", "i8"), ("last_told", "i8"),
        ("resets", "i8"), ("last_y", "f8"), ("last_u", "f8"), ("print_step", "f8"), ("print_hits", "i8"),
        ("print_seen", "i8"), ("sigma", "f8"), ("square", "f8"),
        ("recent", "f8", RECENT), ("differences", "f8", DIFFERENCES), ("difference_count", "i8"),
        ("tail_rows", "f8"), ("tail_count", "f8"), ("tail_sum", "f8"), ("run", "i8"), ("run_side", "i8"),
        ("run_logp", "f8"), ("run_sum", "f8"), ("run_tail", "f8"), ("run_tail_sum", "f8"), ("offset", "f8"),
        ("fold_sum", "f8"), ("fold_square", "f8"),
        ("center", "f8"), ("scale", "f8"), ("lowest", "f8"), ("top", "f8"), ("huge_run", "i8"),
        ("small", "i8"), ("ring", "f8", (LEVELS, RING)), ("place", "f8", (LEVELS, RING)), ("count", "i8", LEVELS),
        ("best", "f8", LEVELS), ("best_count", "i8", LEVELS), ("error", "f8", (LEVELS, ERRORS)),
        ("error_row", "i8", (LEVELS, ERRORS)), ("error_count", "i8", LEVELS), ("variance", "f8", LEVELS),
        ("freedom", "f8", LEVELS), ("looks", "i8", LEVELS), ("visible", "f8", LEVELS),
        ("trail", "f8", (LEVELS, TRAIL)), ("trail_step", "i8", (LEVELS, TRAIL)), ("trail_count", "i8", LEVELS),
        ("clean_from", "i8"), ("last_step", "i8"), ("notes", "i8"), ("note_step", "i8", NOTES), ("note_z", "f8", NOTES),
    ]
)  # fmt: skip
"""One series. `offset` is the level that told episodes have added; `clean_from` the row since which no fault was."""

EPISODE = np.dtype(
    [
        ("row", "i8"), ("step", "i8"), ("side", "i8"), ("how", "i8"), ("window", "i8"), ("z", "f8"),
        ("effect", "f8"), ("reference", "f8"), ("error", "f8"), ("rows", "i8"), ("sum", "f8"), ("peak", "f8"),
        ("peak_step", "i8"), ("peak_u", "f8"), ("out_row", "i8"), ("out_step", "i8"), ("out_rows", "i8"),
        ("closed", "i8"), ("closed_step", "i8"), ("failed", "i8"), ("told", "i8"), ("told_step", "i8"),
        ("before", "f8"), ("lasting", "f8"), ("mode", "i8"), ("onset_row", "i8"), ("onset", "i8"),
        ("onset_low", "i8"), ("onset_high", "i8"), ("ramp", "i8"), ("refit", "i8"), ("scale", "f8"), ("slope", "f8"),
        ("expected", "i8"), ("part_of", "i8"),
    ]
)  # fmt: skip
"""One episode. Rows that mean "not yet" are -1; `failed` is the step at which it became a failure, `expected` 1 where a
planned event made its level the expected one, and `part_of` the episode that it goes on with, `ALONE` where calm lies
between."""

UNKNOWN_YET, ALONE = -2, -1

ROWS, WINDOW, BEST, LONE, HUGE = range(5)
"""How an episode was noticed: rows in sequence, a window off its trend, a window off the best, one row, a first row
many times larger than all before."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which effects count, in u of a logarithmic series; `raw_...` in noise of one row for the others."""

    warn: float
    fail: float
    fall: float
    """Smallest fall that is told."""
    lone: float
    """A lone row above this is told."""
    brief: float
    """Two to seven rows fail only above this."""
    huge: float
    """Told although there are fewer than 9 rows."""
    floor: float
    """What a block mean strays from its trend however long the block."""
    raw: int = 0
    """1: never take logarithms; -1: always, of nothing smaller than 1e-30."""
    level: int = 0
    """1: not expected to fall for ever. A falling line is not extrapolated, and there is no best to stay with.
    2: expected to stay. No line is extrapolated."""
    raw_warn: float = 0.5
    raw_fail: float = 1.5
    raw_fall: float = 1.5
    raw_lone: float = 8.0
    alpha: float = 3e-4
    """False alarms a row of all windows together, before the effect bounds."""
    alpha_rows: float = 1e-5
    """The same for single rows."""

    def packed(self) -> Any:
        """As one record for the kernels, with the thresholds of every level."""
        record = np.zeros(1, BOUNDS)
        record[0] = (*astuple(self), _z(self.alpha), _z(self.alpha / 10))
        return record


def _z(alpha: float) -> Any:
    # A window of 2^(k+1) rows is looked at once in 2^k rows, on two sides, on 14 scales: the same rate a row for all;
    # never below 3, because what a long window strays from a line is bias more than noise.
    return np.maximum(-ndtri(np.minimum(alpha * 2.0 ** np.arange(LEVELS) / 28, 0.006)), 3.0)


BOUNDS = np.dtype([(name, "f8") for name in Bounds.__slots__] + [("z_warn", "f8", LEVELS), ("z_fail", "f8", LEVELS)])

LOSS = Bounds(warn=0.005, fail=0.02, fall=0.02, lone=0.405, brief=0.405, huge=0.7, floor=0.0013)
"""0.5 %: block means of healthy losses stray 0.13-0.15 % from their trend however long the block. x1.5 for lone rows:
healthy rank-local losses reach +37 %."""
GRADIENT = Bounds(warn=0.4, fail=1.1, fall=0.7, lone=2.303, brief=2.303, huge=3.4, floor=0.03, raw=-1,
                  level=1)  # fmt: skip
"""Healthy norms reach 7.5 times their median for one row and 3 times for two (19,560 steps of llm.c's 124M run)."""


def new_state() -> Any:
    """The state of a series before its first row: one record."""
    state = np.zeros(1, STATE)
    state["open"] = state["last_told"] = -1
    state["best"] = state["lowest"] = np.inf
    state["visible"] = state["print_step"] = np.inf
    return state
