"""Every series of a run as lines: a signal, or one label of a signal with axes, in steps, values and times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.store import Run


@dataclass(frozen=True, slots=True)
class Line:
    """One series of the main line, bit by bit as the run's reader gives it."""

    name: str
    label: str
    """Of a signal with axes: its labels joined by dots, as in `Run.series`; "" of one without."""
    unit: str
    meaning: str
    steps: NDArray[np.int64]
    """[n], rising."""
    values: NDArray[np.float64]
    """[n]; a NaN is one that was logged."""
    times: NDArray[np.float64]
    """[n], Unix seconds; NaN where nobody knows."""

    @property
    def path(self) -> str:
        """Name and label as one name."""
        return f"{self.name}/{self.label}" if self.label else self.name


def lines(run: Run) -> Iterator[Line]:
    """The lines of a run that have a value, one signal in memory at a time."""
    for name in run.signals()["name"]:
        data = run.array(name)
        at, when = run.times(name)
        places = np.minimum(np.searchsorted(at, data.steps), max(len(at) - 1, 0))
        times = np.where(at[places] == data.steps, when[places], np.nan) if len(at) else np.full(len(data), np.nan)
        labels = [".".join(parts) for parts in itertools.product(*data.labels)] if data.labels else [""]
        values = data.values.reshape(len(data), len(labels))
        present = None if data.present is None else data.present.reshape(values.shape)
        for column, label in enumerate(labels):
            keep = slice(None) if present is None else present[:, column]
            if len(data.steps[keep]):
                yield Line(name, label, data.signal.unit, data.signal.meaning, data.steps[keep],
                           np.ascontiguousarray(values[keep, column]), times[keep])
