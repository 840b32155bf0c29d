"""Validation held against training: the noise that both share, and the trend, are not in their difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checks.reading import Rows
from checks.stream.layout import Bounds

GAP = Bounds(warn=0.01, fail=0.03, fall=0.02, lone=0.1, brief=0.1, huge=0.7, floor=0.0013, raw=-1)
"""Of validation over training loss. Its noise is 0.13 % where evaluations are 250 rows apart (llm.c)."""
LEAST_BETWEEN = 4
"""Training rows since the last evaluation without which there is no gap."""


@dataclass
class GapState:
    """How far the gaps were computed."""

    evaluated: int = -1
    """Step of the last evaluation used."""
    value: float = 0.0
    """Its loss."""


def gaps(state: GapState, validation: Rows, training: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Log of validation over training loss at each new evaluation, and its step.

    The training loss at an evaluation is a line in log time through the rows since the one before: their median lags
    where the curve is steep. Rows at or below 0 have no ratio and are left out.
    """
    good = np.isfinite(training.values) & (training.values > 0)
    steps, logs = training.steps[good], np.log(training.values[good])
    found: list[tuple[int, float]] = []
    for step, value in zip(validation.steps.tolist(), validation.values.tolist(), strict=True):
        if not np.isfinite(value) or step <= state.evaluated:
            continue
        a, b = np.searchsorted(steps, [state.evaluated, step], side="right")
        state.evaluated, state.value = step, value
        if value > 0 and b - a >= LEAST_BETWEEN:
            found.append((step, float(np.log(value) - _level_at(steps[a:b], logs[a:b], step))))
    return np.array([s for s, _ in found], np.int64), np.array([g for _, g in found])


def _level_at(steps: NDArray[np.int64], logs: NDArray[np.float64], step: int) -> float:
    x = np.log(steps - steps[0] + max(float(steps[0]), 1.0))
    x -= np.log(max(float(step), 1.0))
    middle = np.median(logs)
    reach = 5 * np.median(np.abs(logs - middle)) + 1e-12
    inside = np.clip(logs, middle - reach, middle + reach)
    spread = np.sum((x - x.mean()) ** 2)
    slope = np.sum((x - x.mean()) * inside) / spread if spread > 0 else 0.0
    return float(inside.mean() - slope * x.mean())
