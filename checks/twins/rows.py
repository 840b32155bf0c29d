"""The loss of a run as recognition wants it: its rows, and what of each one its past and future do not explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz
from scipy.ndimage import median_filter
from scipy.signal import lfilter

from checks.reading import has
from trainvitals.fingerprint import batch_hashes

if TYPE_CHECKING:
    from trainvitals.store import Run

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
SIGNALS = ("loss/train", "loss/returned")
TREND_ROWS, SCALE_ROWS = 21, 101
"""Windows of the running medians: short against any course of a loss, long against its noise."""
ORDER = 8
CLIP = 4.0
"""Deviations beyond which a row counts no more: one shared spike must not make twins of two runs."""
MOST_ROWS = 1 << 18
"""Newest rows that are compared."""


@dataclass(frozen=True)
class LossRows:
    """The training loss of one run, or of one rolled-back attempt of it."""

    name: str
    steps: Steps
    """[n] rising."""
    values: Floats
    """[n] log loss; the loss itself where it is not positive throughout."""
    hash_steps: Steps
    hashes: NDArray[np.uint64]
    """Fingerprints of batches, where the tap wrote them."""

    @property
    def cadence(self) -> int:
        """Steps from one row to the next, as most rows have it."""
        return max(int(np.median(np.diff(self.steps))), 1) if len(self.steps) > 1 else 1


def loss_rows(run: Run, branch: int | None = None) -> LossRows:
    """Read a run's main line, or a branch that a restart left."""
    none = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    hashes = batch_hashes(run) if branch is None else none
    name = run.path if branch is None else f"{run.path}#{branch}"
    for signal in SIGNALS:
        if has(run, signal):
            series = run.array(signal, branch=branch)
            values = np.asarray(series.values, float)
            known = np.isfinite(values) if series.present is None else np.isfinite(values) & series.present
            if known.any():
                return from_arrays(name, series.steps[known], values[known], *hashes)
    return from_arrays(name, np.zeros(0, np.int64), np.zeros(0), *hashes)


def from_arrays(
    name: str, steps: Steps, losses: Floats, hash_steps: Steps | None = None, hashes: Any = None
) -> LossRows:
    """Rows from arrays. steps: [n] rising; losses: [n] finite."""
    steps, losses = steps[-MOST_ROWS:], losses[-MOST_ROWS:]
    values = np.log(losses) if len(losses) and losses.min() > 0 else losses.astype(float)
    return LossRows(name, steps, values, np.zeros(0, np.int64) if hash_steps is None else hash_steps,
                    np.zeros(0, np.uint64) if hashes is None else hashes)  # fmt: skip


def residuals(values: Floats) -> Floats:
    """What a running median leaves of each row, [n]; twice, so that a bend leaves nothing."""
    rest = values - median_filter(values, TREND_ROWS, mode="nearest")
    found: Floats = rest - median_filter(rest, TREND_ROWS, mode="nearest")
    return found


def deviation(values: Floats) -> float:
    """Robust standard deviation: 1.4826 times the median distance to the median; 0 of nothing."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def innovations(values: Floats) -> Floats:
    """Residuals in units of their own spread nearby, clipped, and with what neighbours tell of them taken out, [n].

    Two series with courses of their own correlate by chance alone, and two schedules of one form by more than that:
    what is compared is white (Box and Jenkins' pre-whitening, here by the Yule-Walker equations of order 8).
    """
    if len(values) < 4 * TREND_ROWS:
        return np.zeros(len(values))
    rest = residuals(values)
    scale = 1.4826 * median_filter(np.abs(rest), SCALE_ROWS, mode="nearest")
    usual = deviation(rest)
    if usual <= 1e-12 * max(float(np.abs(values).max()), 1.0):
        return np.zeros(len(values))
    scaled = np.clip(rest / np.maximum(scale, usual / 10), -CLIP, CLIP)
    scaled -= scaled.mean()
    n = len(scaled)
    covariance = np.array([np.dot(scaled[: n - k], scaled[k:]) / n for k in range(ORDER + 1)])
    covariance[0] *= 1.001
    weights = solve_toeplitz(covariance[:ORDER], covariance[1:])
    white: Floats = np.clip(lfilter(np.r_[1.0, -weights], 1.0, scaled), -CLIP, CLIP)
    return white
