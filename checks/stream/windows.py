"""Blocks of rows of dyadic sizes, each held against a line in log time through the blocks before."""

from __future__ import annotations

import numpy as np

from checks.stream.course import back_by_itself, begin, expected
from checks.stream.jit import compiled
from checks.stream.layout import BEST, ERRORS, FOLD, LEAST_ROWS, LEVELS, RING, WINDOW
from checks.stream.noise import normal, own_noise, student

NINE_IN_TEN = 1.2816
"""Normal deviate below which nine in ten lie: so much above the threshold a change must be to show so often."""
BENDING = 0.2
"""Part of a long line's fall that the bend of a healthy curve may take off it: what is above that has risen."""


@compiled
def _scan(s, E, k, step, bounds, rows):  # type: ignore[no-untyped-def]
    """Judge the last two blocks of a level against the line through those before."""
    c = s.count[k]
    g = 1 << k
    if c < 8 or 6 * g > 0.35 * rows + 3:
        return
    n = min(min(16, c - 2), max(np.int64(0.35 * rows / g), 6))
    # Where there are enough blocks of twice the length, they make a longer line, half as unsure.
    r, skip, part = k, 3, 1.0
    if k + 1 < LEVELS and s.count[k + 1] >= RING and 32 * g <= 0.35 * rows:
        r, skip, part, n = k + 1, 1 + (c & 1), 0.5, 16
    newest = s.count[r] - skip
    a, b = (c - 1) % RING, (c - 2) % RING
    test = 0.5 * (s.ring[k, a] + s.ring[k, b])
    at = 0.5 * (s.place[k, a] + s.place[k, b])
    mx = my = 0.0
    for i in range(n):
        j = (newest - i) % RING
        mx += s.place[r, j]
        my += s.ring[r, j]
    mx /= n
    my /= n
    sxx = sxy = 0.0
    for i in range(n):
        j = (newest - i) % RING
        dx = s.place[r, j] - mx
        sxx += dx * dx
        sxy += dx * (s.ring[r, j] - my)
    predicted = my + (at - mx) * sxy / sxx
    leverage = 0.5 + part * (1.0 / n + (at - mx) ** 2 / sxx)
    if bounds.level == 2:
        predicted, leverage = my, 0.5 + part / n
    e = test - predicted
    s.looks[k] += 1
    if s.looks[k] % 4 == 1 or e * e > 4 * s.variance[k] * leverage:
        own_noise(s, k, rows)
    sd = np.sqrt(s.variance[k])
    nu = s.freedom[k]
    error = sd * np.sqrt(leverage)
    effect = min(e, test - my) if bounds.level > 0 else e
    if bounds.level == 0 and r != k:
        effect -= BENDING * max(my - predicted, 0.0)
    how = WINDOW
    if sxy > 0 and bounds.level == 0:
        # A healthy loss falls or stays: a line that rises has the fault in it, and is not drawn on.
        effect = test - my
        up = normal(effect / (sd * np.sqrt(0.5 + part / n)), nu)
    else:
        up = normal(effect / error, nu)
    if s.best_count[k] > 0 and bounds.level == 0:
        bias = sd / 2.8284 * np.sqrt(2 * np.log(1 + s.best_count[k] / 4))
        over = test - s.best[k] - bias
        z = normal(over / (sd * 0.7906), nu)  # sqrt(1/2 + 1/8)
        if z > up:
            up, effect, how = z, over, BEST
    warn, fall = bounds.warn, bounds.fall
    if s.mode == 1:
        warn, fall = bounds.raw_warn * s.scale, bounds.raw_fall * s.scale
    s.visible[k] = max(student(bounds.z_warn[k], nu) * error, warn) + NINE_IN_TEN * error
    # A steep line extrapolates badly; a fall counts only beyond what doubling its slope would explain.
    depth = predicted - 2 * abs(my - predicted) - test
    down = normal(depth / error, nu)
    if up > bounds.z_warn[k] and effect > warn and rows >= LEAST_ROWS:
        begin(s, E, 1, how, 2 * g, up, effect, test - effect, expected(s)[1], error, rows, step, bounds)
    elif down > bounds.z_warn[k] and depth > fall and rows >= LEAST_ROWS:
        begin(s, E, -1, WINDOW, 2 * g, down, depth, test + depth, expected(s)[1], error, rows, step, bounds)
    else:
        # Neighbouring looks share half of their rows: once there are some, every second one is enough.
        if s.error_count[k] < 16 or s.looks[k] & 1:
            i = s.error_count[k] % ERRORS
            s.error[k, i] = e * e / leverage
            s.error_row[k, i] = rows
            s.error_count[k] += 1
        low = 0.0
        for j in range(8):
            low += s.ring[k, (c - 1 - j) % RING] / 8
        s.best[k] = min(s.best[k], low)
        s.best_count[k] += 1


@compiled
def push(s, E, k, value, step, bounds, rows):  # type: ignore[no-untyped-def]
    """A block of level k is complete: keep it, judge it, and pass pairs on to the level above."""
    while True:
        at = s.count[k] % RING
        s.ring[k, at] = value
        s.place[k, at] = np.log(s.origin + (s.count[k] + 0.5) * (1 << k) + 1.0)
        s.count[k] += 1
        if s.open < 0:
            if k == 6 and s.offset != 0:
                back_by_itself(s, E, value + s.offset, step, bounds)
            _scan(s, E, k, step, bounds, rows)
        if s.count[k] & 1 or k == LEVELS - 1:
            return
        value = 0.5 * (value + s.ring[k, (s.count[k] - 2) % RING])
        k += 1


@compiled
def push_fold(s, E, step, bounds):  # type: ignore[no-untyped-def]
    s.square += (s.fold_square / FOLD - s.square) * (FOLD / 64.0)
    mean = s.fold_sum / FOLD
    s.fold_sum = s.fold_square = 0.0
    push(s, E, 3, mean, step, bounds, s.rows)
