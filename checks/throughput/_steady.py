"""Step times with the moments of checkpoints and evaluations left out, in blocks where runs are long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from checks.masking import MOMENT_EVENTS, quiet
from checks.reading import Rows
from checks.robust import Excursion, Floats, block_edges, block_medians

if TYPE_CHECKING:
    from trainvitals.store import Run

MAX_BLOCKS = 2000
WANDER_ROWS = 20
"""Rows whose median tells the speed of the time."""
WANDER_BLOCKS = 5
UNKNOWN_WANDER = 0.1
"""Of a run that is too young to show its own, in log units: healthy recorded runs on quiet machines lie below it."""
LASTING_ROWS = 100
"""Slow rows in a row that are no passing load of a shared machine. Convention; on a machine that others keep busy a
healthy run may be slow for longer, which is why a failure also asks for a steady step time."""


def without_moments(run: Run, rows: Rows) -> Rows:
    """Rows of steps that no checkpoint or evaluation disturbed."""
    inside = np.zeros(len(rows), bool)
    for span in quiet(run, "throughput").spans:
        if span.kind in MOMENT_EVENTS:
            a, b = np.searchsorted(rows.steps, [span.step, span.until + 1])
            inside[a:b] = True
    return Rows(rows.steps[~inside], rows.values[~inside], rows.labels)


def settled(run: Run, rows: Rows) -> Rows:
    """Rows after the first ones, which compile, fill caches and allocate: 10, or a twentieth of a short run."""
    start = max(2, min(10, int(run.last_step or 0) // 20))
    return Rows(rows.steps[start:], rows.values[start:], rows.labels)


def blocks(rows: Rows) -> tuple[np.ndarray, Floats]:
    """Edges [blocks + 1] and medians [blocks, ...] of at most `MAX_BLOCKS` blocks; single rows on short runs."""
    edges = block_edges(len(rows), max(1, len(rows) // MAX_BLOCKS))
    return edges, block_medians(rows.values, edges)


def expanding_median(values: Floats, starts: list[int], min_rows: int) -> Floats:
    """Median of all values before each one since the last start; NaN for the first `min_rows`. values: [n]."""
    import pandas as pd

    edges = sorted({0, *(s for s in starts if 0 < s < len(values)), len(values)})
    parts = [
        pd.Series(values[a:b]).expanding(min_rows).median().shift(1).to_numpy()
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    return np.concatenate(parts) if parts else values.copy()


def wander(times: Floats) -> float:
    """How far a run's speed goes up and down by itself: robust deviation of the logarithm of medians of 20 rows."""
    blocks = len(times) // WANDER_ROWS
    if blocks < WANDER_BLOCKS:
        return UNKNOWN_WANDER
    medians = np.log(np.median(times[-blocks * WANDER_ROWS :].reshape(blocks, WANDER_ROWS), axis=1))
    return float(1.4826 * np.median(np.abs(medians - np.median(medians))))


def joined(found: Sequence[Excursion], near: int) -> list[Excursion]:
    """Excursions with those that come back within `near` blocks told as one."""
    merged: list[Excursion] = []
    for e in found:
        if merged and e.first - merged[-1].last <= max(near, (merged[-1].last - merged[-1].first) // 2):
            before = merged.pop()
            e = Excursion(before.first, e.last, e.recovered, before.rows_over + e.rows_over, e.peak)
        merged.append(e)
    return merged
