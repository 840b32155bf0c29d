"""Where a change began: a line and a curve in log time, plus a step or a ramp at every place, by least squares."""

from __future__ import annotations

import numpy as np

from checks.stream.jit import compiled
from checks.stream.layout import LEVELS, TRAIL

ONSET_C = 10.6
"""99 % point of the likelihood ratio of a change point (Hansen, Econometrica 68, 2000: 2 ln(1/(1 - sqrt(.99))))."""
MOST_POINTS = 640
FEWEST = 6
SHAPES = 9


@compiled
def onset_fit(s, e, first, floor):  # type: ignore[no-untyped-def]
    """Set onset, interval and shape of an episode from the means that the state kept.

    Args:
        s: state record.
        e: episode record.
        first: first row that may be used.
        floor: standard error of a block mean that no length takes away.
    """
    x = np.empty(MOST_POINTS)
    y = np.empty(MOST_POINTS)
    w = np.empty(MOST_POINTS)
    start = np.empty(MOST_POINTS)
    size = np.empty(MOST_POINTS)
    step = np.empty(MOST_POINTS, np.int64)
    n = 0
    end = s.rows
    for k in range(LEVELS):
        # The newest rows one by one, older ones in blocks that grow with their distance.
        blocks = s.trail_count[k]
        oldest = max(blocks - TRAIL, 0)
        stop = oldest
        if k < LEVELS - 1:
            stop = oldest + (oldest & 1)
        j = (end >> k) - 1
        while j >= stop and (j << k) >= first and n < MOST_POINTS:
            y[n] = s.trail[k, j % TRAIL]
            step[n] = s.trail_step[k, j % TRAIL]
            start[n] = j << k
            size[n] = 1 << k
            x[n] = np.log((j << k) + 0.5 * (1 << k) + 1.0)
            w[n] = 1.0 / (e.scale * e.scale / (1 << k) + floor * floor)
            n += 1
            j -= 1
        end = (j + 1) << k
        if j >= 0 and (j << k) < first:
            break
        if j < stop and stop == 0:
            break
    if n < FEWEST:
        return
    for a in range(n // 2):
        b = n - 1 - a
        x[a], x[b] = x[b], x[a]
        y[a], y[b] = y[b], y[a]
        w[a], w[b] = w[b], w[a]
        start[a], start[b] = start[b], start[a]
        size[a], size[b] = size[b], size[a]
        step[a], step[b] = step[b], step[a]
    base = 3 if n >= 24 else 2
    if n < 12:
        base = 1
    q = np.empty((base, n))
    mid = 0.5 * (x[0] + x[n - 1])
    for d in range(base):
        for i in range(n):
            q[d, i] = (x[i] - mid) ** d
        for c in range(d):
            dot = 0.0
            for i in range(n):
                dot += w[i] * q[c, i] * q[d, i]
            for i in range(n):
                q[d, i] -= dot * q[c, i]
        norm = 0.0
        for i in range(n):
            norm += w[i] * q[d, i] * q[d, i]
        norm = np.sqrt(max(norm, 1e-300))
        for i in range(n):
            q[d, i] /= norm
    r = y[:n].copy()
    for d in range(base):
        dot = 0.0
        for i in range(n):
            dot += w[i] * q[d, i] * y[i]
        for i in range(n):
            r[i] -= dot * q[d, i]
    total = 0.0
    for i in range(n):
        total += w[i] * r[i] * r[i]
    gain = np.zeros((SHAPES, n))
    column = np.empty(n)
    last = start[n - 1] + size[n - 1]
    for shape in range(SHAPES):
        for j in range(2, n):
            # A step, or a ramp over all, 0.7, 0.5, 0.35 ... of the rows since, which then stays level.
            length = (last - start[j]) * 0.7071 ** (SHAPES - 1 - shape)
            for i in range(j, n):
                column[i] = 1.0 if shape == 0 else min(start[i] + 0.5 * size[i] - start[j], length)
            own = 0.0
            along = 0.0
            for i in range(j, n):
                own += w[i] * column[i] * column[i]
                along += w[i] * column[i] * r[i]
            for d in range(base):
                dot = 0.0
                for i in range(j, n):
                    dot += w[i] * q[d, i] * column[i]
                own -= dot * dot
            if own > 1e-9 * w[n - 1] and along * e.side > 0:
                gain[shape, j] = along * along / own
    best = 0
    ramp = 0
    for shape in range(SHAPES):
        for j in range(2, n):
            if gain[shape, j] > gain[ramp, best]:
                best = j
                ramp = shape
    if best == 0:
        return
    # A perfect fit of few points would leave no interval at all: the known noise bounds it from below.
    least = max(total - gain[ramp, best], 0.25 * n)
    low = best
    high = best
    for shape in range(SHAPES):
        for j in range(2, n):
            away = gain[ramp, best] - gain[shape, j]
            if gain[shape, j] > 0 and n * np.log((least + away) / least) <= ONSET_C:
                low = min(low, j)
                high = max(high, j)
    low_step = step[low - 1] + (1 if size[low - 1] > 1 else 0)
    if size[low - 1] == 1:
        low_step = step[low]
    high_step = step[high + 1] - 1 if high + 1 < n and size[high] > 1 else step[high]
    if low_step <= e.onset <= high_step and high_step - low_step >= e.onset_high - e.onset_low:
        return
    first = step[best]
    if not low_step <= e.onset <= high_step:
        # Two answers that exclude one another: the fit is not of the right shape, so neither bound is dropped. A jump
        # that was placed when it was fresh stays where it was.
        if ramp < SHAPES // 2 and high_step - low_step >= e.onset_high - e.onset_low:
            first = e.onset
        low_step, high_step = min(low_step, e.onset_low), max(high_step, e.onset_high)
    e.onset_low = min(low_step, first)
    e.onset_high = max(high_step, first)
    e.ramp = 1 if ramp > 0 else 0
    if first != e.onset:
        e.onset = first
        e.onset_row = np.int64(start[best])
