"""Are two runs trained on the same data, in the same order, and how do their steps line up?

By the batches' fingerprints where both runs have them: that is certain. Else by their losses: what one step's batch
adds to the loss it adds to every model's, so the changes of twins correlate (.93 to .996 on public logs of one data
order) and those of others do not (.12 and below). The pair's own null are all other offsets of the two series.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm

import numpy as np
from numpy.typing import NDArray

from checks.twins.correlation import NONE, Peak, local, peak
from checks.twins.fingerprints import by_fingerprint
from checks.twins.pair import Pair, Piece, numbers
from checks.twins.rows import LossRows, deviation, residuals
from checks.twins.views import RATIOS, View, as_logged, grouped, thinned

TWIN_R, SHARED_R = 0.7, 0.2
"""Correlation from which two runs are twins, and from which they share at least a part of their data or its plan."""
TWIN_Z, CLEAR_Z = 8.0, 6.5
"""Deviations of the null that a twin reaches; below the second, nothing is shared at any offset that was looked at.
The largest of 40,000 offsets of unrelated public logs reached 4.4."""
BLOCK, MATCHED_R = 128, 0.5
"""Places of a stretch that is looked at alone, and its correlation where it matches."""
LEAST_SHARED = 90
"""Rows that a twin of correlation .7 needs to reach `TWIN_Z`: fewer can show no twin, and no absence of one."""
MOST_PIECES = 6
SAME = 0.995
"""Share of rows that are equal to the last bit in a copy, and not in twins."""
MOST_THIN = 1_000


@dataclass(frozen=True, slots=True)
class _Match:
    """Two views and where they agree most."""

    a: View
    b: View
    peak: Peak

    @property
    def scale(self) -> float:
        """Steps of b in a step of a."""
        return self.b.cadence / self.a.cadence

    def offset(self, lag: int) -> int:
        """Step of b less step of a, in b's steps, for the same data."""
        return round(self.b.first + lag * self.b.cadence - self.a.first * self.scale)


def recognise(a: LossRows, b: LossRows) -> Pair:
    """Compare two runs. The offset is the step of `b` less the step of `a` that was trained on the same data."""
    certain = by_fingerprint(a, b)
    if certain is not None:
        return replace(certain, noise_ratio=_noise_ratio(a, b, certain)) if certain.twin else certain
    shared = min(len(a.steps), len(b.steps))
    if shared < LEAST_SHARED:
        return Pair(a.name, b.name, None, None, f"too few rows of the loss to tell: {len(a.steps):,} and "
                    f"{len(b.steps):,}, and {LEAST_SHARED} are needed")
    best: _Match | None = None
    for views in _views(a, b):
        matches = [_Match(one, other, peak(one, other)) for one, other in views]
        best = max([*matches, *([best] if best else [])], key=lambda m: m.peak.z, default=None)
        if best and best.peak.z >= TWIN_Z and best.peak.r >= TWIN_R:
            break
    return _decided(a, b, best)


def _views(a: LossRows, b: LossRows) -> Iterator[Iterator[tuple[View, View]]]:
    """Ways to lay one run on the other, those of one kind together, the likely kinds first."""
    whole = lcm(a.cadence, b.cadence)
    thin_a, thin_b = whole // a.cadence, whole // b.cadence
    if max(thin_a, thin_b) == 1:
        plain_a, plain_b = as_logged(a), as_logged(b)
        yield iter([(plain_a, plain_b)])
        for k in RATIOS:
            yield ((view, plain_b) for view in grouped(a, k))
            yield ((plain_a, view) for view in grouped(b, k))
        return
    if max(thin_a, thin_b) <= MOST_THIN:
        those = list(thinned(b, thin_b, int(a.steps[0]))) if thin_b > 1 else [as_logged(b)]
        yield ((one, other) for one in (thinned(a, thin_a, int(b.steps[0])) if thin_a > 1 else [as_logged(a)])
               for other in those)
    # Steps may be counted in rows, so that the spacings say nothing.
    yield iter([(as_logged(a), as_logged(b))])


def _decided(a: LossRows, b: LossRows, match: _Match | None) -> Pair:
    unknown = Pair(a.name, b.name, None, None, "")
    if match is None or match.peak == NONE:
        return replace(unknown, evidence=f"their rows do not line up: one every {a.cadence:,} and one every "
                       f"{b.cadence:,} steps")
    found = match.peak
    if not match.a.values.any() or not match.b.values.any():
        return replace(unknown, evidence="a loss without noise says nothing of its data")
    if found.z >= TWIN_Z:
        pieces, r = _pieces(match)
        if r >= TWIN_R:
            return _twins(a, b, match, pieces, r)
    words = (f"the changes of the loss correlate at {found.r:.2f} over {numbers(found.rows, 'row')} at best, "
             f"{found.z:.1f} deviations of what other offsets show")
    if found.z >= TWIN_Z and found.r >= SHARED_R:
        return replace(unknown, offset_steps=match.offset(found.lag), evidence=f"{words}: they share a part of their "
                       "data or of its plan, as the losses of one rank and of all ranks do")
    if found.z < CLEAR_Z and _steps_in_common(a, b) < LEAST_SHARED:
        return replace(unknown, evidence=f"{words}, which is chance; and too few of their steps have the same numbers "
                       "for the data to be known as another's")
    if found.z < CLEAR_Z:
        return replace(unknown, twin=False, evidence=f"{words}, which is chance; no offset with {LEAST_SHARED} rows or "
                       "more in common shows the same data")
    return replace(unknown, evidence=f"{words}: too much for chance, too little for the same data")


def _steps_in_common(a: LossRows, b: LossRows) -> int:
    """Rows that the two would share were their steps numbered alike."""
    first, last = max(a.steps[0], b.steps[0]), min(a.steps[-1], b.steps[-1])
    return max(int(last - first) // max(a.cadence, b.cadence) + 1, 0)


def _pieces(match: _Match) -> tuple[list[tuple[int, NDArray[np.bool_]]], float]:
    """Lags, and the places of a that match at each: a run that skipped data, or went back, lines up in pieces."""
    pieces: list[tuple[int, NDArray[np.bool_]]] = []
    left = np.ones(len(match.a.values), bool)
    best, weight, total = match.peak, 0, 0.0
    for _ in range(MOST_PIECES):
        r, rows, both = local(match.a, match.b, best.lag, BLOCK)
        good = (r >= MATCHED_R) & (rows >= min(24, BLOCK // 4))
        if not good.any():
            break
        at = np.repeat(good, BLOCK)[: len(left)] & both & left
        pieces.append((best.lag, at))
        used = rows[good]
        weight += int(used.sum())
        total += float((r[good] * used).sum())
        left &= ~at
        if (left & match.a.known).sum() < max(BLOCK, 0.02 * len(left)):
            break
        best = peak(match.a, match.b, left)
        if best.z < TWIN_Z:
            break
    return sorted(pieces, key=lambda p: -int(p[1].sum())), total / max(weight, 1)


def _twins(a: LossRows, b: LossRows, match: _Match, pieces: list[tuple[int, NDArray[np.bool_]]], r: float) -> Pair:
    told = []
    for lag, at in pieces:
        place = np.flatnonzero(at)
        first, last = (match.a.first + int(place[i]) * match.a.cadence for i in (0, -1))
        told.append(Piece(first, last, match.offset(lag), len(place)))
    # Whatever comes after the latest stretch that matched is held to line up as it did: a fault is no other data.
    latest = max(told, key=lambda p: p.last)
    told = [replace(p, last=max(p.last, int(a.steps[-1]))) if p is latest else p for p in told]
    rows = sum(p.rows for p in told)
    words = (f"the changes of the loss correlate at {r:.3f} over {numbers(rows, 'row')}, {match.peak.z:.0f} deviations "
             "of what other offsets show")
    if len(told) > 1:
        words += f", in {len(told)} pieces: " + "; ".join(
            f"steps {p.first:,} to {p.last:,} at {p.offset:+,}" for p in sorted(told, key=lambda p: p.first))
    if match.a.ratio > 1 or match.b.ratio > 1:
        many, k = ("b", match.b.ratio) if match.b.ratio > 1 else ("a", match.a.ratio)
        words += (f"; {k} steps of {many} are one of the other" if match.scale != 1 else
                  f"; a row of the other is the mean of {k} rows of {many}")
    pair = Pair(a.name, b.name, True, told[0].offset, words, None, tuple(told), match.a.ratio, match.b.ratio)
    if _is_copy(a, b, pair):
        return replace(pair, copy=True, evidence=f"the losses of {numbers(rows, 'row')} are equal to the last digit: "
                       "the same run twice, which is no control")
    ratio = _noise_ratio(a, b, pair)
    return replace(pair, noise_ratio=ratio, evidence=words + (f"; without it the noise is {ratio:.1f} times smaller"
                                                              if ratio is not None else ""))


def _is_copy(a: LossRows, b: LossRows, pair: Pair) -> bool:
    at, other = pair.indices(a.steps, b.steps)
    same = len(at) >= LEAST_SHARED and float(np.mean(a.values[at] == b.values[other])) >= SAME
    return same and len(np.unique(a.values[at])) > len(at) // 10


def _noise_ratio(a: LossRows, b: LossRows, pair: Pair) -> float | None:
    """Noise of one row of a, by how much larger than what is left when b's is taken off; None where it is not known."""
    at, other = pair.indices(a.steps, b.steps)
    if len(at) < LEAST_SHARED:
        return None
    x, y = residuals(a.values[at]), residuals(b.values[other])
    rest = deviation(x - slope(x, y) * y)
    return float(deviation(x) / rest) if rest > 0 else None


def slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """How much of x a unit of y brings along: least squares on rows within 3 deviations, so that no fault counts."""
    dx, dy = deviation(x), deviation(y)
    if not dx or not dy:
        return 0.0
    keep = (np.abs(x) < 3 * dx) & (np.abs(y) < 3 * dy)
    power = float(np.dot(y[keep], y[keep]))
    return float(np.dot(x[keep], y[keep])) / power if power > 0 else 0.0
