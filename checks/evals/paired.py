"""Is the candidate worse than the baseline on the same items? One difference with the error that fits the items.

    result = paired_difference(before, after, clusters)
    result.low > -margin, result.p_worse, result.p_not_inferior(margin)

The standard error is that of the paired differences (Miller 2024, arXiv 2411.00640), over clusters where items share
one, with t and clusters - 1 degrees of freedom. Below `FEW_CLUSTERS` clusters, or with one that holds more than a third
of the items, the sign-flip test over clusters counts where it is the more careful one. Where few items differ at all, a
standard error of nearly zero says nothing, and exact binomial bounds on the share of lost and won items take its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from checks.evals.design import assumed_effect, observed_effect
from checks.evals.noise import NO_NOISE, Noise

ALPHA = 0.05
"""One-sided level of every bound here; convention."""
FEW_CLUSTERS = 10
"""Below, t with G - 1 degrees of freedom rejects 8 % of true nulls at 5 % with unequal sizes (simulated)."""
FEW_DISCORDANT = 10
"""Below, the normal approximation of a share of discordant items does not hold; convention, as for proportions."""
FLIP_ICC = 0.2
"""Correlation of flips inside a cluster that is assumed where fewer than `FEW_DISCORDANT` cannot show it; convention.
Bounds with it miss in at most 5 % where the true one is up to 0.3 (simulated, 6 to 100 clusters of 6 to 100 items)."""
MOST_FLIPS = 12
"""Clusters up to which all sign patterns are listed."""

SeKind = Literal["paired", "clustered", "exact"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus baseline over items, positive where the candidate is better."""

    value: float
    se: float
    df: float
    low: float
    """One-sided 95 % bound of the worst case."""
    high: float
    n: int
    clusters: int
    kind: SeKind
    p_worse: float
    """One-sided p of "no worse", small where the candidate is worse."""
    sums: tuple[tuple[float, int], ...] = ()
    """Sum and size of each cluster where there are few of them, for the sign-flip test."""

    def p_not_inferior(self, margin: float) -> float:
        """One-sided p of "worse by the margin or more", small where it is not."""
        if self.kind == "exact":
            return 0.0 if self.low > -margin else 1.0
        p = float(stats.t.sf((self.value + margin) / self.se, self.df)) if self.se > 0 else 0.0
        shifted = [total + margin * size for total, size in self.sums]
        return max(p, _sign_flip(shifted)) if self.sums else p


def paired_difference(
    before: Floats, after: Floats, clusters: NDArray[np.int64] | None = None, noise: Noise | None = None
) -> Difference:
    """The mean of after - before.

    Args:
        before: score of each item (n,), higher is better, finite.
        after: the same items, in the same order.
        clusters: number of each item's cluster (n,); None where items are independent.
        noise: of the task's checkpoints; both sides have it. What these items' differences explain of it is taken off.
    """
    d = after - before
    n, value = len(d), float(d.mean())
    groups = n if clusters is None else len(np.unique(clusters))
    lost, won = int((d < 0).sum()), int((d > 0).sum())
    if lost + won < FEW_DISCORDANT:
        return _exact(value, d, lost, won, clusters)
    sums: tuple[tuple[float, int], ...] = ()
    if clusters is None:
        variance, df = float(d.var(ddof=1)) / n, n - 1.0
    else:
        _, place = np.unique(clusters, return_inverse=True)
        residual = np.bincount(place, weights=d - value)
        variance = float((residual**2).sum()) / n**2 * groups / max(groups - 1, 1)
        df = float(max(groups - 1, 1))
        sizes = np.bincount(place)
        few = groups < FEW_CLUSTERS or 3 * sizes.max() > n
        sums = (
            tuple(zip(np.bincount(place, weights=d).tolist(), sizes.tolist(), strict=True))
            if few and groups <= MOST_FLIPS
            else ()
        )
    variance, df = _with_noise(variance, df, float(d.var(ddof=1)) / n, noise or NO_NOISE)
    se = float(np.sqrt(variance))
    reach = float(stats.t.ppf(1 - ALPHA, df)) * se
    p = float(stats.t.cdf(value / se, df)) if se > 0 else 1.0
    if sums:
        p = max(p, _sign_flip([-total for total, _ in sums]))
    return Difference(
        value, se, df, value - reach, value + reach, n, groups, "paired" if clusters is None else "clustered", p, sums
    )


def _with_noise(variance: float, df: float, items: float, noise: Noise) -> tuple[float, float]:
    """In quadrature, what is in both counted once; degrees of freedom after Satterthwaite (1946)."""
    beside = max(0.0, 2 * noise.sd**2 - items)
    total = variance + beside
    if beside == 0:
        return total, df
    return total, total**2 / (variance**2 / df + beside**2 / noise.df)


def _exact(value: float, d: Floats, lost: int, won: int, clusters: NDArray[np.int64] | None) -> Difference:
    """Clopper-Pearson bounds on the lost and the won share, each at half the level.

    Items of clusters count for as many as their design effect leaves, the assumed or the observed one, whichever is
    more. Bounds over whole clusters would take every item of a cluster with one lost item for lost.
    """
    n, level = len(d), 1 - ALPHA if not lost or not won else 1 - ALPHA / 2
    units, place = (n, None) if clusters is None else _numbered(clusters)
    worth_lost, worth_won = (_worth(flips, place, level) for flips in (d < 0, d > 0))
    size = max(1.0, float(np.abs(d).max(initial=0.0)))
    low = size * (_low(won * worth_won / n, worth_won, level) - _high(lost * worth_lost / n, worth_lost, level))
    high = size * (_high(won * worth_won / n, worth_won, level) - _low(lost * worth_lost / n, worth_lost, level))
    share = max(lost + won, 1) / n
    if place is not None:
        lost, won = len(np.unique(place[d < 0])), len(np.unique(place[d > 0]))
    p = float(stats.binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
    se = size * float(np.sqrt(share / min(worth_lost, worth_won)))
    return Difference(value, se, max(units - 1.0, 1.0), min(low, value), max(high, value), n, units, "exact", p)


def _numbered(clusters: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    names, place = np.unique(clusters, return_inverse=True)
    return len(names), place


def _worth(flips: NDArray[np.bool_], place: NDArray[np.int64] | None, level: float) -> float:
    """Independent items that these are worth, for the share of flips."""
    n = len(flips)
    if place is None:
        return float(n)
    effect = assumed_effect(place, FLIP_ICC)
    if flips.any() and place.max() > 0:
        effect = max(effect, observed_effect(flips, place, level))
    return max(1.0, n / max(1.0, effect))


def _high(k: float, n: float, level: float) -> float:
    return 1.0 if k >= n else float(stats.beta.ppf(level, k + 1, n - k))


def _low(k: float, n: float, level: float) -> float:
    return 0.0 if k <= 0 else float(stats.beta.ppf(1 - level, k, n - k + 1))


def _sign_flip(sums: list[float]) -> float:
    """One-sided p that the sum of the clusters' sums is as large by chance, over all patterns of signs."""
    patterns = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    totals = patterns @ np.asarray(sums)
    return float((totals >= np.sum(sums) - 1e-12).mean())


def holm(p: list[float]) -> list[float]:
    """Adjusted p-values that hold the chance of any false one (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    worst = 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = worst
    return [float(value) for value in adjusted]
