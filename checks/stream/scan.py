"""The scan: reads the rows of one series in order, never looks ahead, and keeps the episodes off its trend.

Blocks of 1, 2, 4 ... rows are held against a line in log time through the blocks before them; each scale is judged by
the errors that its own predictions made. Time is logarithmic and the noise is measured because false alarms on losses
come from the trend, not from the noise. Size-dependent thresholds: Walther, https://arxiv.org/abs/2107.08296; tails of
single rows: Siffer et al., KDD 2017 (https://doi.org/10.1145/3097983.3098144); t quantiles: Wallace, Annals of
Mathematical Statistics 30, 1959.
"""

from __future__ import annotations

import numpy as np

from checks.stream.course import begin, end_run, expected, follow, link, locate, restart, trend
from checks.stream.jit import compiled
from checks.stream.layout import (
    DIFFERENCES,
    FOLD,
    FOLD_FROM,
    HUGE,
    LEAST_ROWS,
    LEVELS,
    LONE,
    NOTES,
    RECENT,
    ROWS,
    TRAIL,
)
from checks.stream.noise import CLIP, keep, look_around, measure_noise, normal
from checks.stream.windows import push, push_fold

OUTLIER = 6.0
TAIL = 4.0
NOTED = 5.0
"""Deviations beyond which a single row is remembered: it may stand out in another run, too."""


@compiled
def _judge_row(s, E, u, step, bounds):  # type: ignore[no-untyped-def]
    """The row against its neighbours: side of an opening (0: none), whether it stands out alone, and the effect."""
    rows, scale, centre = s.rows, s.scale, s.center
    z = 0.0
    if rows >= 2 and scale > 0:
        z = (u - centre) / scale
        if rows < 400:
            z = normal(z, 1 + 0.4 * rows)
    s.top = max(s.top, z)
    side = 1 if z > 0 else -1
    away = abs(z)
    opening, lone, effect = 0, False, side * (u - centre)
    if away > 3 and rows >= LEAST_ROWS - 1:
        if away > NOTED:
            s.note_step[s.notes % NOTES], s.note_z[s.notes % NOTES] = step, z
            s.notes += 1
        lam = (s.tail_count + 1.0) / (s.tail_rows + 2000.0)
        beta = (s.tail_sum + 2.0) / (s.tail_count + 2.0)
        logp = min(np.log(lam) - (away - TAIL) / beta, np.log(0.05))
        if s.run == 0 or s.run_side != side:
            end_run(s)
            s.run_side = side
        s.run += 1
        s.run_logp += logp
        s.run_sum += u - centre
        alpha = bounds.alpha_rows * max(1.0, 500.0 / (rows + 1))
        warn, fall, alone = bounds.warn, bounds.fall, bounds.lone
        if s.mode == 1:
            warn, fall, alone = bounds.raw_warn * scale, bounds.raw_fall * scale, bounds.raw_lone * scale
        mean = side * s.run_sum / s.run
        if s.run >= 2 and s.run_logp < np.log(alpha / 14) and mean > (warn if side > 0 else fall):
            opening, effect = side, mean
        elif logp < np.log(alpha * 5 / 6) and effect > alone:
            lone = True
        if away > TAIL:
            s.run_tail += 1
            s.run_tail_sum += min(away, 16.0) - TAIL
    else:
        end_run(s)
    return opening, lone, away, effect


@compiled
def _row(s, E, u, step, bounds, scratch):  # type: ignore[no-untyped-def]
    """One row, with everything; u is free of told offsets."""
    folding = s.since >= FOLD_FROM
    if not folding or s.since % FOLD == 0 or s.open >= 0:
        look_around(s, scratch)
    centre, scale = s.center, s.scale
    opening, lone, away, effect = 0, False, 0.0, 0.0
    if s.open < 0:
        opening, lone, away, effect = _judge_row(s, E, u, step, bounds)
        _count_tail(s)
    huge = s.open < 0 and s.mode == 0 and 3 <= s.rows < LEAST_ROWS - 1 and u > s.lowest + bounds.huge
    s.huge_run = s.huge_run + 1 if huge else 0
    reach = 8 * scale
    clipped = s.open < 0 and s.rows >= LEAST_ROWS and scale > 0
    keep(s, min(max(u, centre - reach), centre + reach) if clipped else u, step)
    s.recent[s.rows % RECENT] = u
    s.rows += 1
    s.since += 1
    rows = s.rows
    if opening != 0 or lone or s.huge_run >= 2:
        how = ROWS if opening != 0 else LONE if lone else HUGE
        side = opening if opening != 0 else (1 if u > centre else -1)
        window = min(s.run, RECENT) if how == ROWS else s.huge_run if how == HUGE else 1
        reference, slope = centre, 0.0
        if how == ROWS:
            # The middle of 15 rows is a noisy level to freeze.
            level, slope = expected(s)
            if np.isfinite(level) and effect + side * (centre - level) > 0.5 * effect:
                effect += side * (centre - level)
                reference = level
            for i in range(window):
                j = s.trail_count[0] - 1 - i
                s.trail[0, j % TRAIL] = s.recent[(rows - 1 - i) % RECENT]
        if how == HUGE:
            side, reference, effect = 1, s.lowest, u - s.lowest
        elif s.small > 0 and E[s.small - 1].how == LONE and E[s.small - 1].row >= rows - window:
            s.small -= 1  # the lone row was the first of several
        begin(s, E, side, how, window, away, effect, reference, slope, scale, rows, step, bounds)
        if s.open >= 0:
            e = E[s.open]
            first = s.trail_step[0, (s.trail_count[0] - min(window, TRAIL)) % TRAIL]
            e.onset = e.onset_low = e.onset_high = first
            e.onset_row = rows - window
            if side * (u - reference) > e.peak:
                e.peak = side * (u - reference)
            e.out_rows = window
            if how == LONE:
                e.closed, e.closed_step = rows, step
                s.open = -1
            else:
                s.run_tail = s.run_tail_sum = 0.0
    s.lowest = min(s.lowest, u)
    was_open = s.open
    if s.open >= 0:
        e = E[s.open]
        residual = u - centre if abs(u - centre) < 3 * scale else 0.0
        value = trend(e, rows) + residual
        follow(s, E, u, step, bounds, scratch)
    else:
        value = min(max(u, centre - CLIP * scale), centre + CLIP * scale) if rows > 3 else u
        if rows >= LEAST_ROWS and abs(u - centre) > OUTLIER * scale:
            value = centre  # the test of single rows has seen it; even clipped it would move a block of calm rows
        residual = value - centre if rows > 3 else 0.0
    if folding:
        s.fold_sum += value
        s.fold_square += residual * residual
        if s.since % FOLD == 0:
            push_fold(s, E, step, bounds)
    else:
        s.square += (residual * residual - s.square) / min(rows, 64)
        push(s, E, 0, value, step, bounds, rows)
    if s.open >= 0 and (E[s.open].row == rows or was_open != s.open):
        locate(s, E[s.open], bounds)
        link(s, E, E[s.open])


@compiled
def _count_tail(s):  # type: ignore[no-untyped-def]
    s.tail_rows += 1
    if s.tail_rows > 8192:
        s.tail_rows, s.tail_count, s.tail_sum = 0.5 * s.tail_rows, 0.5 * s.tail_count, 0.5 * s.tail_sum


@compiled
def _calm_fold(s, E, us, steps, bounds):  # type: ignore[no-untyped-def]
    """What `_row` would do with 8 rows within 3 deviations and no episode open, without its tests."""
    for i in range(FOLD):
        u = us[i]
        _count_tail(s)
        keep(s, u, steps[i])
        s.recent[s.rows % RECENT] = u
        s.rows += 1
        s.since += 1
        s.fold_sum += u
        s.fold_square += (u - s.center) * (u - s.center)
        s.lowest = min(s.lowest, u)
    end_run(s)
    s.huge_run = 0
    push_fold(s, E, steps[FOLD - 1], bounds)
    if s.open >= 0:
        locate(s, E[s.open], bounds)
        link(s, E, E[s.open])


@compiled
def _to_raw(s, E):  # type: ignore[no-untyped-def]
    """From here on values are judged as they are: near or below 0 a ratio has no meaning."""
    for i in range(RECENT):
        s.recent[i] = np.exp(min(s.recent[i] + s.offset, 700.0))
    for k in range(LEVELS):
        for i in range(TRAIL):
            s.trail[k, i] = np.exp(min(s.trail[k, i] + s.offset, 700.0))
    n = min(s.trail_count[0], TRAIL) - 1
    for i in range(max(n, 0)):
        j = s.trail_count[0] - 1 - i
        s.differences[i] = abs(s.trail[0, j % TRAIL] - s.trail[0, (j - 1) % TRAIL])
    s.difference_count = max(n, 0)
    s.mode = 1
    s.offset = 0.0
    s.last_u = s.last_y
    for i in range(s.small):
        if E[i].closed < 0:
            E[i].closed, E[i].closed_step = s.rows, s.last_step
    s.open = -1
    s.variance[:] = 0.0
    s.error_count[:] = 0
    restart(s)
    measure_noise(s)
    s.square = s.sigma * s.sigma


@compiled
def _median_trail(s):  # type: ignore[no-untyped-def]
    rows = np.sort(s.trail[0, : s.rows])
    return rows[s.rows // 2]


@compiled
def _ratios_fail(s):  # type: ignore[no-untyped-def]
    """Whether the lowest of the last 64 rows are under a fifth of their median: no range for ratios."""
    rows = np.sort(s.trail[0])
    return rows[3] < rows[TRAIL // 2] - 1.609


@compiled
def _expect_level(s, E):  # type: ignore[no-untyped-def]
    """A planned event has ended its window: what is still up is its level, and what comes is judged against it."""
    if s.open >= 0:
        E[s.open].told, E[s.open].told_step, E[s.open].expected = s.rows, s.last_step, 1
        s.open = -1
    restart(s)


@compiled
def feed(s, E, steps, ys, start, levels, bounds):  # type: ignore[no-untyped-def]
    """Read rows from `start` on; returns the row at which `E` was full, else the number of rows.

    Args:
        s: state record, changed in place.
        E: [capacity] episodes, the first `s.small` of them in use.
        steps: [n] rising.
        ys: [n] finite.
        start: first row to read.
        levels: steps, rising, from which on another level is expected.
        bounds: record of `Bounds.packed`.
    """
    n = len(ys)
    scratch = np.empty(RECENT)
    us = np.empty(FOLD)
    i = start
    while i < n:
        if s.small + 2 > len(E):
            return i
        while s.resets < len(levels) and steps[i] >= levels[s.resets]:
            _expect_level(s, E)
            s.resets += 1
        if s.rows == 0 and bounds.raw > 0:
            s.mode = 1
        if s.mode == 0 and bounds.raw == 0:
            low = ys[i] <= 0 or (4 <= s.rows < TRAIL and np.log(ys[i]) < _median_trail(s) - 1.05)
            if low or (s.rows % TRAIL == 0 and s.rows > 0 and _ratios_fail(s)):
                if s.rows == 0:
                    s.mode = 1
                else:
                    _to_raw(s, E)
        folding = s.since >= FOLD_FROM
        if s.rows < 256 or s.rows % 16 == 0 and not folding:
            measure_noise(s)
        elif folding and s.since % 128 == 0:
            before = s.sigma
            measure_noise(s)
            if before > 0:
                s.variance[:3] *= (s.sigma / before) ** 2
        width = 1
        if folding and s.since % FOLD == 0 and s.open < 0 and i + FOLD <= n and s.rows % FOLD == 0:
            look_around(s, scratch)
            width = FOLD
            if s.resets < len(levels) and steps[i + FOLD - 1] >= levels[s.resets]:
                width = 1
            for j in range(width):
                y = ys[i + j]
                if s.mode == 0 and y <= 0:
                    width = 1
                    break
                us[j] = (np.log(y) if s.mode == 0 else y) - s.offset
                if abs(us[j] - s.center) > 2.999 * s.scale:
                    width = 1
                    break
        for j in range(width):
            y = ys[i + j]
            u = np.log(max(y, 5e-324)) if s.mode == 0 else y
            if s.rows + j > 0:
                gap = abs(y - s.last_y)
                if gap > 1e-9 * abs(y):
                    s.print_seen += 1
                    if gap < 0.99 * s.print_step:
                        parts = s.print_step / gap
                        if abs(parts - np.round(parts)) > 0.02:
                            s.print_hits = 0
                        s.print_step = gap
                    parts = gap / s.print_step
                    if abs(parts - np.round(parts)) < 0.02:
                        s.print_hits += 1
                s.differences[s.difference_count % DIFFERENCES] = abs(u - s.last_u)
                s.difference_count += 1
            s.last_y, s.last_u, s.last_step = y, u, steps[i + j]
        if width == FOLD:
            _calm_fold(s, E, us, steps[i : i + FOLD], bounds)
        else:
            _row(s, E, s.last_u - s.offset, steps[i], bounds, scratch)
        i += width
    return n
