"""Series as checks want them, and one read per signal however many checks ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainvitals.errors import UnknownSignal

if TYPE_CHECKING:
    from trainvitals.store import Run

T = TypeVar("T")
ENDLESS = 2**62


@dataclass(frozen=True, slots=True)
class Rows:
    """A signal's rows. NaN means either not finite or absent; `absent` tells them apart."""

    steps: NDArray[np.int64]
    """[n]"""
    values: NDArray[np.float64]
    """[n] or [n, L]"""
    labels: tuple[str, ...] = ()
    """[L]"""

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Rows:
        """Rows of a scalar signal that hold a finite number."""
        keep = np.isfinite(self.values)
        return Rows(self.steps[keep], self.values[keep])


class Snapshot:
    """A run seen by many checks in one pass: each whole signal is read once, then remembered."""

    def __init__(self, run: Run, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._run = run
        self.settings = settings or {}
        """Check, or `scan.NAME` -> threshold -> value, in place of the defaults."""
        self._known: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    @property
    def run(self) -> Run:
        """The run itself."""
        return self._run

    def remember(self, key: Any, compute: Callable[[], T]) -> T:
        """The value of `compute()`, computed at the first call with this key."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]  # type: ignore[no-any-return]

    def events(self) -> Any:
        """The run's events, read once."""
        return self.remember("events", self._run.events)


def remember(run: Run, key: Any, compute: Callable[[], T]) -> T:
    """`compute()`, once per snapshot; every time on a plain run."""
    return run.remember(key, compute) if isinstance(run, Snapshot) else compute()


def has(run: Run, name: str) -> bool:
    """Whether the run holds any row of this signal."""
    try:
        return bool(run.has(name))
    except UnknownSignal:
        return False


def scalar(run: Run, name: str) -> Rows:
    """A signal without axes; rows in which it does not exist are left out, rows that are NaN stay."""
    return remember(run, ("scalar", name), lambda: _scalar(run, name))


def vector(run: Run, name: str) -> Rows:
    """A signal with one axis; NaN where a label has no value in a row."""
    return remember(run, ("vector", name), lambda: _vector(run, name))


def since(run: Run, name: str, step: int | None) -> Rows:
    """Rows of a signal without axes or with one, from a step on; all of them where None. NaN where there is none."""
    if step is None:
        return scalar(run, name) if not _axes(run, name) else vector(run, name)
    series = run.array(name, steps=(step, ENDLESS))
    values = np.asarray(series.values, np.float64)
    if series.present is not None:
        values = np.where(series.present, values, np.nan)
    return Rows(series.steps, values, tuple(series.labels[0]) if series.labels else ())


def _axes(run: Run, name: str) -> int:
    return len(run.array(name, steps=(0, -1)).labels)


def _scalar(run: Run, name: str) -> Rows:
    if not has(run, name):
        return Rows(np.zeros(0, np.int64), np.zeros(0))
    series = run.array(name)
    values = np.asarray(series.values, np.float64)
    if series.present is None:
        return Rows(series.steps, values)
    return Rows(series.steps[series.present], values[series.present])


def _vector(run: Run, name: str) -> Rows:
    if not has(run, name):
        return Rows(np.zeros(0, np.int64), np.zeros((0, 0)))
    series = run.array(name)
    values = np.asarray(series.values, np.float64)
    if series.present is not None:
        values = np.where(series.present, values, np.nan)
    return Rows(series.steps, values, tuple(series.labels[0]))
