"""The course of an episode: how it opens, becomes a failure, closes, is told as a level, and goes back."""

from __future__ import annotations

import numpy as np

from checks.stream.jit import compiled
from checks.stream.layout import ALONE, FOLD_FROM, HUGE, LEVELS, LONE, RECENT, RING, TRAIL, UNKNOWN_YET
from checks.stream.noise import median, recent
from checks.stream.onset import onset_fit


@compiled
def end_run(s):  # type: ignore[no-untyped-def]
    """Rows that stood out and opened nothing are the run's own tail; those of an episode would hide the next."""
    s.tail_count += s.run_tail
    s.tail_sum += s.run_tail_sum
    s.run = 0
    s.run_logp = s.run_sum = s.run_tail = s.run_tail_sum = 0.0


@compiled
def restart(s):  # type: ignore[no-untyped-def]
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
def expected(s):  # type: ignore[no-untyped-def]
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
def trend(e, rows):  # type: ignore[no-untyped-def]
    """Where the series would be without the episode: nine tenths of the slope that it had, because curves flatten."""
    return e.reference + e.slope * np.log(max(rows, 1) / max(e.row, 1))


@compiled
def begin(s, E, side, how, window, z, effect, reference, slope, error, rows, step, bounds):  # type: ignore[no-untyped-def]
    """Open an episode, unless the series only comes back from a level that was told or expected."""
    if how != LONE and _back_from_expected(s, E, side, effect, reference, rows, step):
        return
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
            restart(s)
            s.offset = 0.0
            end_run(s)
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
    e.expected = 0
    e.part_of = UNKNOWN_YET
    s.open = s.small
    s.small += 1


@compiled
def _back_from_expected(s, E, side, effect, reference, rows, step):  # type: ignore[no-untyped-def]
    """Whether this only undoes what rose or fell before an event let another level be expected: that is over now."""
    for i in range(s.small - 1, -1, -1):
        e = E[i]
        if e.expected == 1 and e.closed < 0:
            if e.side == side or effect < 0.5 * e.lasting or effect > 2 * e.lasting:
                return False
            e.closed, e.closed_step = rows, step
            n = 0
            level = 0.0
            for j in range(RECENT):
                if (s.recent[j] - reference) * side > 0.5 * effect:
                    level += s.recent[j]
                    n += 1
            level = level / n if n else reference + side * effect
            for j in range(RECENT):
                if (s.recent[j] - reference) * side <= 0.5 * effect:
                    s.recent[j] = level
            s.center = level
            restart(s)
            end_run(s)
            return True
    return False


@compiled
def locate(s, e, bounds):  # type: ignore[no-untyped-def]
    since = s.rows - e.row + e.window
    reach = max(128 * e.window, 8 * since)
    first = max(s.rows - min(np.int64(0.6 * s.rows), reach), s.clean_from)
    if s.rows - since - first < 8:
        first = max(s.rows - since - max(8, 2 * since), 0)
    onset_fit(s, e, first, bounds.floor if s.mode == 0 else 0.05 * s.scale)


@compiled
def link(s, E, e):  # type: ignore[no-untyped-def]
    """Say once, when the onset of an episode was first fitted, whether it goes on with a level that was told.

    A climb is told as one level after another. It is another fault where the interval of its onset leaves a calm as
    long as all that came before, or where it is three times as large.
    """
    if e.part_of != UNKNOWN_YET:
        return
    e.part_of = ALONE
    for i in range(s.open - 1, -1, -1):
        before = E[i]
        if before.told < 0 or before.closed >= 0 or before.expected == 1 or before.side != e.side:
            continue
        root = before.part_of if before.part_of >= 0 else i
        so_far = before.told_step - E[root].onset
        if e.onset_low <= before.told_step + so_far and e.effect < 3 * max(before.effect, before.lasting):
            e.part_of = root
        return


@compiled
def _forget(s, level):  # type: ignore[no-untyped-def]
    """Rows of an episode that is over are no neighbours of the next ones."""
    for i in range(RECENT):
        s.recent[i] = min(max(s.recent[i], level - 3 * s.scale), level + 3 * s.scale)
    s.center = min(max(s.center, level - s.scale), level + s.scale)


@compiled
def follow(s, E, u, step, bounds, scratch):  # type: ignore[no-untyped-def]
    """One more row of an open episode: worse, over, or told as a level. Called after the row is counted."""
    e = E[s.open]
    rows = s.rows
    warn, fail, brief = bounds.warn, bounds.fail, bounds.brief
    if s.mode == 1:
        warn, fail, brief = bounds.raw_warn * s.scale, bounds.raw_fail * s.scale, bounds.raw_lone * s.scale
    reference = trend(e, rows)
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
    n = recent(s, scratch)
    inside = median(scratch.copy(), n)
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
    five = median(scratch[:5].copy(), min(n, 5))
    calm = e.side * (five - reference) <= max(band, e.scale)
    mean = e.sum / e.rows
    error = max(e.scale / np.sqrt(float(e.rows)), bounds.floor if s.mode == 0 else 0.0)
    error = max(error, 0.5 * e.error)
    told = e.before * e.side if e.part_of >= 0 else 0.0
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
        locate(s, e, bounds)
    if settled and back <= band and calm and rows - e.out_row >= 3 and rows - e.row >= min(e.window, 8):
        e.closed = rows
        e.closed_step = step
        _forget(s, reference)
        if level >= 4:
            # Not off in the block that told so.
            e.out_row = max(e.out_row, rows - (1 << level))
            e.out_step = max(e.out_step, s.trail_step[level, (s.trail_count[level] - 1) % TRAIL])
        s.open = -1
        end_run(s)
        s.clean_from = rows
    elif rows - e.row >= max(300, 4 * e.window) and 50 * (rows - e.row) >= rows:
        level = max(level, 6)
        c = s.trail_count[level] - 1
        middle = 0.5 * (s.trail[level, c % TRAIL] + s.trail[level, (c - 1) % TRAIL])
        middle -= trend(e, rows - (1 << level) - rows % (1 << level))
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
        end_run(s)
        s.clean_from = rows


@compiled
def back_by_itself(s, E, level, step, bounds):  # type: ignore[no-untyped-def]
    """End what was told as a level, once 64 rows have come down to where it began."""
    for i in range(s.small):
        e = E[i]
        if e.told >= 0 and e.closed < 0:
            band = max(bounds.warn if s.mode == 0 else bounds.raw_warn * s.scale, 0.3 * e.effect)
            if e.side * (level - trend(e, s.rows) - e.before) <= band:
                e.closed, e.closed_step = s.rows, step
