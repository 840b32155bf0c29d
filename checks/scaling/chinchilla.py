"""The Chinchilla law L(N, D) = E + A / N^alpha + B / D^beta: its optimum in closed form, and its fit.

Hoffmann et al. 2022, approach 3 (https://arxiv.org/abs/2203.15556), fitted as in the replication of Besiroglu et al.
2024 (https://arxiv.org/abs/2404.10102): the Huber loss with threshold 1e-3 of the log loss's residuals is summed, not
averaged. For given exponents the law is linear in E, A and B (variable projection, the idea of
https://github.com/Open-Athena/vpnls), so a few pairs of exponents replace the papers' 4,500 starting points.

N in parameters, D in tokens, losses in nats per token, compute C = 6 N D in FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from checks.scaling.levenberg import FREE, TIED, Floats, Loss, Points, minimise

FLOPS_PER_PARAMETER_TOKEN = 6.0
"""Forward and backward pass, attention left out: Kaplan et al. 2020, section 2.1, https://arxiv.org/abs/2001.08361."""
START_EXPONENTS = (0.05, 0.15, 0.3, 0.45, 0.65, 0.9)
START_ITERATIONS = 40
"""Steps of every start; a start that has not arrived by then counts as lost. The best three go on to the end."""
CONSENSUS_WITHIN = 1e-4
EXACT = 1e-14
"""Objective per run below which runs lie on the law as well as numbers can tell: residuals of 1e-7."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best split of a compute budget, all of the shape of `flops`."""

    flops: Floats
    n: Floats
    d: Floats
    loss: Floats

    @property
    def tokens_per_parameter(self) -> Floats:
        return np.asarray(self.d / self.n)


@dataclass(frozen=True, slots=True)
class Law:
    """The five constants of L(N, D). Fields may be arrays of one shape: a bootstrap is a law too."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    @classmethod
    def from_theta(cls, theta: Floats) -> Law:
        """The law of theta (..., 5) = (log A, log B, log E, alpha, beta)."""
        a, b, e, alpha, beta = np.moveaxis(np.asarray(theta, dtype=float), -1, 0)
        values = (np.exp(e), np.exp(a), np.exp(b), alpha, beta)
        return cls(*(float(v) if np.ndim(v) == 0 else v for v in values))

    def theta(self) -> Floats:
        """(log A, log B, log E, alpha, beta), shape (..., 5)."""
        return np.stack(
            [np.log(self.A), np.log(self.B), np.log(self.E), np.asarray(self.alpha), np.asarray(self.beta)], axis=-1
        )

    def loss(self, n: ArrayLike, d: ArrayLike) -> Floats:
        """Predicted loss of `n` parameters trained on `d` tokens."""
        n, d = np.asarray(n, dtype=float), np.asarray(d, dtype=float)
        return np.asarray(self.E + self.A * n**-self.alpha + self.B * d**-self.beta)

    @property
    def n_exponent(self) -> float:
        """Exponent a of N* ~ C^a: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    def optimum(self, flops: ArrayLike) -> Optimum:
        """N* = G (C/6)^(beta/(alpha+beta)) with G = (alpha A / (beta B))^(1/(alpha+beta)), and D* = C / (6 N*).

        Hoffmann et al. 2022, equation 4.
        """
        c = np.asarray(flops, dtype=float)
        with np.errstate(all="ignore"):  # a resample may have no optimum to speak of: zero and infinity say so
            ratio = np.log(self.alpha) + np.log(self.A) - np.log(self.beta) - np.log(self.B)
            n = np.asarray(np.exp((ratio + self.beta * np.log(c / FLOPS_PER_PARAMETER_TOKEN))
                                  / (self.alpha + self.beta)))
            d = np.asarray(c / FLOPS_PER_PARAMETER_TOKEN / n)
            return Optimum(c, n, d, self.loss(n, d))

    def flops_for(self, loss: float) -> float:
        """Least compute that reaches `loss` at the optimum; infinite at or below E."""
        if loss <= self.E:
            return float("inf")
        low, high = -20.0, 200.0  # log of the parameters
        for _ in range(80):  # along the frontier both terms fall together, so loss is monotone in N*
            mid = (low + high) / 2
            low, high = (low, mid) if self._on_frontier(mid)[1] < loss else (mid, high)
        return float(self._on_frontier(high)[0])

    def _on_frontier(self, log_n: float) -> tuple[float, float]:
        """FLOPs and loss where this many parameters are optimal: alpha A / N^alpha = beta B / D^beta."""
        with np.errstate(over="ignore"):
            lead = np.log(self.beta) + np.log(self.B) - np.log(self.alpha) - np.log(self.A)
            log_d = (lead + self.alpha * log_n) / self.beta
            loss = self.E + np.exp(np.log(self.A) - self.alpha * log_n) + np.exp(np.log(self.B) - self.beta * log_d)
            return float(FLOPS_PER_PARAMETER_TOKEN * np.exp(log_n + log_d)), float(loss)

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, float]) -> Law:
        return cls(**{name: float(raw[name]) for name in ("E", "A", "B", "alpha", "beta")})


@dataclass(frozen=True, slots=True)
class Consensus:
    """How many starting points ended at the best optimum found."""

    starts: int
    reached: int
    within: float = CONSENSUS_WITHIN
    """Relative distance to the best objective that counts as the same optimum."""

    @property
    def share(self) -> float:
        return self.reached / self.starts


@dataclass(frozen=True, slots=True)
class BestFit:
    """The optimum of one fit."""

    law: Law
    theta: Floats
    objective: float
    consensus: Consensus


def fit_law(points: Points, loss: Loss = "huber", *, tied: bool = False) -> BestFit:
    """Fit the law from a grid of exponents; `tied` keeps alpha = beta.

    Needs at least 5 points (4 where tied) that differ in N and in D; `table.Ladder` sees to it.
    """
    free = TIED if tied else FREE
    theta, value = minimise(points, starts(points, tied=tied), loss=loss, free=free, iterations=START_ITERATIONS)
    first = np.argsort(value)[:3]
    theta[first], value[first] = minimise(points, theta[first], loss=loss, free=free)
    best = int(value.argmin())
    same = value[best] * (1 + CONSENSUS_WITHIN) + EXACT * points.weight.sum()
    reached = int((value <= same).sum())
    return BestFit(Law.from_theta(theta[best]), theta[best], float(value[best]), Consensus(len(theta), reached))


def starts(points: Points, *, tied: bool = False) -> Floats:
    """Starting points (B, 5): per pair of exponents the E, A and B of relative least squares, kept positive."""
    grid = np.array(START_EXPONENTS)
    alpha, beta = (grid, grid) if tied else (v.ravel() for v in np.meshgrid(grid, grid, indexing="ij"))
    x, y = points.log_n - points.log_n.mean(), points.log_d - points.log_d.mean()
    basis = np.stack(
        [np.exp(-alpha[:, None] * x), np.exp(-beta[:, None] * y), np.ones((len(alpha), len(x)))], axis=2
    )  # (B, n, 3)
    basis *= (np.sqrt(points.weight) * np.exp(-points.log_loss))[None, :, None]
    gram = np.einsum("bni,bnj->bij", basis, basis)
    right = np.einsum("bni,n->bi", basis, np.sqrt(points.weight))
    ridge = 1e-10 * np.einsum("bii->b", gram)[:, None, None] * np.eye(3)
    solved = np.linalg.solve(gram + ridge, right[:, :, None])[:, :, 0]
    positive = np.log(np.maximum(solved, 1e-3 * np.exp(points.log_loss.min())))
    return np.stack(
        [
            positive[:, 0] + alpha * points.log_n.mean(),
            positive[:, 1] + beta * points.log_d.mean(),
            np.minimum(positive[:, 2], points.log_loss.min() - 1e-3),
            alpha,
            beta,
        ],
        axis=1,
    )
