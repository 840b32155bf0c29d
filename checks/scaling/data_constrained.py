"""Repeated data: what D tokens are worth when only U of them are different.

Muennighoff et al. 2023 (https://arxiv.org/abs/2305.16264), equations 5 and 6 and appendix A:

    D' = U_D + U_D R*_D (1 - exp(-R_D / R*_D)),   R_D = D / U_D - 1   (and N' alike, with U_N of N)

where U_N is the size that U_D tokens are optimal for, or N if smaller; the loss is Chinchilla's of N' and D'. Up to
about 4 epochs a repeated token is worth nearly as much as a new one; beyond about 16 nearly nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from checks.scaling.bootstrap import Interval, interval
from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN, Law
from checks.scaling.levenberg import HUBER_DELTA, Floats, rho
from checks.scaling.reference import REFERENCES
from trainvitals.errors import UsageError

R_D_STAR, R_N_STAR = 15.387756, 5.309743
"""Fitted to 182 runs on C4, 7M to 9B parameters, 1 to 500 epochs."""
EPOCHS_AS_NEW, EPOCHS_SPENT = 4.0, 16.0
"""Abstract and section 6: no difference up to 4 epochs; returns near zero past about 16."""
START = (1.0, 4.0, 8.0, 16.0, 32.0)
FEWEST_RUNS = 10


@dataclass(frozen=True, slots=True)
class DataConstrained:
    """A one-epoch law and how fast repeats lose their worth."""

    law: Law = REFERENCES["muennighoff"].law
    r_d: float = R_D_STAR
    r_n: float = R_N_STAR

    def effective_tokens(self, d: ArrayLike, unique: ArrayLike) -> Floats:
        """D': fresh tokens that would do as much."""
        d = np.asarray(d, dtype=float)
        u = np.minimum(np.asarray(unique, dtype=float), d)
        return _decayed(d, u, self.r_d)

    def effective_parameters(self, n: ArrayLike, d: ArrayLike, unique: ArrayLike) -> Floats:
        """N': parameters beyond what the unique tokens are optimal for count less."""
        n = np.asarray(n, dtype=float)
        u = np.minimum(np.asarray(unique, dtype=float), np.asarray(d, dtype=float))
        return _decayed(n, np.minimum(n, size_for(self.law, u)), self.r_n)

    def loss(self, n: ArrayLike, d: ArrayLike, unique: ArrayLike) -> Floats:
        """Loss of `n` parameters trained on `d` tokens of which `unique` are different."""
        return self.law.loss(self.effective_parameters(n, d, unique), self.effective_tokens(d, unique))

    def optimum(self, flops: float, unique: float) -> tuple[float, float]:
        """N and D with the lowest loss at a budget when only `unique` tokens exist."""
        n = np.geomspace(1e5, 1e14, 4001)
        d = flops / FLOPS_PER_PARAMETER_TOKEN / n
        best = int(self.loss(n, d, unique).argmin())
        return float(n[best]), float(d[best])


@dataclass(frozen=True, slots=True)
class RepeatFit:
    """Fitted decay constants with 95 % bootstrap intervals."""

    law: DataConstrained
    objective: float
    r_d_interval: Interval
    r_n_interval: Interval


def size_for(law: Law, d: ArrayLike) -> Floats:
    """N for which `d` tokens are compute-optimal: alpha A / N^alpha = beta B / D^beta."""
    ratio = law.alpha * law.A / (law.beta * law.B)
    return np.asarray((ratio * np.asarray(d, dtype=float) ** law.beta) ** (1 / law.alpha))


def fit_repeats(
    n: Floats, d: Floats, unique: Floats, loss: Floats, base: Law, *, resamples: int = 200, seed: int = 0
) -> RepeatFit:
    """Fit R*_D and R*_N with the one-epoch law held fixed, as the paper does: Huber 1e-3 on the log loss.

    Raises:
        UsageError: too few runs repeat their data.
    """
    if (repeated := int((d > 1.5 * unique).sum())) < FEWEST_RUNS:
        raise UsageError(
            f"{repeated} runs repeat their data by half an epoch or more; {FEWEST_RUNS} are needed to fit what repeats "
            "are worth. Add runs with D above their unique tokens."
        )
    u_d = np.minimum(unique, d)
    u_n = np.minimum(n, size_for(base, u_d))
    observed = np.log(loss)

    def objective(log_r: Floats, weight: Floats) -> float:
        r_d, r_n = np.exp(np.clip(log_r, -5, 12))
        fitted = np.log(base.loss(_decayed(n, u_n, r_n), _decayed(d, u_d, r_d)))
        return float((weight * rho(fitted - observed, HUBER_DELTA)).sum())

    def solve(weight: Floats, begin: list[tuple[float, float]]) -> tuple[Floats, float]:
        tries = [minimize(objective, np.log(b), args=(weight,), method="Nelder-Mead",
                          options={"xatol": 1e-6, "fatol": 1e-12}) for b in begin]
        best = min(tries, key=lambda t: float(t.fun))
        return np.exp(best.x), float(best.fun)

    ones = np.ones(len(n))
    found, value = solve(ones, [(a, b) for a in START for b in START])
    draws = np.random.default_rng(seed).multinomial(len(n), ones / len(n), size=resamples).astype(float)
    drawn = np.array([solve(w, [(float(found[0]), float(found[1]))])[0] for w in draws])
    return RepeatFit(DataConstrained(base, float(found[0]), float(found[1])), value, interval(drawn[:, 0]),
                     interval(drawn[:, 1]))


def _decayed(total: Floats, fresh: Floats, r_star: float) -> Floats:
    repeats = np.maximum(total / fresh - 1, 0)
    return np.asarray(fresh + fresh * r_star * -np.expm1(-repeats / r_star))
