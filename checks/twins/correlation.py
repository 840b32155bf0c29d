"""How two series of innovations correlate at every offset, against what other offsets show: the null of this pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from checks.twins.rows import Floats
from checks.twins.views import View

LEAST_ROWS = 48
"""Rows that two runs must share at an offset for it to be looked at."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The offset at which two series agree most."""

    r: float
    """Correlation, -1 to 1."""
    lag: int
    """Place of the second series' grid less place of the first's."""
    rows: int
    """Rows that both have there."""
    z: float
    """Fisher's z of the correlation in deviations of what all other offsets show."""
    next_z: float
    """The same of the best offset elsewhere."""


NONE = Peak(0.0, 0, 0, 0.0, 0.0)


def peak(a: View, b: View, mask: NDArray[np.bool_] | None = None) -> Peak:
    """The best offset. `mask` leaves out places of the first series."""
    known = a.known if mask is None else a.known & mask
    r, rows, lags = _all_lags(np.where(known, a.values, 0.0), known, b.values * b.known, b.known)
    looked = rows >= LEAST_ROWS
    if not looked.any():
        return NONE
    with np.errstate(divide="ignore", invalid="ignore"):
        fisher = np.arctanh(np.clip(r, -0.999999, 0.999999)) * np.sqrt(np.maximum(rows - 3, 0))
    fisher = np.where(looked, fisher, -np.inf)
    best = int(np.argmax(fisher))
    elsewhere = looked.copy()
    elsewhere[np.abs(lags - lags[best]) <= 2] = False
    others = fisher[elsewhere]
    spread = max(1.4826 * float(np.median(np.abs(others))), 1.0) if len(others) >= 20 else 1.5
    return Peak(float(r[best]), int(lags[best]), int(rows[best]), float(fisher[best]) / spread,
                float(others.max()) / spread if len(others) else 0.0)  # fmt: skip


def _all_lags(
    a: Floats, known_a: NDArray[np.bool_], b: Floats, known_b: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Correlation about zero, shared rows, and lag, of every lag of b against a."""
    if not len(a) or not len(b):
        return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    size = next_fast_len(len(a) + len(b), real=True)

    def ahead(x: Floats) -> NDArray[np.complex128]:
        return np.asarray(rfft(x, size))

    ones_a, ones_b = ahead(known_a.astype(float)), ahead(known_b.astype(float))

    def together(x: NDArray[np.complex128], y: NDArray[np.complex128]) -> Floats:
        return np.asarray(irfft(np.conj(x) * y, size))

    product = together(ahead(a), ahead(b))
    power = together(ahead(a * a), ones_b) * together(ones_a, ahead(b * b))
    rows = np.rint(together(ones_a, ones_b)).astype(np.int64)
    lags = np.arange(size)
    lags = np.where(lags < len(b), lags, lags - size)
    r = np.divide(product, np.sqrt(np.maximum(power, 0)), out=np.zeros(size), where=power > 1e-9)
    return r, rows, lags


def local(a: View, b: View, lag: int, block: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Correlation in blocks of places at one lag: of each block r and rows, and the places of a that both have."""
    place = np.arange(len(a.values))
    other = place + lag
    inside = (other >= 0) & (other < len(b.values))
    both = np.zeros(len(place), bool)
    both[inside] = a.known[inside] & b.known[other[inside]]
    x, y = np.where(both, a.values, 0.0), np.zeros(len(place))
    y[both] = b.values[other[both]]
    starts = np.arange(0, len(place), block)
    sums = [np.add.reduceat(v, starts) for v in (x * y, x * x, y * y, both.astype(float))] if len(place) else []
    if not sums:
        return np.zeros(0), np.zeros(0, np.int64), both
    power = np.sqrt(sums[1] * sums[2])
    r = np.divide(sums[0], power, out=np.zeros(len(starts)), where=power > 1e-9)
    return r, sums[3].astype(np.int64), both
