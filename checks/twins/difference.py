"""A run's loss with its twin's taken off: what is left is its own.

With y the log loss of the run, x that of the twin at the same data and m the median of x over the rows before,

    d = (y - x) - (beta - 1) (x - m)

The slow part of x is taken off as it is, so that a stretch of hard data leaves nothing; its fast part by a factor beta
that is learnt from the rows before, because models of other sizes answer one batch more or less strongly. Nothing looks
ahead: a row's difference is what it was when the row came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from checks.twins.pair import Pair
from checks.twins.rows import Floats, LossRows, Steps

TREND_ROWS, SCALE_ROWS, SLOPE_ROWS, LEAST_ROWS = 21, 256, 512, 64
CLIP = 3.0


@dataclass(frozen=True, slots=True)
class Difference:
    """The rows of a run that its twin has too."""

    steps: Steps
    """[n] of the run."""
    values: Floats
    """[n] difference of log losses."""
    own: Floats
    """[n] log loss of the run."""
    twins: Floats
    """[n] log loss of the twin."""


def difference(a: LossRows, b: LossRows, pair: Pair) -> Difference:
    """What b leaves of a's loss, row by row. Empty where the pair may not be used (`Pair.usable`)."""
    at, other = pair.indices(a.steps, b.steps) if pair.usable else (np.zeros(0, np.int64),) * 2
    y, x = a.values[at], b.values[other]
    return Difference(a.steps[at], (y - x) - (_slopes(y, x) - 1) * _fast(x), y, x)


def _fast(values: Floats) -> Floats:
    """Each row less the median of those before it, [n]; 0 at first."""
    before = pd.Series(values).rolling(TREND_ROWS, min_periods=5).median().shift(1).to_numpy()
    return np.asarray(np.nan_to_num(values - before))


def _slopes(y: Floats, x: Floats) -> Floats:
    """Slope of y's changes on x's through 0 over the rows before each, [n]; 1 while there are too few."""
    dy, dx = np.diff(y, prepend=y[:1]), np.diff(x, prepend=x[:1])
    weight = _within(dy) & _within(dx)
    sums = pd.DataFrame({"product": np.where(weight, dx * dy, 0.0), "square": np.where(weight, dx * dx, 0.0)})
    sums = sums.rolling(SLOPE_ROWS, min_periods=LEAST_ROWS).sum().shift(1)
    return np.asarray((sums["product"] / sums["square"]).replace([np.inf, -np.inf], np.nan).fillna(1.0))


def _within(values: Floats) -> NDArray[np.bool_]:
    spread = 1.4826 * pd.Series(np.abs(values)).rolling(SCALE_ROWS, min_periods=8).median().to_numpy()
    return np.asarray(np.abs(values) <= CLIP * np.nan_to_num(spread, nan=np.inf))
