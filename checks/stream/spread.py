"""How much rows scatter about one another: a series of our own, of which a change of noise is a change of level.

From second differences, in which neither level nor slope is left; of 8 rows, without the largest quarter of them, so
that a lone row or a jump does not count as noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from checks.stream.layout import Bounds

GROUP = 8
KEPT = 6
NEVER = 50.0
SPREAD = Bounds(warn=0.6, fail=NEVER, fall=0.9, lone=NEVER, brief=NEVER, huge=NEVER, floor=0.03, raw=-1,
                level=2, alpha=1e-3, alpha_rows=1e-4)  # fmt: skip
"""Of the scatter: x1.8 and x0.4 are told, never as a failure. 8 rows know theirs to 40-45 %."""


@dataclass
class SpreadState:
    """Rows that wait for their group to be full."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    """At most two of the group before, and those since."""
    last_step: int = -1


def spreads(
    state: SpreadState, steps: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Scatter of each group of 8 rows that is full now, in units of the values, at the step of its first row.

    Args:
        state: changed in place.
        steps: [n] rising; those up to the last one read are left out.
        values: [n]; those that are not finite are left out.
    """
    fresh = np.isfinite(values) & (steps > state.last_step)
    at = np.concatenate([np.asarray(state.steps, np.int64), steps[fresh]])
    y = np.concatenate([np.asarray(state.values), values[fresh]])
    if len(at):
        state.last_step = int(at[-1])
    groups = max(len(y) - 2, 0) // GROUP
    kept = groups * GROUP
    state.steps, state.values = at[kept:].tolist(), y[kept:].tolist()
    if not groups:
        return np.zeros(0, np.int64), np.zeros(0)
    bends = np.abs(np.diff(y[: kept + 2], 2)).reshape(groups, GROUP)
    scatter = np.sort(bends, axis=1)[:, :KEPT].mean(axis=1)
    # Rows that are all equal say how the log is printed, not how the loss scatters.
    return at[2 : kept + 2 : GROUP], np.where(scatter > 0, scatter, np.nan)
