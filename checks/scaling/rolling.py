"""How wrong the law was when it had to predict: fits below a compute cut, tested on runs well above it.

This is the band of every prediction. Rolling origin: Tashman 2000, "Out-of-sample tests of forecasting accuracy",
https://doi.org/10.1016/S0169-2070(00)00065-0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from checks.scaling.chinchilla import BestFit, starts
from checks.scaling.levenberg import FREE, TIED, Floats, Loss, Points, minimise, predict_log

CUTS = 8
CONSTANTS = 5
BEYOND = 2.0
"""A held-out run needs this many times the compute of the largest run that was fitted."""
NEAR_SHARE, LEAST_PAIRS = 0.3, 20
"""Pairs of the nearest horizons that a band rests on."""
FEWEST_FITTED, FEWEST_SIZES_FITTED, FEWEST_TESTED = 8, 3, 5


@dataclass(frozen=True, slots=True)
class Backtest:
    """Errors of predicted over observed loss, in log units (0.01 is 1 %), one per pair of a cut and a run above it."""

    error: Floats
    """Log predicted minus log observed: above zero, the law was too pessimistic."""
    horizon: Floats
    """Log of the run's compute over the largest that the fit had seen."""
    runs: int
    """Runs of the ladder."""

    @property
    def sigma(self) -> float:
        """Root mean square error."""
        return float(np.sqrt((self.error**2).mean()))

    @property
    def reach(self) -> float:
        """Largest ratio of compute that was tested."""
        return float(np.exp(self.horizon.max()))

    def band_at(self, ratio: float, level: float = 0.9) -> float:
        """Half-width of the band in log units for a prediction at `ratio` times the largest fitted compute.

        The quantile of the errors made over a like distance; beyond the largest distance tested it grows with the
        log of compute. The pairs of a small ladder are few runs seen many times: its band is wider by what five
        constants take from the degrees of freedom, sqrt(n / (n - 5)).
        """
        asked = float(np.log(max(ratio, BEYOND)))
        near = max(LEAST_PAIRS, int(NEAR_SHARE * len(self.error)))
        pairs = np.argsort(np.abs(self.horizon - asked))[:near]
        widened = np.sqrt(self.runs / max(self.runs - CONSTANTS, 1))
        beyond = max(1.0, asked / float(self.horizon.max()))
        return float(np.quantile(np.abs(self.error[pairs]), level) * widened * beyond)

    def to_json(self) -> dict[str, Any]:
        return {
            "tested": len(self.error),
            "sigma": self.sigma,
            "bias": float(self.error.mean()),
            "band_90": float(np.quantile(np.abs(self.error), 0.9)),
            "reach": self.reach,
        }


def backtest(points: Points, best: BestFit, loss: Loss = "huber", *, tied: bool = False) -> Backtest | None:
    """Rolling-origin errors; None where the runs are too few or too close in compute to hold any out."""
    flops = points.log_n + points.log_d
    ordered = np.sort(flops)
    cuts = np.unique(ordered[(np.linspace(0.3, 0.9, CUTS) * (len(ordered) - 1)).astype(int)])
    masks = [m for cut in cuts if _usable(m := flops <= cut, flops, points)]
    if not masks:
        return None
    begin = np.concatenate([best.theta[None], starts(points, tied=tied)[:: 2 if tied else 5]])
    weights = np.repeat(np.array(masks, dtype=float) * points.weight, len(begin), axis=0)
    theta, value = minimise(
        points, np.tile(begin, (len(masks), 1)), weight=weights, loss=loss, free=TIED if tied else FREE
    )
    pick = value.reshape(len(masks), -1).argmin(axis=1)
    fitted = theta.reshape(len(masks), -1, 5)[np.arange(len(masks)), pick]
    errors: list[Floats] = []
    horizons: list[Floats] = []
    for mask, row in zip(masks, fitted, strict=True):
        ahead = flops >= flops[mask].max() + np.log(BEYOND)
        errors.append(predict_log(row, points.log_n[ahead], points.log_d[ahead]) - points.log_loss[ahead])
        horizons.append(flops[ahead] - flops[mask].max())
    found = Backtest(np.concatenate(errors), np.concatenate(horizons), len(flops))
    return found if len(found.error) >= FEWEST_TESTED else None


def _usable(mask: np.ndarray, flops: Floats, points: Points) -> bool:
    sizes = len(np.unique(np.round(points.log_n[mask], 2)))
    ahead = int((flops >= flops[mask].max() + np.log(BEYOND)).sum())
    return mask.sum() >= FEWEST_FITTED and sizes >= FEWEST_SIZES_FITTED and ahead >= 1
