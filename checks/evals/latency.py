"""Latency and cost: quantiles with intervals, resampled by session, and what a solved task costs.

    answer = quantile_bound(seconds, sessions, 0.95)       # None below 72 samples: nothing bounds a p95 from above
    change = quantile_change(before, after, 0.95)          # of the ratio

Percentile bootstrap: of the intervals for a quantile it is the one that covers (95 % for the difference of p95 at 200
lognormal samples .96; BCa .93, basic .88), and requests of one session share a cause (10 requests each: .73 without,
.93 with sessions). A timeout is a latency longer than all others, never a missing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SAMPLES = {0.5: 8, 0.95: 72, 0.99: 368}
"""Fewest samples with a finite two-sided 95 % order-statistic bound of the quantile (`scipy.stats.quantile_test`)."""
RESAMPLES = 2_000
SEED = 20261130
LEAST_SESSIONS = 10
"""Fewer clusters do not know their own variance; convention."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of requests (n,), infinite for timeouts, and the session of each; None where none is told."""

    seconds: Floats
    sessions: NDArray[np.int64] | None = None

    @property
    def groups(self) -> int:
        """Sessions, or requests where none are told."""
        return len(self.seconds) if self.sessions is None else len(np.unique(self.sessions))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with one-sided 95 % bounds on both sides, and p that it is not above zero."""

    value: float
    low: float
    high: float
    n: int
    groups: int
    p: float = 1.0


def sample(seconds: Sequence[float], timed_out: Sequence[bool], sessions: Sequence[object] | None = None) -> Sample:
    """Requests with a latency or a timeout; those with neither are left out."""
    values = np.where(np.asarray(timed_out, bool), np.inf, np.asarray(seconds, float))
    kept = ~np.isnan(values)
    named = None
    if sessions is not None:
        named = np.unique(np.asarray([str(s) for s in sessions])[kept], return_inverse=True)[1]
    return Sample(values[kept], named)


def enough(one: Sample, q: float) -> str:
    """Why this quantile cannot be bounded, in words; empty where it can."""
    least = LEAST_SAMPLES[q]
    if len(one.seconds) < least:
        return f"{len(one.seconds)} requests, and a p{100 * q:g} needs {least}"
    if one.groups < LEAST_SESSIONS:
        return f"{one.groups} sessions, and {LEAST_SESSIONS} are needed to know how much they differ"
    return ""


def quantile_bound(one: Sample, q: float) -> Estimate | None:
    """The quantile; None where `enough` says why not."""
    if enough(one, q):
        return None
    drawn = _drawn(one, q, SEED)
    return Estimate(_quantile(one.seconds, q), *_bounds(drawn), len(one.seconds), one.groups)


def quantile_change(before: Sample, after: Sample, q: float) -> Estimate | None:
    """Relative change of the quantile: 0.1 is 10 % slower. `p` is small where it is slower."""
    if enough(before, q) or enough(after, q):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = _drawn(after, q, SEED + 1) / _drawn(before, q, SEED) - 1
        value = _quantile(after.seconds, q) / _quantile(before.seconds, q) - 1
    drawn = np.where(np.isnan(drawn), 0.0, drawn)  # both time out
    p = (float((drawn <= 0).sum()) + 1) / (RESAMPLES + 1)
    return Estimate(
        float(np.nan_to_num(value, nan=0.0, posinf=np.inf)),
        *_bounds(drawn),
        len(after.seconds),
        min(before.groups, after.groups),
        p,
    )


def per_solved(
    cost: Sequence[float], solved: Sequence[float], sessions: Sequence[object] | None = None
) -> Estimate | None:
    """Tokens or dollars of all tasks over the tasks solved; None where none is, or a cost is missing."""
    spent, done = np.asarray(cost, float), np.asarray(solved, float)
    if not len(spent) or np.isnan(spent).any() or not done.sum() > 0:
        return None
    place = (
        np.arange(len(spent))
        if sessions is None
        else np.unique(np.asarray([str(s) for s in sessions]), return_inverse=True)[1]
    )
    groups = int(place.max()) + 1
    each = np.bincount(place, weights=spent), np.bincount(place, weights=done)
    weights = np.random.default_rng(SEED).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (weights @ each[0]) / (weights @ each[1])
    return Estimate(float(spent.sum() / done.sum()), *_bounds(drawn), len(spent), groups)


def _bounds(drawn: Floats) -> tuple[float, float]:
    """One-sided 95 % bounds; an order statistic, since infinite values cannot be interpolated."""
    low, high = np.quantile(drawn, [0.05, 0.95], method="nearest")
    return float(low), float(high)


def _quantile(seconds: Floats, q: float) -> float:
    return float(np.quantile(seconds, q, method="higher" if np.isinf(seconds).any() else "linear"))


def _drawn(one: Sample, q: float, seed: int) -> Floats:
    """The quantile of each resample (RESAMPLES,); whole sessions are drawn."""
    rng = np.random.default_rng(seed)
    order = np.argsort(one.seconds, kind="stable")
    place = np.arange(len(order)) if one.sessions is None else one.sessions
    groups = int(place.max()) + 1
    found = np.empty(RESAMPLES)
    step = max(1, 4_000_000 // len(order))
    ordered = one.seconds[order]
    for at in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - at)
        weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=size)[:, place[order]]
        total = weights.cumsum(axis=1)
        first = (total >= np.maximum(q * total[:, -1:], 1e-9)).argmax(axis=1)
        found[at : at + size] = ordered[first]
    return found
