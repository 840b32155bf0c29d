"""The scan: reads the rows of one series in order, never looks ahead, and keeps the episodes off its trend.

Blocks of 1, 2, 4 ... rows are held against a line in log time through the blocks before them; each scale is judged by
the errors that its own predictions made. Time is logarithmic and the noise is measured because false alarms on losses
come from the trend, not from the noise. Size-dependent thresholds: Walther, https://arxiv.org/abs/2107.08296; tails of
single rows: Siffer et al., KDD 2017 (https://doi.org/10.1145/3097983.3098144); t quantiles: Wallace, Annals of
Mathematical Statistics 30, 1959.
"""

from __future__ import annotations

import numpy as np

from checks.stream.jit import compiled
from checks.stream.layout import (
    BEST,
    DIFFERENCES,
    ERRORS,
    FOLD,
    FOLD_FROM,
    HUGE,
    LEAST_ROWS,
    LEVELS,
    LONE,
    NOTES,
    RECENT,
    RING,
    ROWS,
    TRAIL,
    WINDOW,
)
from checks.stream.onset import onset_fit

CLIP = 3.5
OUTLIER = 6.0
TAIL = 4.0
NOTED = 5.0
"""Deviations beyond which a single row is remembered: it may stand out in another run, too."""


@compiled
def _median(values, n):  # type: ignore[no-untyped-def]
    # Insertion sort: n is at most 16.
    for i in range(1, n):
        v = values[i]
        j = i - 1
        while j >= 0 and values[j] > v:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = v
    return values[n // 2] if n % 2 else 0.5 * (values[n // 2 - 1] + values[n // 2])


@compiled
def _normal(t, nu):  # type: ignore[no-untyped-def]
    z = np.sqrt(nu * np.log1p(t * t / nu)) * (8 * nu + 1) / (8 * nu + 3)
    return z if t >= 0 else -z


@compiled
def _measure_noise(s):  # type: ignore[no-untyped-def]
    n = min(s.difference_count, DIFFERENCES)
    if n == 0:
        return
    d = np.sort(s.differences[:n])
    sigma = 1.0483 * (d[n // 2] if n % 2 else 0.5 * (d[n // 2 - 1] + d[n // 2]))  # 1.4826 / sqrt 2
    # Differences that are all multiples of the smallest are those of a printed number.
    printed = s.print_step if s.print_hits >= 8 and s.print_hits > 0.9 * s.print_seen else 0.0
    if s.mode == 0 and s.last_y > 0:
        printed /= s.last_y
    if sigma < 3 * printed:
        cap = max(4 * sigma, 4 * printed)
        total = 0.0
        for v in d:
            total += min(v, cap) ** 2
        sigma = np.sqrt(total / n / 2)
    s.sigma = np.sqrt(sigma * sigma + printed * printed / 12)


@compiled
def _recent(s, scratch):  # type: ignore[no-untyped-def]
    n = min(s.rows, RECENT - 1)
    for i in range(n):
        scratch[i] = s.recent[(s.rows - 1 - i) % RECENT]
    return n


@compiled
def _look_around(s, scratch):  # type: ignore[no-untyped-def]
    """Centre and scale of the next row."""
    n = _recent(s, scratch)
    s.scale = max(s.sigma, 0.9 * np.sqrt(s.square))
    if n == 0:
        s.center = 0.0
        return
    slope = 0.0
    middle = _median(scratch.copy(), n)
    if s.rows < 512 and n >= 5 and s.open < 0:
        reach = CLIP * s.scale
        mean = 0.0
        for i in range(n):
            scratch[i] = min(max(scratch[i], middle - reach), middle + reach)
            mean += scratch[i] / n
        along = 0.0
        for i in range(n):
            along += (0.5 * (n - 1) - i) * (scratch[i] - mean)
        slope = along / (n * (n * n - 1) / 12.0)
    s.center = middle + slope * 0.5 * (n + 1)


@compiled
def _keep(s, u, step):  # type: ignore[no-untyped-def]
    """Means of all rows, fault included: what the fit of an onset reads. Called before the row is counted."""
    k = 0
    first = step
    while True:
        at = s.trail_count[k] % TRAIL
        s.trail[k, at] = u
        s.trail_step[k, at] = first
        s.trail_count[k] += 1
        if s.trail_count[k] & 1 or k == LEVELS - 1:
            return
        before = (s.trail_count[k] - 2) % TRAIL
        u = 0.5 * (s.trail[k, before] + u)
        first = s.trail_step[k, before]
        k += 1


@compiled
def _own_noise(s, k, rows):  # type: ignore[no-untyped-def]
    g = float(1 << k)
    floor = s.sigma * s.sigma / g
    prior = floor
    if k >= 1:
        prior = 0.5 * s.variance[k - 1] if s.variance[k - 1] > 0 else floor
    if k >= 2 and s.variance[k - 1] > 0 and s.variance[k - 2] > 0:
        prior = s.variance[k - 1] * min(max(s.variance[k - 1] / s.variance[k - 2], 0.5), 1.0)
    n = 0
    young = np.empty(ERRORS)
    for i in range(min(s.error_count[k], ERRORS)):
        if 2 * s.error_row[k, i] >= rows:
            young[n] = s.error[k, i]
            n += 1
    q = 0.0
    if n < 4:
        n = 0
    else:
        for i in range(1, n):
            v = young[i]
            j = i - 1
            while j >= 0 and young[j] > v:
                young[j + 1] = young[j]
                j -= 1
            young[j + 1] = v
        kept = max(int(0.75 * n), 1)
        for i in range(kept):
            q += young[i] / kept
        q *= 2.714  # the lower three quarters of squares of a normal sample have this part of its variance
    weight = 0.45 * n
    s.variance[k] = max(floor, (6 * prior + weight * q) / (6 + weight))
    s.freedom[k] = 6 + weight


@compiled
def _end_run(s):  # type: ignore[no-untyped-def]
    """Rows that stood out and opened nothing are the run's own tail; those of an episode would hide the next."""
    s.tail_count += s.run_tail
    s.tail_sum += s.run_tail_sum
    s.run = 0
    s.run_logp = s.run_sum = s.run_tail = s.run_tail_sum = 0.0


@compiled
def _restart(s):  # type: ignore[no-untyped-def]
    """Another level is expected from here on: nothing before is a reference."""
    s.count[:] = 0
    s.best[:] = np.inf
    s.best_count[:] = 0
    s.since = 0
    s.origin = s.rows
    s.fold_sum = s.fold_square = 0.0
    s.run = 0
    s.run_tail = s.run_tail_sum = 0.0
    s.clean_from = s.rows


@compiled
def _trend(e, rows):  # type: ignore[no-untyped-def]
    """Where the series would be without the episode: nine tenths of the slope that it had, because curves flatten."""
    return e.reference + e.slope * np.log(max(rows, 1) / max(e.row, 1))


@compiled
def _begin(s, E, side, how, window, z, effect, reference, slope, error, rows, step, bounds):  # type: ignore[no-untyped-def]
    """Open an episode, unless the series only comes back from a level that was told."""
    if how != LONE and s.offset * side < 0 and effect >= 0.5 * abs(s.offset):
        back = effect < 2 * abs(s.offset)
        for i in range(s.small):
            if E[i].told >= 0 and E[i].closed < 0 and E[i].side != side:
                E[i].closed, E[i].closed_step = rows, step
                back = True
        if back:
            # Only the rows since the return were a level off. Where they lie now is the level of all others: how far
            # the offset was off is not known better.
            n = 0
            shift = 0.0
            for i in range(RECENT):
                if (s.recent[i] - reference) * side > 0.5 * abs(s.offset):
                    shift += s.recent[i] + s.offset - reference
                    n += 1
            shift = shift / n if n else 0.0
            for i in range(RECENT):
                back_now = (s.recent[i] - reference) * side > 0.5 * abs(s.offset)
                s.recent[i] += s.offset if back_now else shift
            s.center = reference + shift
            _restart(s)
            s.offset = 0.0
            _end_run(s)
            return
    e = E[s.small]
    e.row, e.step, e.side, e.how, e.window = rows, step, side, how, window
    e.z, e.effect, e.reference, e.error, e.before = z, effect, reference, error, s.offset
    e.slope = 0.9 * min(slope, 0.0) if bounds.level == 0 else 0.0
    e.rows, e.sum, e.peak, e.peak_step = window, window * effect, effect, step
    e.out_row, e.out_step, e.out_rows, e.mode, e.scale = rows, step, 1, s.mode, s.scale
    e.closed = e.failed = e.told = -1
    e.lasting = effect
    e.onset = e.onset_low = e.onset_high = step
    e.onset_row = rows
    e.ramp = 0
    e.refit = 2 * window
    s.open = s.small
    s.small += 1


@compiled
def _expected(s):  # type: ignore[no-untyped-def]
    """Level that the line through the longest suitable blocks gives this row, and its slope; NaN without enough."""
    k = 5
    while k >= 0 and (s.count[k] < 8 or 6 * (1 << k) > 0.35 * s.rows):
        k -= 1
    if k < (3 if s.since >= FOLD_FROM else 1):
        return np.nan, 0.0
    c = s.count[k]
    n = min(16, c - 1)
    mx = my = sxx = sxy = 0.0
    for i in range(n):
        mx += s.place[k, (c - 1 - i) % RING] / n
        my += s.ring[k, (c - 1 - i) % RING] / n
    for i in range(n):
        dx = s.place[k, (c - 1 - i) % RING] - mx
        sxx += dx * dx
        sxy += dx * (s.ring[k, (c - 1 - i) % RING] - my)
    return my + (np.log(s.rows + 0.5) - mx) * sxy / sxx, sxy / sxx


@compiled
def _locate(s, e, bounds):  # type: ignore[no-untyped-def]
    since = s.rows - e.row + e.window
    reach = max(128 * e.window, 8 * since)
    first = max(s.rows - min(np.int64(0.6 * s.rows), reach), s.clean_from)
    if s.rows - since - first < 8:
        first = max(s.rows - since - max(8, 2 * since), 0)
    onset_fit(s, e, first, bounds.floor if s.mode == 0 else 0.05 * s.scale)


@compiled
def _scan(s, E, k, step, bounds, rows):  # type: ignore[no-untyped-def]
    """Judge the last two blocks of a level against the line through those before."""
    c = s.count[k]
    g = 1 << k
    if c < 8 or 6 * g > 0.35 * rows + 3:
        return
    n = min(min(16, c - 2), max(np.int64(0.35 * rows / g), 6))
    a, b = (c - 1) % RING, (c - 2) % RING
    test = 0.5 * (s.ring[k, a] + s.ring[k, b])
    at = 0.5 * (s.place[k, a] + s.place[k, b])
    mx = my = 0.0
    for i in range(n):
        j = (c - 3 - i) % RING
        mx += s.place[k, j]
        my += s.ring[k, j]
    mx /= n
    my /= n
    sxx = sxy = 0.0
    for i in range(n):
        j = (c - 3 - i) % RING
        dx = s.place[k, j] - mx
        sxx += dx * dx
        sxy += dx * (s.ring[k, j] - my)
    predicted = my + (at - mx) * sxy / sxx
    leverage = 0.5 + 1.0 / n + (at - mx) ** 2 / sxx
    e = test - predicted
    s.looks[k] += 1
    if s.looks[k] % 4 == 1 or e * e > 4 * s.variance[k] * leverage:
        _own_noise(s, k, rows)
    sd = np.sqrt(s.variance[k])
    nu = s.freedom[k]
    error = sd * np.sqrt(leverage)
    s.visible[k] = bounds.z_warn[k] * error
    effect = min(e, test - my) if bounds.level > 0 else e
    up = _normal(effect / error, nu)
    how = WINDOW
    if s.best_count[k] > 0 and bounds.level == 0:
        bias = sd / 2.8284 * np.sqrt(2 * np.log(1 + s.best_count[k] / 4))
        over = test - s.best[k] - bias
        z = _normal(over / (sd * 0.7906), nu)  # sqrt(1/2 + 1/8)
        if z > up:
            up, effect, how = z, over, BEST
    warn, fall = bounds.warn, bounds.fall
    if s.mode == 1:
        warn, fall = bounds.raw_warn * s.scale, bounds.raw_fall * s.scale
    # A steep line extrapolates badly; a fall counts only beyond what doubling its slope would explain.
    depth = predicted - 2 * abs(my - predicted) - test
    down = _normal(depth / error, nu)
    if up > bounds.z_warn[k] and effect > warn and rows >= LEAST_ROWS:
        _begin(s, E, 1, how, 2 * g, up, effect, test - effect, _expected(s)[1], error, rows, step, bounds)
    elif down > bounds.z_warn[k] and depth > fall and rows >= LEAST_ROWS:
        _begin(s, E, -1, WINDOW, 2 * g, down, depth, test + depth, _expected(s)[1], error, rows, step, bounds)
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
def _back_by_itself(s, E, level, step, bounds):  # type: ignore[no-untyped-def]
    """End what was told as a level, once 64 rows have come down to where it began."""
    for i in range(s.small):
        e = E[i]
        if e.told >= 0 and e.closed < 0:
            band = max(bounds.warn if s.mode == 0 else bounds.raw_warn * s.scale, 0.3 * e.effect)
            if e.side * (level - _trend(e, s.rows) - e.before) <= band:
                e.closed, e.closed_step = s.rows, step


@compiled
def _push(s, E, k, value, step, bounds, rows):  # type: ignore[no-untyped-def]
    """A block of level k is complete: keep it, judge it, and pass pairs on to the level above."""
    while True:
        at = s.count[k] % RING
        s.ring[k, at] = value
        s.place[k, at] = np.log(s.origin + (s.count[k] + 0.5) * (1 << k) + 1.0)
        s.count[k] += 1
        if s.open < 0:
            if k == 6 and s.offset != 0:
                _back_by_itself(s, E, value + s.offset, step, bounds)
            _scan(s, E, k, step, bounds, rows)
        if s.count[k] & 1 or k == LEVELS - 1:
            return
        value = 0.5 * (value + s.ring[k, (s.count[k] - 2) % RING])
        k += 1


@compiled
def _forget(s, level):  # type: ignore[no-untyped-def]
    """Rows of an episode that is over are no neighbours of the next ones."""
    for i in range(RECENT):
        s.recent[i] = min(max(s.recent[i], level - 3 * s.scale), level + 3 * s.scale)
    s.center = min(max(s.center, level - s.scale), level + s.scale)


@compiled
def _follow(s, E, u, step, bounds, scratch):  # type: ignore[no-untyped-def]
    """One more row of an open episode: worse, over, or told as a level. Called after the row is counted."""
    e = E[s.open]
    rows = s.rows
    warn, fail, brief = bounds.warn, bounds.fail, bounds.brief
    if s.mode == 1:
        warn, fail, brief = bounds.raw_warn * s.scale, bounds.raw_fail * s.scale, bounds.raw_lone * s.scale
    reference = _trend(e, rows)
    excess = e.side * (u - reference)
    if rows > e.row:
        e.rows += 1
        e.sum += excess
    if excess > e.peak:
        e.peak = excess
        e.peak_step = step
    band = max(warn, 0.3 * e.effect)
    if excess > max(band, 3 * e.scale):
        e.out_row, e.out_step = rows, step
        if rows > e.row:
            e.out_rows += 1
    n = _recent(s, scratch)
    inside = _median(scratch.copy(), n)
    level = 0
    while (4 << level) < e.window and level < LEVELS - 1:
        level += 1
    settled = True
    if level >= 4:
        # A small effect in noisy rows: its own blocks tell when it is over, 15 rows do not.
        inside = s.trail[level, (s.trail_count[level] - 1) % TRAIL]
        settled = rows % (1 << level) == 0
    back = e.side * (inside - reference)
    e.lasting = e.lasting if not settled else back
    five = _median(scratch[:5].copy(), min(n, 5))
    calm = e.side * (five - reference) <= max(band, e.scale)
    mean = e.sum / e.rows
    error = max(e.scale / np.sqrt(float(e.rows)), bounds.floor if s.mode == 0 else 0.0)
    error = max(error, 0.5 * e.error)
    told = e.before * e.side
    if e.failed < 0:
        sure = mean - 1.64 * error + max(told, 0.0) >= fail and mean / error > 4
        if sure and e.rows >= 8 and not calm:
            e.failed = step
        elif sure and e.out_rows >= 2 and mean >= brief:
            e.failed = step
        elif e.how == HUGE and e.out_rows >= 2:
            e.failed = step
    since = rows - e.row + e.window
    if since >= e.refit and e.refit > 0 and e.out_row > e.row - 1:
        e.refit = 2 * since
        _locate(s, e, bounds)
    if settled and back <= band and calm and rows - e.out_row >= 3 and rows - e.row >= min(e.window, 8):
        e.closed = rows
        e.closed_step = step
        _forget(s, reference)
        if level >= 4:
            e.out_row, e.out_step = rows, step
        s.open = -1
        _end_run(s)
        s.clean_from = rows
    elif rows - e.row >= max(300, 4 * e.window) and 50 * (rows - e.row) >= rows:
        level = max(level, 6)
        c = s.trail_count[level] - 1
        middle = 0.5 * (s.trail[level, c % TRAIL] + s.trail[level, (c - 1) % TRAIL])
        middle -= _trend(e, rows - (1 << level) - rows % (1 << level))
        e.lasting = e.side * middle
        known = 2 * s.scale / np.sqrt(2.0 * (1 << level))
        for k in range(LEVELS):
            s.best[k] = max(s.best[k], reference + known)
        e.told, e.told_step = rows, step
        s.offset += middle
        for i in range(RECENT):
            s.recent[i] -= middle
        s.center -= middle
        _forget(s, reference)
        s.last_told = s.open
        s.open = -1
        _end_run(s)
        s.clean_from = rows


@compiled
def _judge_row(s, E, u, step, bounds):  # type: ignore[no-untyped-def]
    """The row against its neighbours: side of an opening (0: none), whether it stands out alone, and the effect."""
    rows, scale, centre = s.rows, s.scale, s.center
    z = 0.0
    if rows >= 2 and scale > 0:
        z = (u - centre) / scale
        if rows < 400:
            z = _normal(z, 1 + 0.4 * rows)
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
            _end_run(s)
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
        _end_run(s)
    return opening, lone, away, effect


@compiled
def _row(s, E, u, step, bounds, scratch):  # type: ignore[no-untyped-def]
    """One row, with everything; u is free of told offsets."""
    folding = s.since >= FOLD_FROM
    if not folding or s.since % FOLD == 0 or s.open >= 0:
        _look_around(s, scratch)
    centre, scale = s.center, s.scale
    opening, lone, away, effect = 0, False, 0.0, 0.0
    if s.open < 0:
        opening, lone, away, effect = _judge_row(s, E, u, step, bounds)
        _count_tail(s)
    huge = s.open < 0 and s.mode == 0 and 3 <= s.rows < LEAST_ROWS - 1 and u > s.lowest + bounds.huge
    s.huge_run = s.huge_run + 1 if huge else 0
    reach = 8 * scale
    clipped = s.open < 0 and s.rows >= LEAST_ROWS and scale > 0
    _keep(s, min(max(u, centre - reach), centre + reach) if clipped else u, step)
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
            level, slope = _expected(s)
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
        _begin(s, E, side, how, window, away, effect, reference, slope, scale, rows, step, bounds)
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
        value = _trend(e, rows) + residual
        _follow(s, E, u, step, bounds, scratch)
    else:
        value = min(max(u, centre - CLIP * scale), centre + CLIP * scale) if rows > 3 else u
        if rows >= LEAST_ROWS and abs(u - centre) > OUTLIER * scale:
            value = centre  # the test of single rows has seen it; even clipped it would move a block of calm rows
        residual = value - centre if rows > 3 else 0.0
    if folding:
        s.fold_sum += value
        s.fold_square += residual * residual
        if s.since % FOLD == 0:
            _push_fold(s, E, step, bounds)
    else:
        s.square += (residual * residual - s.square) / min(rows, 64)
        _push(s, E, 0, value, step, bounds, rows)
    if s.open >= 0 and (E[s.open].row == rows or was_open != s.open):
        _locate(s, E[s.open], bounds)


@compiled
def _count_tail(s):  # type: ignore[no-untyped-def]
    s.tail_rows += 1
    if s.tail_rows > 8192:
        s.tail_rows, s.tail_count, s.tail_sum = 0.5 * s.tail_rows, 0.5 * s.tail_count, 0.5 * s.tail_sum


@compiled
def _push_fold(s, E, step, bounds):  # type: ignore[no-untyped-def]
    s.square += (s.fold_square / FOLD - s.square) * (FOLD / 64.0)
    mean = s.fold_sum / FOLD
    s.fold_sum = s.fold_square = 0.0
    _push(s, E, 3, mean, step, bounds, s.rows)


@compiled
def _calm_fold(s, E, us, steps, bounds):  # type: ignore[no-untyped-def]
    """What `_row` would do with 8 rows within 3 deviations and no episode open, without its tests."""
    for i in range(FOLD):
        u = us[i]
        _count_tail(s)
        _keep(s, u, steps[i])
        s.recent[s.rows % RECENT] = u
        s.rows += 1
        s.since += 1
        s.fold_sum += u
        s.fold_square += (u - s.center) * (u - s.center)
        s.lowest = min(s.lowest, u)
    _end_run(s)
    s.huge_run = 0
    _push_fold(s, E, steps[FOLD - 1], bounds)
    if s.open >= 0:
        _locate(s, E[s.open], bounds)


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
    _restart(s)
    _measure_noise(s)
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
        E[s.open].told, E[s.open].told_step = s.rows, s.last_step
        s.open = -1
    _restart(s)


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
            _measure_noise(s)
        elif folding and s.since % 128 == 0:
            before = s.sigma
            _measure_noise(s)
            if before > 0:
                s.variance[:3] *= (s.sigma / before) ** 2
        width = 1
        if folding and s.since % FOLD == 0 and s.open < 0 and i + FOLD <= n and s.rows % FOLD == 0:
            _look_around(s, scratch)
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
