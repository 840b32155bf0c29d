"""The lower envelope of training curves (approach 1): which size had the lowest loss at each compute.

Hoffmann et al. 2022, section 3.1 (https://arxiv.org/abs/2203.15556): smooth each curve, take the best run at 1,500
log-spaced budgets, and draw power laws through N and D of the winners. A curve whose learning rate was not yet down
lies above what a run of that length would reach, so each size must have been trained at several lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN
from checks.scaling.kaplan import fit_power_law
from checks.scaling.levenberg import Floats
from trainvitals.errors import UsageError

BUDGETS = 1500
SMOOTH_ROWS = 10.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One run's loss over its training."""

    n: float
    """Parameters."""
    d: Floats
    """Tokens seen so far, rising."""
    loss: Floats

    @property
    def flops(self) -> Floats:
        return np.asarray(FLOPS_PER_PARAMETER_TOKEN * self.n * self.d)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The winners, all of shape (budgets,); budgets that no curve reaches are left out."""

    flops: Floats
    n: Floats
    d: Floats
    loss: Floats
    winner: np.ndarray
    """Position of the curve that was lowest."""
    n_exponent: float
    d_exponent: float


def envelope(curves: Sequence[Curve], *, budgets: int = BUDGETS, smooth_rows: float = SMOOTH_ROWS) -> Envelope:
    """Lower envelope of curves and the exponents of N and D along it.

    Raises:
        UsageError: fewer than three sizes ever win, so there is no exponent to fit.
    """
    if not curves:
        raise UsageError("An envelope needs training curves; none were given.")
    grid = np.geomspace(min(c.flops[0] for c in curves), max(c.flops[-1] for c in curves), budgets)
    table = np.stack([_at(curve, grid, smooth_rows) for curve in curves])  # (curves, budgets)
    reached = np.isfinite(table).any(axis=0)
    grid, table = grid[reached], table[:, reached]
    winner = table.argmin(axis=0)
    n = np.array([c.n for c in curves])[winner]
    # Below the smallest size's and above the largest size's reign the winner wins for want of rivals.
    sizes = np.unique(n)
    contested = (n > sizes[0]) & (n < sizes[-1])
    if len(np.unique(n[contested])) < 3:
        raise UsageError(
            f"{len(sizes)} sizes lie on the envelope, and the smallest and largest win for want of rivals. Add curves "
            "of at least five sizes."
        )
    d = grid / (FLOPS_PER_PARAMETER_TOKEN * n)
    return Envelope(
        grid, n, d, table.min(axis=0), winner,
        -fit_power_law(grid[contested], n[contested]).exponent,
        -fit_power_law(grid[contested], d[contested]).exponent,
    )


def _at(curve: Curve, grid: Floats, smooth_rows: float) -> Floats:
    """Smoothed loss at each budget, infinite where the curve does not reach."""
    smooth = gaussian_filter1d(curve.loss, smooth_rows, mode="nearest") if smooth_rows else curve.loss
    return np.interp(np.log(grid), np.log(curve.flops), smooth, left=np.inf, right=np.inf)
