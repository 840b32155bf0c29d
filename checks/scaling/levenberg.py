"""Batched minimiser of the Chinchilla objective: Newton steps with exact curvature under Levenberg-Marquardt damping.

The law's logarithm is log-sum-exp of three terms that are linear in theta = (log A, log B, log E, alpha, beta):

    log L = LSE(log A - alpha log N, log B - beta log D, log E)

so gradient and Hessian are sums over the runs of products of the three softmax shares, and the features 1, log N and
log D do not depend on the batch: one matrix product gives the Hessians of all starts or resamples at once.

Legend: B batch (starts, or resamples), n runs, P = 5 parameters, F free directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Loss = Literal["huber", "l1", "gaussian"]
LOSSES: tuple[str, ...] = get_args(Loss)
HUBER_DELTA = 1e-3
"""Hoffmann et al. 2022, section 3.3 and appendix D.3, https://arxiv.org/abs/2203.15556."""
L1_DELTAS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""A kink has no curvature: it is rounded over ever shorter distances, the last far below any loss's precision."""
PARAMETERS = ("A", "B", "E", "alpha", "beta")
FREE = np.eye(5)
TIED = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]], dtype=float)
"""Directions that keep alpha and beta equal."""
LOG_FLOOR = -9.0
"""A term this far below the lowest log loss counts as zero: nothing in the data tells it from there on."""
EXPONENTS = (1e-3, 4.0)
"""Bounds of alpha and beta; a law of loss falls with N and D."""
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Points:
    """Logarithms of the runs to fit, each of shape (n,)."""

    log_n: Floats
    log_d: Floats
    log_loss: Floats
    weight: Floats

    @classmethod
    def of(cls, n: Floats, d: Floats, loss: Floats, weight: Floats | None = None) -> Points:
        """Points from parameters, tokens and losses."""
        return cls(np.log(n), np.log(d), np.log(loss), np.ones(len(loss)) if weight is None else weight)


def rho(residual: Floats, delta: float) -> Floats:
    """Huber's loss with threshold `delta`; half the square where `delta` is infinite."""
    size = np.abs(residual)
    if np.isinf(delta):
        return 0.5 * size * size
    return np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta))


def objective(residual: Floats, weight: Floats, loss: Loss) -> Floats:
    """Weighted sum over the last axis: Huber with threshold 1e-3, absolute values, or half the squares."""
    if loss == "l1":
        return np.asarray((weight * np.abs(residual)).sum(-1))
    return np.asarray((weight * rho(residual, HUBER_DELTA if loss == "huber" else np.inf)).sum(-1))


def predict_log(theta: Floats, log_n: Floats, log_d: Floats) -> Floats:
    """Log loss for theta (..., 5) at points (n,): shape (..., n)."""
    value, _ = _shares(np.atleast_2d(theta), log_n, log_d)
    return value.reshape(*np.shape(theta)[:-1], len(log_n))


def minimise(
    points: Points,
    start: Floats,
    *,
    weight: Floats | None = None,
    loss: Loss = "huber",
    free: Floats = FREE,
    iterations: int = 200,
) -> tuple[Floats, Floats]:
    """Minimise from every row of `start` (B, 5); `weight` (B, n) replaces the points' own, as a bootstrap does.

    `free` (5, F) holds the directions that may move: `FREE`, `TIED`, or columns of `FREE` to hold parameters fixed.

    Returns:
        theta (B, 5) and the objective (B,) there.
    """
    shift_n, shift_d = points.log_n.mean(), points.log_d.mean()
    x, y = points.log_n - shift_n, points.log_d - shift_d
    theta = np.array(start, dtype=float)
    theta[:, 0] -= theta[:, 3] * shift_n
    theta[:, 1] -= theta[:, 4] * shift_d
    weights = np.broadcast_to(points.weight if weight is None else weight, (len(theta), len(x)))
    deltas = {"huber": (HUBER_DELTA,), "l1": L1_DELTAS, "gaussian": (np.inf,)}[loss]
    rows = max(1, _BLOCK // len(x))
    for first in range(0, len(theta), rows):
        part = slice(first, first + rows)
        for delta in deltas:
            theta[part] = _newton(theta[part], x, y, points.log_loss, weights[part], delta, free, iterations)
    value = objective(predict_log(theta, x, y) - points.log_loss, weights, loss)
    theta[:, 0] += theta[:, 3] * shift_n
    theta[:, 1] += theta[:, 4] * shift_d
    return theta, value


def _shares(theta: Floats, x: Floats, y: Floats) -> tuple[Floats, list[Floats]]:
    a, b, e, alpha, beta = (theta[:, i, None] for i in range(5))
    first, second = a - alpha * x, b - beta * y
    top = np.maximum(np.maximum(first, second), e)
    parts = [np.exp(first - top), np.exp(second - top), np.exp(e - top)]
    total = parts[0] + parts[1] + parts[2]
    return top + np.log(total), [part / total for part in parts]


def _newton(
    theta: Floats, x: Floats, y: Floats, z: Floats, weight: Floats, delta: float, free: Floats, iterations: int
) -> Floats:
    """Damped Newton; rows leave the batch as they converge."""
    theta = theta.copy()
    live = np.arange(len(theta))
    low = np.array([z.min() + LOG_FLOOR] * 3 + [EXPONENTS[0]] * 2)
    high = np.array([np.inf] * 3 + [EXPONENTS[1]] * 2)
    current, shares = _shares(theta, x, y)
    residual = current - z
    value = (weight * rho(residual, delta)).sum(1)
    calm = np.zeros(len(theta), dtype=int)
    t, w, m = theta, weight, np.full(len(theta), 1e-2)
    s = np.ones(len(theta))  # 1: curvature of reweighted least squares, safe afar; 0: exact
    for _ in range(iterations):
        gradient, hessian = _derivatives(residual, shares, x, y, w, delta, s)
        g = gradient @ free
        h = free.T @ hessian @ free
        diagonal = np.abs(np.einsum("bii->bi", h)) + 1e-300
        lhs = h + (m[:, None] * diagonal)[:, :, None] * np.eye(free.shape[1])
        step = -_solve(lhs, g) @ free.T
        step *= np.minimum(1, 3 / (np.abs(step).max(1, keepdims=True) + 1e-300))
        trial = np.clip(t + step, low, high)
        current, trial_shares = _shares(trial, x, y)
        trial_residual = current - z
        trial_value = (w * rho(trial_residual, delta)).sum(1)
        better = trial_value < value
        gain = np.where(better, value - trial_value, 0)
        calm = np.where(gain > 1e-12 * value, 0, calm + 1)
        pick = better[:, None]
        t, residual = np.where(pick, trial, t), np.where(pick, trial_residual, residual)
        shares = [np.where(pick, new, old) for new, old in zip(trial_shares, shares, strict=True)]
        value = np.where(better, trial_value, value)
        m = np.where(better, np.maximum(m * 0.2, 1e-12), m * 5)
        s = np.where(better, s * 0.4, np.minimum(1, s * 4 + 1e-3))
        stay = (calm < 6) & (m < 1e8)
        if not stay.all():
            theta[live[~stay]] = t[~stay]
            live, calm, t, w = live[stay], calm[stay], t[stay], w[stay]
            m, s, value = m[stay], s[stay], value[stay]
            residual, shares = residual[stay], [part[stay] for part in shares]
            if not len(live):
                break
    theta[live] = t
    return theta


def _solve(lhs: Floats, rhs: Floats) -> Floats:
    scale = 1 / np.sqrt(np.abs(np.einsum("bii->bi", lhs)) + 1e-300)
    scaled = lhs * scale[:, :, None] * scale[:, None, :]
    try:
        solved = np.linalg.solve(scaled, (rhs * scale)[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        solved = np.einsum("bij,bj->bi", np.linalg.pinv(scaled), rhs * scale)
    return np.asarray(solved * scale)


def _derivatives(
    residual: Floats, shares: list[Floats], x: Floats, y: Floats, weight: Floats, delta: float, softness: Floats
) -> tuple[Floats, Floats]:
    """Gradient (B, 5) and Hessian (B, 5, 5) of the weighted sum of `rho`."""
    size = np.abs(residual)
    inside = size <= delta
    psi = weight * np.clip(residual, -delta, delta)
    soft = softness[:, None]
    curve = weight * np.where(inside, 1.0, soft * delta / np.maximum(size, 1e-300)) if np.isfinite(delta) else weight
    second = (1 - soft) * psi
    p, q, r = shares
    gp, gq, gr = psi * p, psi * q, psi * r
    gradient = np.stack([gp.sum(1), gq.sum(1), gr.sum(1), -(gp @ x), -(gq @ y)], axis=1)
    both = curve - second
    ones = np.ones_like(x)
    pp, qq, rr = (both * p + second) * p, (both * q + second) * q, (both * r + second) * r
    pq, pr, qr = both * p * q, both * p * r, both * q * r
    h = np.empty((len(residual), 5, 5))
    h[:, 0, 0], h[:, 0, 3], h[:, 3, 3] = (pp @ np.stack([ones, -x, x * x], 1)).T
    h[:, 1, 1], h[:, 1, 4], h[:, 4, 4] = (qq @ np.stack([ones, -y, y * y], 1)).T
    h[:, 0, 1], h[:, 1, 3], h[:, 0, 4], h[:, 3, 4] = (pq @ np.stack([ones, -x, -y, x * y], 1)).T
    h[:, 0, 2], h[:, 2, 3] = (pr @ np.stack([ones, -x], 1)).T
    h[:, 1, 2], h[:, 2, 4] = (qr @ np.stack([ones, -y], 1)).T
    h[:, 2, 2] = rr.sum(1)
    for i, j in ((0, 3), (1, 4), (0, 1), (1, 3), (0, 4), (3, 4), (0, 2), (2, 3), (1, 2), (2, 4)):
        h[:, j, i] = h[:, i, j]
    return gradient, h
