"""Statistics that several checks share. They look back only, so that a live and a finished run get one answer.

Legend: n rows, L labels. A row is one stored value; rows need not be one step apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAD_TO_SIGMA = 1.4826
"""1 / Phi^-1(3/4): the median absolute deviation of a normal sample times this estimates its sigma."""

CHUNK_VALUES = 4_000_000


def trailing_baseline(
    values: Floats, *, window: int = 128, min_rows: int = 32, max_baselines: int = 40_000
) -> tuple[Floats, Floats]:
    """Median and robust sigma of the `window` rows before each row; NaN for the first `min_rows` rows.

    Early rows look back over half of what there is: the steep start of a curve is no measure of its noise. values:
    [n] or [n, L], finite. On long series neighbouring rows share one baseline (that of the first of them), so that
    at most `max_baselines` windows are sorted: 1,000,000 rows share in groups of 25, a fifth of the window.
    """
    n = len(values)
    center = np.full(values.shape, np.nan)
    sigma = np.full(values.shape, np.nan)
    if n <= min_rows:
        return center, sigma
    labels = int(np.prod(values.shape[1:]))
    stride = max(1, n * min(labels, 16) // max_baselines)
    full = min(2 * window, n)
    for end in range(min_rows, full):
        center[end], sigma[end] = _median_sigma(values[end - min(max(end // 2, min_rows), window) : end], axis=0)
    ends = np.arange(full, n, stride)
    if len(ends):
        # 128 rows spread over a longer window tell its median as well.
        view = sliding_window_view(values, window, axis=0)[..., :: max(1, window // 128)]
        per_chunk = max(1, CHUNK_VALUES // (view.shape[-1] * labels))
        chunks = [ends[i : i + per_chunk] - window for i in range(0, len(ends), per_chunk)]
        pairs = [_median_sigma(view[chunk], axis=-1) for chunk in chunks]
        center[full:] = np.repeat(np.concatenate([p[0] for p in pairs]), stride, axis=0)[: n - full]
        sigma[full:] = np.repeat(np.concatenate([p[1] for p in pairs]), stride, axis=0)[: n - full]
    return center, sigma


def _median_sigma(values: Floats, axis: int) -> tuple[Floats, Floats]:
    median = np.median(values, axis=axis, keepdims=True)
    mad = np.median(np.abs(values - median), axis=axis)
    return median.squeeze(axis), MAD_TO_SIGMA * mad


def segmented_baseline(
    values: Floats, starts: list[int], *, window: int = 128, min_rows: int = 32
) -> tuple[Floats, Floats]:
    """`trailing_baseline` that begins anew at each row of `starts`: a new level there was planned."""
    edges = sorted({0, *(s for s in starts if 0 < s < len(values)), len(values)})
    parts = [
        trailing_baseline(values[a:b], window=window, min_rows=min_rows)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    if not parts:
        return values.copy(), values.copy()
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def k_of_n(flags: Bools, k: int, n: int) -> Bools:
    """True where at least k of the last n rows (this one included) are flagged. flags: [rows]."""
    total = np.concatenate([[0], np.cumsum(flags)])
    row = np.arange(len(flags))
    enough: Bools = (total[row + 1] - total[np.maximum(row + 1 - n, 0)]) >= k
    return enough


def held_level(values: Floats, k: int, n: int) -> float:
    """The highest level that `k` of `n` neighbouring rows reach, in any column; NaN where no rows do.

    It is what a rule of k of n rows compares with its limit: the largest value of all may be a single row's. values:
    [rows, ...], NaN where unknown.
    """
    best = -np.inf
    for column in values.reshape(len(values), -1).T if len(values) >= n else ():
        above = column > best
        if above.sum() < k:
            continue
        total = np.concatenate([[0], np.cumsum(above)])
        windows = sliding_window_view(column, n)[total[n:] - total[:-n] >= k]
        if len(windows):
            known = np.where(np.isnan(windows), -np.inf, windows)
            best = max(best, float(np.partition(known, n - k, axis=1)[:, n - k].max()))
    return best if np.isfinite(best) else float("nan")


@dataclass(frozen=True, slots=True)
class Excursion:
    """Rows that left their baseline together."""

    first: int
    """First flagged row among those that set it off."""
    last: int
    """Last row before the values were calm again, or the last row of all."""
    recovered: bool
    rows_over: int
    peak: int
    """Row of the largest value."""


def excursions(
    values: Floats,
    over: Bools,
    calm_below: Floats,
    *,
    k: int = 1,
    n: int = 1,
    calm_rows: int = 5,
    at_most: int = 20_000,
) -> list[Excursion]:
    """Excursions with hysteresis: k of n rows `over` begin one; it ends once most of `calm_rows` rows are calm again.

    Calm is held against `calm_below` **at the onset**: a baseline that follows a lasting fault cannot declare it
    over. values, over, calm_below: [rows]; NaN in calm_below never begins an excursion.
    """
    hot = np.flatnonzero(k_of_n(over, k, n))
    found: list[Excursion] = []
    row = at = 0
    while len(found) < at_most:
        at = max(at, int(np.searchsorted(hot, row)))
        if at == len(hot):
            break
        trigger = int(hot[at])
        low = max(row, trigger - n + 1)
        if over[low : trigger + 1].sum() < k:
            # Rows of the excursion before still count in the running sum, but not in this one.
            at += 1
            continue
        first = low + int(np.argmax(over[low : trigger + 1]))
        end = _calm_again(values, float(calm_below[first]), trigger + 1, calm_rows)
        last = len(values) - 1 if end is None else end - 1
        inside = slice(first, last + 1)
        found.append(
            Excursion(first, last, end is not None, int(over[inside].sum()), first + int(np.argmax(values[inside])))
        )
        row = last + 1
    return found


def _calm_again(values: Floats, level: float, start: int, rows: int) -> int | None:
    need = rows // 2 + 1
    size = 4096
    while start < len(values):
        calm = values[start : start + size + rows] <= level
        sums = np.concatenate([[0], np.cumsum(calm)])
        if len(calm) < rows:
            return start + int(np.argmax(calm)) if calm.sum() >= need else None
        ready = np.flatnonzero(calm[: len(calm) - rows + 1] & (sums[rows:] - sums[:-rows] >= need))
        if len(ready):
            return start + int(ready[0])
        start += size
        size *= 4
    return None


def best_split(values: Floats) -> int:
    """Row at which two constant levels fit best (least squares): the first row of the second level.

    The exact one-change-point solution of ruptures' l2 cost (https://arxiv.org/abs/1801.00718), from running sums.
    values: [rows], finite; fewer than two rows give 0.
    """
    n = len(values)
    if n < 2:
        return 0
    total = np.cumsum(values - values.mean())[:-1]
    left = np.arange(1, n)
    return int(np.argmax(total**2 / (left * (n - left)))) + 1


def difference_sigma(values: Floats) -> float:
    """Noise of one row, from second differences: blind to trends, hardly moved by steps.

    The weights (1, -2, 1) of independent noise have variance 6 sigma^2. values: [rows]; NaN for fewer than 8 rows.
    """
    if len(values) < 8:
        return float("nan")
    return float(MAD_TO_SIGMA * np.median(np.abs(np.diff(values, 2))) / np.sqrt(6))


def block_edges(n: int, size: int) -> NDArray[np.int64]:
    """Edges of blocks of `size` rows that end at the last row: [blocks + 1]; rows before the first are left out."""
    blocks = n // size
    return n - size * np.arange(blocks, -1, -1)


def rows_near(edges: NDArray[np.int64], first: int, last: int, *, before: int = 20, after: int = 20) -> slice:
    """Rows in which a change seen in blocks `first` to `last` began: so many blocks around the start of the first.

    Empty, at row 0, where the first block of all shows it: then nothing was before. `best_split` of these rows is the
    onset. edges: [blocks + 1].
    """
    size = int(edges[1] - edges[0])
    start = int(edges[first])
    if first == 0:
        return slice(0, 0)
    return slice(max(start - before * size, 0), min(start + after * size, int(edges[last + 1])))


def block_medians(values: Floats, edges: NDArray[np.int64]) -> Floats:
    """Median of each block of equal size. values: [n, ...] -> [blocks, ...]."""
    size = int(edges[1] - edges[0])
    inside = values[edges[0] : edges[-1]]
    return np.median(inside.reshape(len(edges) - 1, size, *values.shape[1:]), axis=1)
