"""The token counts that the report rests on: the first windows, the newest, and all of them together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from checks.data.two_samples import clumping_of, widest
from checks.data.windows import Window, labels, windows
from trainvitals.formulas import REFERENCE_WINDOWS

if TYPE_CHECKING:
    from trainvitals.store import Run

Floats = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts of a run, D domains and K tokens."""

    domains: tuple[str, ...]
    tokens: tuple[str, ...]
    first: list[Window]
    newest: list[Window]
    """None of them among the first."""
    total: Floats
    """[D, K] of the whole run."""
    clumping: Floats
    """[D] of neighbouring windows, see `two_samples`."""
    windows: int
    steps: tuple[int, int]

    def pair(self, domain: int | None) -> tuple[Floats, Floats]:
        """First and newest windows [W, K] of a domain, or of all together; those without tokens left out."""
        return _stack(self.first, domain), _stack(self.newest, domain)


def _stack(found: list[Window], domain: int | None) -> Floats:
    rows = np.array([w.counts.sum(axis=0) if domain is None else w.counts[domain] for w in found])
    return rows[rows.sum(axis=1) > 0] if len(rows) else rows


def read(run: Run) -> Sample | None:
    """One pass over the windows; None of a run without token counts."""
    if not run.has("tokens/counts"):
        return None
    domains, tokens = labels(run)
    first: list[Window] = []
    newest: deque[Window] = deque(maxlen=REFERENCE_WINDOWS)
    total = np.zeros((len(domains), len(tokens)))
    apart: list[list[float]] = [[] for _ in domains]
    before: Window | None = None
    count = 0
    for window in windows(run):
        total += window.counts
        for d, counts in enumerate(window.counts):
            if before is not None and counts.sum() > 0 and before.counts[d].sum() > 0:
                apart[d].append(clumping_of(before.counts[d], counts))
        before, count = window, count + 1
        if len(first) < REFERENCE_WINDOWS:
            first.append(window)
        else:
            newest.append(window)
    if not count or before is None:
        return None
    if not newest:  # a short run is halved
        first, newest = first[: max(count // 2, 1)], deque(first[max(count // 2, 1) :])
    clumping = np.array([widest(a) for a in apart])
    return Sample(domains, tokens, first, list(newest), total, clumping, count, (first[0].step, before.step))


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, with an interval from how it differs between windows; None where there is one window."""

    value: float
    low: float | None
    high: float | None
    windows: int


def share(part: Floats, whole: Floats) -> Share:
    """Ratio of sums over windows, with a 95 % interval (ratio estimator, Cochran 1977, section 2.11).

    Documents clump, so windows are the unit that counts, not tokens. part, whole: [W].
    """
    n, value = len(part), float(part.sum() / whole.sum())
    if n < 2:
        return Share(value, None, None, n)
    error = np.sqrt(((part - value * whole) ** 2).sum() / (n - 1) / n) / whole.mean()
    # A part seen in no window, or rarely, has at least the error of its count.
    counted = np.sqrt(max(float(part.sum()), 1.0)) / whole.sum()
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * max(error, counted))
    return Share(value, max(value - half, 0.0), min(value + half, 1.0), n)
