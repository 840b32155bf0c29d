"""What reading a run gives, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.catalogue import Signal


@dataclass(frozen=True, slots=True)
class Series:
    """A signal at full resolution: ranks merged, one branch or the main line."""

    signal: Signal
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    """[n, *axes]"""
    present: NDArray[np.bool_] | None
    """Where a value exists at all (None: everywhere). A NaN that is present is data."""
    labels: tuple[tuple[str, ...], ...]
    """Labels of every axis."""
    partial: NDArray[np.bool_] | None = None
    """Steps at which some ranks are missing, so that the value is over the others [n]; None: nowhere."""

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a run holds."""

    rows: int
    """Readable rows of all frames, ranks and attempts."""
    ranks: int
    """Ranks with a readable row."""
    frames: int
    attempts: int
    first_step: int | None
