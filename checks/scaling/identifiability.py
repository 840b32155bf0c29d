"""Do these runs determine the law at all? Profiles of the objective answer what residuals cannot.

A ladder of small models may be fitted to a tenth of a percent by E = 0.5 and by E = 2.0 alike; the optimum that the
minimiser names is then an accident. Here one constant is held at each value of a grid while the others are fitted
again. Values whose objective is not significantly worse form the profile interval.

The test is the likelihood ratio of robust regression (Schrader & Hettmansperger 1980, "Robust analysis of variance
based upon a likelihood ratio criterion", https://doi.org/10.1093/biomet/67.1.93): 2 (rho_held - rho_best) times
mean(psi') / mean(psi^2) is chi-square with one degree of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from checks.scaling.chinchilla import BestFit, starts
from checks.scaling.levenberg import FREE, HUBER_DELTA, Floats, Loss, Points, minimise, predict_log

GRID = 31
CREDIBLE_E_NATS = 1.0
"""Irreducible loss of text per token below which a fit is an artefact. Published fits of text lie at 1.69 to 1.95;
a ladder of up to 1.3B parameters on C4 that gives 0.56 does not determine it (measured, OLMo ladder)."""
CREDIBLE_E_SHARE = 0.4
"""The same as a share of the lowest loss, for losses per byte or per character, where one nat says nothing."""
WIDEST_E = 0.5
"""Relative width of E's profile interval from which E is called undetermined (measured on simulated ladders)."""
WIDEST_EXPONENT = 2.5
"""Ratio of the ends of an exponent's profile interval from which it is called undetermined."""
FEWEST_SIZES = 5


@dataclass(frozen=True, slots=True)
class Profile:
    """Values of one constant that the runs do not rule out at 95 %."""

    name: str
    low: float | None
    """None: open, down to the end of the grid."""
    high: float | None
    grid: tuple[float, ...]
    deviance: tuple[float, ...]
    """Test statistic at each value of the grid; 3.84 is the 95 % point."""


@dataclass(frozen=True, slots=True)
class Identifiability:
    """Profiles of E, alpha and beta, and what they leave open."""

    profiles: tuple[Profile, ...]
    reasons: tuple[str, ...]
    """One sentence per constant that these points do not determine; empty where all are."""

    @property
    def identifiable(self) -> bool:
        return not self.reasons


def identify(points: Points, best: BestFit, loss: Loss = "huber", unit: str = "") -> Identifiability:
    """Profile E, alpha and beta, and say which are not identifiable from these points; `unit` is that of the loss."""
    lowest = float(np.exp(points.log_loss.min()))
    grids = {
        "E": np.linspace(0.01, 0.999, GRID) * lowest,
        "alpha": np.geomspace(0.02, 2.0, GRID),
        "beta": np.geomspace(0.02, 2.0, GRID),
    }
    profiles = tuple(profile(points, best, name, grid, loss) for name, grid in grids.items())
    return Identifiability(profiles, tuple(_design(points) + _doubts(best, profiles, lowest, unit)))


def profile(points: Points, best: BestFit, name: str, grid: Floats, loss: Loss) -> Profile:
    """Deviance of one constant over a grid, and the interval around the optimum that it leaves."""
    column = {"E": 2, "alpha": 3, "beta": 4}[name]
    held = np.log(grid) if name == "E" else grid
    begin = np.concatenate([best.theta[None], starts(points)[7::12]])
    theta = np.repeat(begin, len(grid), axis=0)
    theta[:, column] = np.tile(held, len(begin))
    _, value = minimise(points, theta, loss=loss, free=np.delete(FREE, column, axis=1), iterations=40)
    value = value.reshape(len(begin), len(grid)).min(axis=0)
    deviance = 2 * np.maximum(value - best.objective, 0) / _scale(points, best, loss)
    at = float(np.exp(best.theta[2])) if name == "E" else float(best.theta[column])
    low, high = _crossings(grid, deviance, at, float(chi2.ppf(0.95, 1)))
    return Profile(name, low, high, tuple(grid.tolist()), tuple(deviance.tolist()))


def _scale(points: Points, best: BestFit, loss: Loss) -> float:
    """mean(psi^2) / mean(psi'), with the density of residuals at zero from a window wide enough to hold some."""
    residual = predict_log(best.theta, points.log_n, points.log_d) - points.log_loss
    n = len(residual)
    correction = n / max(n - 5, 1)
    if loss == "gaussian":
        return float((points.weight * residual**2).mean() * correction)
    size = np.abs(residual)
    spread = 1.4826 * float(np.median(size)) * np.sqrt(correction)
    window = max(HUBER_DELTA, spread * n**-0.2)
    density = max(float((size <= window).mean()) / (2 * window), 1e-300)
    weight = points.weight.mean()
    if loss == "l1":
        return float(weight * correction / (2 * density))
    psi = np.clip(size, 0, HUBER_DELTA)
    curvature = max(min(1.0, 2 * HUBER_DELTA * density), float((size <= HUBER_DELTA).mean()) / 2, 1e-300)
    return float(weight * correction * (psi**2).mean() / curvature)


def _crossings(grid: Floats, deviance: Floats, at: float, limit: float) -> tuple[float | None, float | None]:
    """Ends of the range around `at` below `limit`, by linear interpolation between values of the grid."""
    values = np.append(grid, at)
    order = np.argsort(values)
    values, heights = values[order], np.append(deviance, 0.0)[order]
    here = int(np.flatnonzero(order == len(grid))[0])
    ends: list[float | None] = []
    for side in (range(here, 0, -1), range(here, len(values) - 1)):
        end = None
        for i in side:
            j = i + (1 if side.step == 1 else -1)
            if heights[j] > limit:
                share = (limit - heights[i]) / (heights[j] - heights[i])
                end = float(values[i] + share * (values[j] - values[i]))
                break
        ends.append(end)
    return ends[0], ends[1]


def _design(points: Points) -> list[str]:
    """What the choice of runs alone rules out."""
    sizes = len(np.unique(np.round(points.log_n, 2)))
    said = []
    if sizes < FEWEST_SIZES:
        said.append(f"{sizes} model sizes are too few to tell the exponent of N from E; train at least {FEWEST_SIZES}.")
    ratio = points.log_d - points.log_n
    if np.ptp(ratio) < np.log(1.5):
        said.append(
            f"Every run has about the same {np.exp(np.median(ratio)):.3g} tokens per parameter, so the shares of N "
            "and D cannot be told apart; train some sizes on more and on fewer tokens."
        )
    return said


def _doubts(best: BestFit, profiles: Sequence[Profile], lowest: float, unit: str) -> list[str]:
    said = []
    e, *exponents = profiles
    credible = CREDIBLE_E_NATS if lowest >= 1.5 and unit != "bits/byte" else CREDIBLE_E_SHARE * lowest
    span = f"{_end(e.low, 0)} to {_end(e.high, lowest)}"
    if best.law.E < credible:
        said.append(f"E = {best.law.E:.3g} is below {credible:.3g}, which no text has: these runs allow {span}.")
    elif e.low is None or e.high is None or e.high - e.low > WIDEST_E * best.law.E:
        where = "lies above the lowest loss, and is" if best.law.E >= lowest else "is"
        said.append(f"E = {best.law.E:.3g} {where} not identifiable from these points: they allow {span}.")
    for p, what in zip(exponents, ("alpha, the exponent of N,", "beta, the exponent of D,"), strict=True):
        if p.low is None or p.high is None or p.high > WIDEST_EXPONENT * p.low:
            value = best.law.alpha if p.name == "alpha" else best.law.beta
            said.append(
                f"{what} = {value:.3g} is not identifiable from these points: they allow "
                f"{_end(p.low, p.grid[0])} to {_end(p.high, p.grid[-1])}."
            )
    return said


def _end(value: float | None, edge: float) -> str:
    return f"{edge if value is None else value:.3g}"
