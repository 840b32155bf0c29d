"""One run's rows as another one might have logged them: every k-th, or the mean of k, on a grid without holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checks.twins.rows import Floats, LossRows, innovations

RATIOS = (2, 3, 4, 8)
"""Batch sizes that divide one another, as are tried where nothing is said of them."""
MOST_PHASES = 16
"""Places at which groups of rows may begin; of longer groups, those that the step numbers suggest."""


@dataclass(frozen=True)
class View:
    """Rows on a grid: the row of grid place i lies at `first + i * cadence`, in steps of its run."""

    first: int
    cadence: int
    values: Floats
    """[places] innovations, 0 where no row is."""
    known: NDArray[np.bool_]
    ratio: int = 1
    """Rows of the run that became one."""


def as_logged(rows: LossRows) -> View:
    """A run on its own grid."""
    return _view(rows.steps, innovations(rows.values), rows.cadence)


def thinned(rows: LossRows, k: int, at: int) -> Iterator[View]:
    """A run as a log of every k-th step shows it, or of means over k steps. `at`: a step that such a log has."""
    step = rows.cadence
    for phase in _phases(k, (at - int(rows.steps[0])) // step if len(rows.steps) else 0):
        wanted = (rows.steps - rows.steps[0]) // step % k == phase % k
        if wanted.sum() > 1:
            yield _view(rows.steps[wanted], innovations(rows.values[wanted]), step * k)
        yield from grouped(rows, k, phase)


def grouped(rows: LossRows, k: int, phase: int | None = None) -> Iterator[View]:
    """A run as one with a k times larger batch shows it: means of k neighbouring rows, from every place."""
    for start in [phase + 1 if phase is not None else p for p in (range(k) if phase is None else [0])]:
        start %= k
        whole = (len(rows.steps) - start) // k * k
        if whole < 2 * k:
            continue
        steps = rows.steps[start : start + whole].reshape(-1, k)
        even = steps[:, -1] - steps[:, 0] == (k - 1) * rows.cadence
        if even.sum() > 1:
            means = rows.values[start : start + whole].reshape(-1, k).mean(axis=1)
            view = _view(steps[even, -1], innovations(means[even]), rows.cadence * k)
            yield View(view.first, view.cadence, view.values, view.known, k)


def _phases(k: int, near: int) -> list[int]:
    if k <= MOST_PHASES:
        return list(range(k))
    return [(near + shift) % k for shift in (-1, 0, 1)]


def _view(steps: NDArray[np.int64], values: Floats, cadence: int) -> View:
    place = np.rint((steps - steps[0]) / cadence).astype(np.int64) if len(steps) else np.zeros(0, np.int64)
    # A hole of any length costs memory: one that is longer than the log itself ends it.
    whole = place <= 4 * len(place)
    size = int(place[whole][-1]) + 1 if whole.any() else 0
    grid, known = np.zeros(size), np.zeros(size, bool)
    grid[place[whole]] = values[whole]
    known[place[whole]] = True
    return View(int(steps[0]) if len(steps) else 0, cadence, grid, known)
