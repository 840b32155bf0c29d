"""Windows of token counts in order, as a live look would have seen them, a few in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainvitals.store import Run

CHUNK_BYTES = 64 << 20
SINGLE_ROWS = 256
"""Rows that are windows by themselves. Of as many windows after them each is two rows, then four: the cost of a run
grows with the logarithm of its length, and a window depends on nothing after it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Token counts of neighbouring rows."""

    before: int
    """Last step before it."""
    step: int
    """Its last step."""
    counts: NDArray[np.float64]
    """[D, K]"""


def labels(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Domains [D] and tokens [K] of `tokens/counts`."""
    domains, tokens = run.array("tokens/counts", steps=(0, -1)).labels
    return tuple(domains), tuple(tokens)


def windows(run: Run) -> Iterator[Window]:
    """Every window of the main line."""
    edges = _edges(run.times("tokens/counts")[0])
    domains, tokens = labels(run)
    size = max(1, CHUNK_BYTES // max(8 * len(domains) * len(tokens), 1))
    for chunk in _chunks(edges, size):
        series = run.array("tokens/counts", steps=(chunk[0][0] + 1, chunk[-1][1]))
        values = np.nan_to_num(series.values)
        for before, last in chunk:
            rows = values[(series.steps > before) & (series.steps <= last)]
            if len(rows):
                yield Window(before, last, rows.sum(axis=0, dtype=np.float64))


def _edges(steps: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Last step before a window, its last step and its number of rows."""
    edges: list[tuple[int, int, int]] = []
    before, row = -1, 0
    while row < len(steps):
        size = 1 << (len(edges) // SINGLE_ROWS)
        if row + size > len(steps):
            break
        edges.append((before, int(steps[row + size - 1]), size))
        before, row = edges[-1][1], row + size
    return edges


def _chunks(edges: list[tuple[int, int, int]], rows: int) -> Iterator[list[tuple[int, int]]]:
    """Neighbouring windows of about so many rows together."""
    chunk: list[tuple[int, int]] = []
    held = 0
    for before, last, size in edges:
        chunk.append((before, last))
        held += size
        if held >= rows:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
