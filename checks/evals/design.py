"""How many independent items are clustered ones worth? Their number over the design effect (Kish 1965).

Items of one cluster share a subject, a passage or an attack family: one of them in a hundred words is not a hundred.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats


def observed_effect(marked: NDArray[np.bool_], place: NDArray[np.int64], confidence: float) -> float:
    """Design effect of a share that is not 0 or 1, as the clusters show it.

    Few clusters know their own variance badly, so the ratio of the t quantiles is in it (Korn and Graubard 1998).

    Args:
        marked: whether each item counts for the share (n,).
        place: number of each item's cluster (n,), from 0, of two clusters at the least.
        confidence: one-sided, of the bound that it is for.
    """
    n, share, groups = len(marked), float(marked.mean()), int(place.max()) + 1
    totals = np.bincount(place, weights=marked - share)
    variance = float((totals**2).sum()) / n**2 * groups / (groups - 1)
    ratio = float(stats.t.ppf(confidence, n - 1) / stats.t.ppf(confidence, groups - 1))
    return max(1.0, variance / (share * (1 - share) / n)) / ratio**2


def assumed_effect(place: NDArray[np.int64], icc: float) -> float:
    """Design effect of items that are correlated so much within a cluster."""
    sizes = np.bincount(place)
    return 1 + (float((sizes**2).sum()) / len(place) - 1) * icc
