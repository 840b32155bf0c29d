"""Bootstrap of a fit: the runs are drawn again with replacement and every resample is fitted, thousands at once.

The intervals say how well these runs determine the law. They are not the error of a prediction: on the 240 points of
Besiroglu et al. a 95 % band of the law's parameters covers 14 to 35 % of runs at twice the compute and beyond; that
error is `rolling.backtest`.
"""

from __future__ import annotations

import numpy as np

from checks.scaling.chinchilla import BestFit, Law
from checks.scaling.levenberg import FREE, TIED, Floats, Loss, Points, minimise

RESAMPLES = 4000
"""As Besiroglu et al. 2024, https://arxiv.org/abs/2404.10102."""

Interval = tuple[float, float]


def resample(
    points: Points,
    best: BestFit,
    loss: Loss = "huber",
    *,
    resamples: int = RESAMPLES,
    tied: bool = False,
    seed: int = 0,
) -> Law:
    """Laws of `resamples` bootstrap draws: a `Law` whose fields have shape (resamples,)."""
    n = len(points.log_loss)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    theta, _ = minimise(
        points,
        np.tile(best.theta, (resamples, 1)),
        weight=draws * points.weight,
        loss=loss,
        free=TIED if tied else FREE,
    )
    return Law.from_theta(theta)


def interval(values: Floats, level: float = 0.95) -> Interval:
    """Percentile interval."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(laws: Law, level: float = 0.95) -> dict[str, Interval]:
    """Percentile intervals of the five constants and of the exponent of N* ~ C^a."""
    columns = {name: getattr(laws, name) for name in ("E", "A", "B", "alpha", "beta")}
    return {name: interval(values, level) for name, values in (columns | {"n_exponent": laws.n_exponent}).items()}


def optimum_intervals(laws: Law, flops: float, level: float = 0.95) -> dict[str, Interval]:
    """Percentile intervals of N*, D* and D*/N* at a compute budget."""
    best = laws.optimum(flops)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = {"N": best.n, "D": best.d, "tokens_per_parameter": best.tokens_per_parameter}
        return {name: interval(np.nan_to_num(value, nan=np.inf), level) for name, value in values.items()}
