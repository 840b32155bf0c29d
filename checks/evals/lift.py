"""Does a slice hold more of the falls than it should? Exact tests, and the false discovery rate over many slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def lift_p(strata: Iterable[tuple[int, int, int, int]]) -> float:
    """Chance of as many marked items in a slice, were they spread at random within each stratum.

    Args:
        strata: of each one (marked in the slice, items in the slice, marked, items). The counts of several strata add
            up, so their hypergeometric distributions are convolved; of one it is `scipy.stats.hypergeom`.
    """
    seen, spread = 0, np.ones(1)
    for k, n, marked, items in strata:
        seen += k
        spread = np.convolve(spread, stats.hypergeom.pmf(np.arange(min(n, marked) + 1), items, marked, n))
    return float(min(spread[seen:].sum(), 1.0))


def lift(strata: Sequence[tuple[int, int, int, int]]) -> float:
    """Marked items in the slice over those that it would have at the rate of the rest of each stratum, each + 1/2."""
    expected = sum(n * (marked - k) / (items - n) for k, n, marked, items in strata)
    return float((sum(k for k, *_ in strata) + 0.5) / (expected + 0.5))


def benjamini_hochberg(p: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values that hold the share of false ones among those found (Benjamini and Hochberg 1995)."""
    return np.asarray(stats.false_discovery_control(list(p)) if len(p) else np.empty(0))
