"""How finely a log prints its numbers, row by row: rows that all lie on a coarse grid where earlier ones did not."""

from __future__ import annotations

import numpy as np

from checks.stream.jit import compiled

NAMES = ("one decimal", "two decimals", "three decimals", "8 significant bits (bfloat16)")
UNITS = np.array([0.1, 0.01, 0.001, 0.0])
"""Grid spacing; 0 for one that has 8 bits in every number."""
MOST = 8
GRIDS = np.dtype(
    [
        ("rows", "i8"), ("on", "i8", 4), ("run", "i8", 4), ("first", "i8", 4), ("found", "i8"), ("open", "i8", 4),
        ("changes", "i8", 4), ("last", "f8"),
        ("grid", "i8", MOST), ("start", "i8", MOST), ("end", "i8", MOST), ("length", "i8", MOST),
    ]
)  # fmt: skip
"""Rows on each grid outside of what was found, the run of them now, and at most 8 runs that chance does not explain.
`changes` counts the rows of a run that differ from the row before: a number that is printed again says nothing new."""
FINE_ROWS = 32
"""Rows of a finer log that must come before."""
MOST_USUAL = 0.25
"""Where every fourth row is on the grid anyway, the log is too coarse to tell."""
RARE = -23.0  # ln 1e-10: four grids are tried at every row
LEAST_RUN = 8


def new_grids() -> np.ndarray:
    """Before the first row: one record."""
    record = np.zeros(1, GRIDS)
    record["open"] = -1
    return record


@compiled
def _on(y, unit):  # type: ignore[no-untyped-def]
    if y == 0:
        return True
    if unit == 0:
        unit = 2.0 ** (np.floor(np.log2(abs(y))) - 7)
    # Sums of tokens and float32 on the way leave an error in the seventh digit.
    return abs(y - np.round(y / unit) * unit) <= 5e-7 * abs(y)


@compiled
def feed_grids(g, steps, ys):  # type: ignore[no-untyped-def]
    """Read rows; a run on a grid is found once the log's own rate of such rows makes it rarer than 1e-10."""
    for i in range(len(ys)):
        g.rows += 1
        for k in range(4):
            if not _on(ys[i], UNITS[k]):
                # Of a run that is over, its rows say how the log was printed for a while, not how it usually is.
                if g.open[k] < 0:
                    g.on[k] += g.run[k]
                g.run[k] = 0
                g.open[k] = -1
                g.changes[k] = 0
                continue
            if g.run[k] == 0:
                g.first[k] = steps[i]
            g.run[k] += 1
            g.changes[k] += g.rows > 1 and ys[i] != g.last
            before = g.rows - g.run[k]
            rate = (g.on[k] + 1.0) / (before + 2.0)
            if g.open[k] < 0 and g.run[k] >= LEAST_RUN and before >= FINE_ROWS and rate <= MOST_USUAL:
                if min(g.run[k], g.changes[k]) * np.log(rate) < RARE and g.found < MOST:
                    g.open[k] = g.found
                    g.grid[g.found], g.start[g.found] = k, g.first[k]
                    g.found += 1
            if g.open[k] >= 0:
                g.end[g.open[k]], g.length[g.open[k]] = steps[i], g.run[k]
        g.last = ys[i]
