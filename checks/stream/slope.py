"""Plateaus and values that repeat: what a change of level does not show."""

from __future__ import annotations

import numpy as np

from checks.stream.jit import compiled

MEANS = 512
PLATEAU = np.dtype(
    [
        ("rows", "i8"), ("width", "i8"), ("filled", "i8"), ("sum", "f8"), ("part", "i8"), ("mean", "f8", MEANS),
        ("mean_step", "i8", MEANS), ("next", "f8"), ("looks", "i8"), ("answered", "i8"), ("flat_since", "i8"),
        ("flat_low", "i8"), ("seen", "i8"), ("z", "f8"), ("before", "f8"), ("after", "f8"), ("ended", "i8"),
        ("largest", "f8"),
    ]
)  # fmt: skip
"""Means over the whole run, at most 512, and the last plateau: `flat_since` -1 for none, `ended` -1 while it lasts."""

REPEATS = np.dtype(
    [
        ("last", "f8"), ("run", "i8"), ("first", "i8"), ("rows", "i8"), ("ties", "i8"), ("found", "i8"), ("open", "i8"),
        ("start", "i8", 32), ("end", "i8", 32), ("length", "i8", 32), ("longest", "i8"), ("last_step", "i8"),
        ("end_row", "i8", 32), ("read", "i8"),
    ]
)  # fmt: skip
"""Runs of equal values: the ordinary rate of ties, and at most 32 runs that it does not explain."""

KEPT_SLOPE = 0.3
"""A plateau has less than this part of the slope that it had before, in log time."""
COARSE = 0.25
"""Where this part of neighbours is equal, the log is printed too coarsely to tell a stuck value."""
TIES_COUNTED = 3
RARE = -11.5129  # ln 1e-5


def new_plateau() -> np.ndarray:
    """Before the first row: one record."""
    record = np.zeros(1, PLATEAU)
    record["width"], record["flat_since"], record["ended"], record["next"] = 1, -1, -1, 24.0
    return record


def new_repeats() -> np.ndarray:
    """Before the first row: one record."""
    record = np.zeros(1, REPEATS)
    record["last"], record["open"] = np.nan, -1
    return record


@compiled
def _slope(p, low, high):  # type: ignore[no-untyped-def]
    """Slope in log time of the means between two rows, and its standard error; NaN with fewer than 8 means."""
    a = np.int64(np.ceil(low / p.width))
    b = min(np.int64(high / p.width), p.filled)
    n = b - a
    if n < 8:
        return np.nan, np.nan
    mx = my = 0.0
    for i in range(a, b):
        mx += np.log((i + 0.5) * p.width + 1.0) / n
        my += p.mean[i] / n
    sxx = sxy = syy = 0.0
    for i in range(a, b):
        dx = np.log((i + 0.5) * p.width + 1.0) - mx
        dy = p.mean[i] - my
        sxx += dx * dx
        sxy += dx * dy
        syy += dy * dy
    slope = sxy / sxx
    return slope, np.sqrt(max(syy - slope * sxy, 1e-18) / (n - 2) / sxx)


@compiled
def _look(p, step):  # type: ignore[no-untyped-def]
    p.looks += 1
    t = float(p.rows)
    known = False
    for w in (1.25, 1.5, 2.0):
        before, before_error = _slope(p, t / (2.2 * w), t / w)
        after, after_error = _slope(p, t / w, t)
        if not (np.isfinite(before) and np.isfinite(after)):
            continue
        if p.flat_since >= 0 and p.ended < 0:
            if -after > 4 * after_error and after < KEPT_SLOPE * p.before:
                p.ended = step
            continue
        if -before <= 4 * before_error:
            continue
        known = True
        z = (after - KEPT_SLOPE * before) / np.sqrt(after_error**2 + (KEPT_SLOPE * before_error) ** 2)
        p.largest = max(p.largest, z)
        if z > 3:
            at = min(np.int64(t / w / p.width), p.filled - 1)
            p.flat_since, p.flat_low = p.mean_step[at], p.mean_step[min(np.int64(t / (2.2 * w) / p.width), at)]
            p.seen, p.z, p.before, p.after, p.ended = step, z, before, after, -1
            return
    if known:
        p.answered += 1


@compiled
def feed_plateau(p, steps, us):  # type: ignore[no-untyped-def]
    """Read rows: at every 5 % of growth the slope of late rows is held against the slope of those before."""
    for i in range(len(us)):
        if p.part == 0:
            p.mean_step[p.filled] = steps[i]
        p.sum += us[i]
        p.part += 1
        p.rows += 1
        if p.part == p.width:
            p.mean[p.filled] = p.sum / p.width
            p.filled += 1
            p.sum, p.part = 0.0, 0
            if p.filled == MEANS:
                for j in range(MEANS // 2):
                    p.mean[j] = 0.5 * (p.mean[2 * j] + p.mean[2 * j + 1])
                    p.mean_step[j] = p.mean_step[2 * j]
                p.filled, p.width = MEANS // 2, 2 * p.width
        if p.rows >= p.next:
            _look(p, steps[i])
            p.next = p.rows * 1.05


@compiled
def feed_repeats(r, steps, ys):  # type: ignore[no-untyped-def]
    """Read rows: equal values in a row that the ordinary rate of ties does not explain. Each run counts 3 at most."""
    for i in range(len(ys)):
        y = ys[i]
        r.read += 1
        if y == r.last:
            r.run += 1
            if r.run <= TIES_COUNTED:
                r.ties += 1
                r.rows += 1
            rate = (r.ties + 1.0) / (r.rows + 2.0)
            strange = rate <= COARSE and (r.run - 1) * np.log(rate) < RARE
            if strange or r.run >= 200 and (rate <= COARSE or r.rows < 50):
                if r.open < 0 and r.found < 32:
                    r.open = r.found
                    r.found += 1
                    r.start[r.open] = r.first
                if r.open >= 0:
                    r.end[r.open], r.length[r.open], r.end_row[r.open] = steps[i], r.run, r.read
        else:
            r.last, r.run, r.first, r.open = y, 1, steps[i], -1
            r.rows += 1
        r.longest = max(r.longest, r.run)
        r.last_step = steps[i]
