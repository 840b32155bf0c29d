"""Laws of a loss curve that are linear in most of their parameters, and one robust fit for all of them.

A law says L(s) = X(s; shape) @ linear, with the columns of X computed from the learning-rate schedule. For a fixed
shape the linear part is one least-squares problem (variable projection, https://doi.org/10.1137/0710036), so the search
runs over one or two shape parameters only, and several curves are fitted jointly at the cost of one.

Legend: n rows of all curves, k linear parameters, T steps of a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checks.scaling._curve import Curve

Floats = NDArray[np.float64]

HUBER_DELTA = 1e-3
"""Turning point of the loss on log residuals, as in https://arxiv.org/abs/2203.15556 and https://arxiv.org/abs/2503.12811."""

CURVE_WEIGHT = 100.0
"""Every curve weighs as much as so many rows, however densely it was logged."""

PRIOR_WEIGHT = 1e-5
"""Huber loss that one prior standard deviation of a shape parameter costs: about a tenth of the loss of a good fit, so
it decides only where the curves do not."""

MOST_CELLS = 10_000
"""Schedules are filtered in at most so many cells; 72,000 steps in cells of 8 move a forecast by less than 1e-3."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One parameter that enters a law non-linearly."""

    name: str
    center: float
    spread: float
    """Prior standard deviation; of the logarithm where `log`."""
    low: float
    high: float
    log: bool = False

    def encode(self, value: float) -> float:
        """In units of prior standard deviations from the centre."""
        return float((np.log(value / self.center) if self.log else value - self.center) / self.spread)

    def decode(self, z: float) -> float:
        """The value that `encode` gave `z` for, kept inside the bounds."""
        value = self.center * np.exp(np.clip(z * self.spread, -50, 50)) if self.log else self.center + z * self.spread
        return float(np.clip(value, self.low, self.high))


@dataclass(frozen=True, slots=True)
class CurveLaw:
    """A family of curves."""

    name: str
    source: str
    shapes: tuple[Shape, ...]
    linear: tuple[str, ...]
    """Names of the linear parameters; all are kept at or above zero."""
    columns: Callable[[Floats, NDArray[np.int64], tuple[float, ...]], Floats]
    """(rates of every step [T], steps [n], shape) -> X [n, k]"""
    starts: tuple[tuple[float, ...], ...]
    """Shapes from which the search begins: the best of them is polished."""
    bought: Callable[[float, tuple[float, ...]], Floats] | None = None
    """(peak rate, shape) -> what a settled fall of the rate to nothing has bought per linear parameter [k]."""
    buys: tuple[float, float] = (0.0, math.inf)
    """The same as a share of the loss: centre and spread of a weak prior."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A law with its parameters."""

    law: CurveLaw
    shape: tuple[float, ...]
    coefficients: Floats
    """[k]"""
    objective: float
    residuals: tuple[Floats, ...]
    """log(observed / fitted) per curve"""

    @property
    def parameters(self) -> dict[str, float]:
        """Every parameter by name."""
        shape = {s.name: value for s, value in zip(self.law.shapes, self.shape, strict=True)}
        return shape | {name: float(b) for name, b in zip(self.law.linear, self.coefficients, strict=True)}

    def predict(self, rates: Floats, steps: NDArray[np.int64]) -> Floats:
        """The law's loss at these steps under a schedule. rates: [T], of steps 1 to T."""
        predicted: Floats = self.law.columns(rates, np.asarray(steps, np.int64), self.shape) @ self.coefficients
        return predicted

    def sensitivity(self, rates: Floats, steps: NDArray[np.int64]) -> Floats:
        """Derivatives of the predicted loss: by the logarithms of the linear parameters, then by encoded shapes.

        rates: [T]; steps: [n] -> [n, k + shapes].
        """
        own = self.law.columns(rates, steps, self.shape)
        # A parameter at its bound of zero may still be wrong: its scale is then that of a percent of the loss.
        size = np.maximum(self.coefficients, 0.01 * self._level() / np.maximum(np.abs(own).mean(axis=0), 1e-12))
        parts = [own * size]
        for i, shape in enumerate(self.law.shapes):
            z = shape.encode(self.shape[i])
            ends = [self._with(i, shape.decode(z + dz)) for dz in (0.05, -0.05)]
            width = shape.encode(ends[0][i]) - shape.encode(ends[1][i])
            up, down = (self.law.columns(rates, steps, end) @ self.coefficients for end in ends)
            parts.append(((up - down) / max(width, 1e-9))[:, None])
        return np.concatenate(parts, axis=1)

    def _with(self, i: int, value: float) -> tuple[float, ...]:
        return (*self.shape[:i], value, *self.shape[i + 1 :])

    def _level(self) -> float:
        return float(max(self.coefficients[0], 1e-3))


def fit(law: CurveLaw, curves: Sequence[Curve]) -> Fitted:
    """Fit one law to several curves at once; all share every parameter.

    Robust weighted least squares on log residuals (Huber, `HUBER_DELTA`), non-negative linear parameters, and weak
    priors on the shape that matter only where the curves do not decide. Every curve has the same weight.
    """
    from scipy.optimize import minimize

    observed = np.concatenate([c.losses for c in curves])
    weights = np.concatenate([np.full(len(c.losses), CURVE_WEIGHT / len(c.losses)) for c in curves])

    level, peak = float(np.median(observed)), max(float(c.rates.max()) for c in curves)

    def solve(shape: tuple[float, ...]) -> tuple[Floats, float]:
        design = np.concatenate([law.columns(c.rates, c.steps, shape) for c in curves])
        if law.bought is None:
            return _robust(design, observed, weights)
        center, spread = law.buys
        weight = math.sqrt(2 * PRIOR_WEIGHT) / spread
        return _robust(design, observed, weights, weight * law.bought(peak, shape) / level, weight * center)

    def cost(z: Floats) -> float:
        shape = tuple(s.decode(v) for s, v in zip(law.shapes, z, strict=True))
        return solve(shape)[1] + PRIOR_WEIGHT * float(z @ z)

    begin = [np.array([s.encode(v) for s, v in zip(law.shapes, start, strict=True)]) for start in law.starts]
    best = min(begin, key=cost)
    simplex = np.vstack([best, best + 0.5 * np.eye(len(best))])
    found = minimize(
        cost, best, method="Nelder-Mead", options={"xatol": 5e-3, "fatol": 1e-9, "initial_simplex": simplex}
    )
    shape = tuple(s.decode(v) for s, v in zip(law.shapes, found.x, strict=True))
    coefficients, objective = solve(shape)
    fitted = Fitted(law, shape, coefficients, objective, ())
    residuals = tuple(np.log(c.losses / np.maximum(fitted.predict(c.rates, c.steps), 1e-9)) for c in curves)
    return Fitted(law, shape, coefficients, objective, residuals)


def _robust(
    design: Floats, observed: Floats, weights: Floats, prior: Floats | None = None, believed: float = 0.0,
    rounds: int = 8,
) -> tuple[Floats, float]:
    """Linear parameters and sum of weighted Huber losses of the log residuals, by reweighted least squares.

    `prior` [k] is one row more, without a bend: prior @ b should be `believed`, within 1.
    """
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    scaled = design / scale
    row = np.zeros_like(scale) if prior is None else prior / scale
    now = weights
    for _ in range(rounds):
        root = np.sqrt(now) / observed
        b = _nonnegative(np.vstack([scaled * root[:, None], row]), np.append(observed * root, believed))
        residual = np.abs(np.log(np.maximum(scaled @ b, 1e-9) / observed))
        now = weights * np.minimum(1.0, HUBER_DELTA / np.maximum(residual, 1e-12))
    small = residual < HUBER_DELTA
    huber = np.where(small, 0.5 * residual**2, HUBER_DELTA * (residual - 0.5 * HUBER_DELTA))
    return b / scale, float(weights @ huber) + 0.5 * float(row @ b - believed) ** 2


def _nonnegative(design: Floats, target: Floats) -> Floats:
    """Least squares with b >= 0: the plain solution where it complies, as it nearly always does."""
    gram, moment = design.T @ design, design.T @ target
    gram = gram + 1e-12 * np.trace(gram) * np.eye(len(gram))
    free = np.ones(len(moment), bool)
    b = np.zeros(len(moment))
    while free.any():
        b[:] = 0.0
        b[free] = np.linalg.solve(gram[np.ix_(free, free)], moment[free])
        if (b[free] >= 0).all():
            break
        free &= b > b[free].min()
    return b


def in_cells(rates: Floats) -> tuple[Floats, int]:
    """Mean rates of cells of equal length, and the steps per cell: a long schedule is filtered in `MOST_CELLS`."""
    size = -(-len(rates) // MOST_CELLS)
    if size == 1:
        return rates, 1
    whole = len(rates) // size * size
    cells = rates[:whole].reshape(-1, size).mean(axis=1)
    return (np.append(cells, rates[whole:].mean()) if whole < len(rates) else cells), size
