"""From a million steps to two thousand buckets that keep every extreme and every NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Min/max buckets of a series; the first axis of every array is the bucket, the others are the labels."""

    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    mean: Array
    """Mean of the finite values; NaN where a bucket has none."""
    lo: Array
    hi: Array
    nonfinite: NDArray[np.int64]
    """Values that were NaN or infinite."""
    count: NDArray[np.int64]
    """Values that existed at all."""


def decimate(steps: NDArray[np.int64], values: Array, present: NDArray[np.bool_] | None, max_points: int) -> Buckets:
    """Group rows into at most `max_points` buckets of equal row counts.

    steps [n], values [n, *labels], present like values or None. A series of at most `max_points` rows keeps them all.
    """
    n = len(steps)
    starts = np.unique(np.linspace(0, n, min(max_points, n), endpoint=False).astype(np.int64))
    ends = np.append(starts[1:], n) - 1 if n else starts
    if not n:
        empty, whole = np.empty(values.shape), np.empty(values.shape, np.int64)
        return Buckets(steps, steps, empty, empty, empty, whole, whole)
    finite = np.isfinite(values)
    exists = np.ones(values.shape, bool) if present is None else present
    finite &= exists
    if finite.all():
        lo, hi = np.minimum.reduceat(values, starts, axis=0), np.maximum.reduceat(values, starts, axis=0)
        total, counted = np.add.reduceat(values, starts, axis=0), None
    else:
        lo = np.minimum.reduceat(np.where(finite, values, np.inf), starts, axis=0)
        hi = np.maximum.reduceat(np.where(finite, values, -np.inf), starts, axis=0)
        total = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=0)
        counted = np.add.reduceat(finite, starts, axis=0, dtype=np.int64)
    widths = (ends - starts + 1).reshape(-1, *[1] * (values.ndim - 1))
    size = np.broadcast_to(widths, lo.shape) if counted is None else counted
    count = size if counted is None else np.add.reduceat(exists, starts, axis=0, dtype=np.int64)
    none = size == 0
    mean = np.divide(total, size, out=np.full(lo.shape, np.nan), where=~none)
    return Buckets(steps[starts], steps[ends], mean, np.where(none, np.nan, lo), np.where(none, np.nan, hi),
                   count - size, count)
