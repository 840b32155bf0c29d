"""Bootstrap of a fit: the runs are drawn again with replacement and every resample is fitted, thousands at once.

Every interval holds its own estimate: a robust fit of few runs may lie at one end of its resamples.

The intervals say how well these runs determine the law. They are not the error of a prediction: on the 240 points of
Besiroglu et al. a 95 % band of the law's parameters covers 14 to 35 % of runs at twice the compute and beyond; that
error is `rolling.backtest`.
"""

from __future__ import annotations

import numpy as np

from checks.scaling.chinchilla import BestFit, Law
from checks.scaling.levenberg import FREE, TIED, Floats, Loss, Points, minimise

MOST_RESAMPLES = 100_000
RESAMPLES = 4000
"""As Besiroglu et al. 2024, https://arxiv.org/abs/2404.10102."""

BIASED = (0.31, 0.69)
"""Share of resamples below the estimate between which it counts as their middle: z0 of half a standard deviation."""

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


def interval(values: Floats, level: float = 0.95, estimate: float | None = None) -> Interval:
    """Percentile interval of positive values, which holds the estimate.

    Where the estimate lies far from the middle of the resamples (Efron's bias correction z0 beyond `BIASED`), the
    resamples are off to one side of what they resample, and the true value off to the other side of the estimate as
    likely as not: the interval is then the hull of the percentile interval and its mirror image about the estimate (in
    logs), the basic bootstrap interval (Davison & Hinkley 1997, Bootstrap Methods and their Application, section 5.2).
    """
    with np.errstate(invalid="ignore"):  # an open end is infinite
        ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    low, high = (float(end) for end in np.where(np.isnan(ends), np.inf, ends))
    if estimate is None or not np.isfinite(estimate) or not is_biased(values, estimate):
        return low, high
    with np.errstate(divide="ignore", over="ignore"):
        mirrored = np.square(np.float64(estimate)) / np.array([high, low])
    return min(low, float(mirrored[0])), max(high, float(mirrored[1]))


def is_biased(values: Floats, estimate: float) -> bool:
    """Whether an estimate lies far from the middle of its resamples."""
    below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / len(values)
    return not BIASED[0] <= below <= BIASED[1]


def intervals(laws: Law, best: Law | None = None, level: float = 0.95) -> dict[str, Interval]:
    """Intervals of the five constants and of the exponent of N* ~ C^a; plain percentiles without the best law."""
    names = ("E", "A", "B", "alpha", "beta", "n_exponent")
    return {
        name: interval(getattr(laws, name), level, None if best is None else float(getattr(best, name)))
        for name in names
    }


def optimum_intervals(laws: Law, flops: float, best: Law | None = None, level: float = 0.95) -> dict[str, Interval]:
    """Intervals of N*, D* and D*/N* at a compute budget."""
    names = {"N": "n", "D": "d", "tokens_per_parameter": "tokens_per_parameter"}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        drawn, at = laws.optimum(flops), None if best is None else best.optimum(flops)
        return {
            key: interval(np.nan_to_num(getattr(drawn, name), nan=np.inf), level,
                          None if at is None else float(getattr(at, name)))
            for key, name in names.items()
        }
