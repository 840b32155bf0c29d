"""What reading a run gives, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Logged:
    """What one attempt has of one frame on the main line."""

    frame: str
    attempt: int
    """Position in `Run.attempts`."""
    steps: NDArray[np.int64]
    """Steps with a row of any rank, rising [n]."""
    repeats: Mapping[int, NDArray[np.int64]]
    """Rank -> steps for which it wrote more than one row, the last of which counts; without ranks that did not."""
    lacking: Mapping[int, NDArray[np.int64]]
    """Rank -> steps at which it has no row though another rank has one; without ranks that have all."""
