"""What moved most between two samples of the data: token ids and domains, by their part in the divergence.

No check and no alarm: `tokens/js` says how far the data moved, this says where. Plain functions over counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Mover:
    """One category whose share changed."""

    label: str
    before: float
    """Share in the reference sample."""
    now: float
    """Share in the recent sample."""
    part: float
    """Its part of the Jensen-Shannon divergence, in [0, 1]; all categories together make up 1."""


def movers(
    reference: ArrayLike, recent: ArrayLike, labels: Sequence[str], *, top: int = 12, least_count: int = 20
) -> tuple[Mover, ...]:
    """The categories that contribute most to the Jensen-Shannon divergence of two count vectors, largest first.

    The divergence is a sum over categories, m*log(1/m) - (p*log(1/p) + q*log(1/q))/2 with m = (p + q)/2, and no term
    is negative, so terms are parts of a whole (word shift graphs, https://arxiv.org/abs/2008.02250).
    A category seen fewer than `least_count` times in both samples together is left out of the list, because rare
    token ids come and go by chance; it still counts for the whole.

    Args:
        reference: counts [K].
        recent: counts [K].
        labels: K names.
        top: how many to return at most.
        least_count: see above.

    Returns:
        At most `top` movers; empty where one of the samples is.
    """
    first, second = (np.asarray(counts, dtype=np.float64) for counts in (reference, recent))
    if first.sum() <= 0 or second.sum() <= 0:
        return ()
    p, q = first / first.sum(), second / second.sum()
    terms = _terms(p, q)
    whole = terms.sum()
    if whole <= 0:
        return ()
    order = [i for i in np.argsort(-terms, kind="stable") if first[i] + second[i] >= least_count and terms[i] > 0]
    return tuple(Mover(str(labels[i]), float(p[i]), float(q[i]), float(terms[i] / whole)) for i in order[:top])


def _terms(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log(p / middle), 0.0) + np.where(q > 0, q * np.log(q / middle), 0.0)
    return np.maximum(parts / 2, 0.0)
