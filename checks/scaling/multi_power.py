"""The multi-power law (Luo 2025, https://arxiv.org/abs/2503.12811).

L(s) = L0 + A S1^-alpha - B sum_k (rate_(k-1) - rate_k) (1 - (1 + C rate_k^-gamma S_k(s))^-beta), with S_k(s) the sum of
the rates of steps k to s. C, beta and gamma say how a drop of the rate unfolds. Three curves hardly determine them (a
free fit runs into degenerate betas), and the published values are nearly the same from 25M to 400M parameters, so they
are held at the mean of those; L0, A and B are linear and alpha is searched for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from checks.scaling._curve_law import CurveLaw, Floats, Shape

SOURCE = "https://github.com/thu-yao-01-luo/MultiPowerLaw"

PUBLISHED = {
    "25M": (3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257),
    "100M": (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644),
    "400M": (2.37474466, 0.65421216, 0.42878731, 523.42464371, 2.02462735, 0.59350493, 0.63472457),
}
"""L0, A, alpha, B, C, beta, gamma as published (`src/config.py` of the source), fitted on cosine_24000,
constant_24000 and wsdcon_9."""

C, BETA, GAMMA = (float(np.mean([row[i] for row in PUBLISHED.values()])) for i in (4, 5, 6))

MOST_DROPS = 300
"""Steps at which the rate falls are merged into at most so many."""


def reductions(
    rates: Floats, steps: NDArray[np.int64], c: float, beta: float, gamma: float
) -> tuple[Floats, Floats]:
    """S1 and the sum over drops at these steps. rates: [T], of steps 1 to T; steps: [n] -> two arrays [n]."""
    padded = np.concatenate([[0.0], rates])
    total = np.cumsum(padded)
    drop = padded[:-1] - padded[1:]
    at = np.flatnonzero(drop) + 1
    groups = np.array_split(at, min(len(at), MOST_DROPS)) if len(at) else []
    middle = np.array([g[len(g) // 2] for g in groups], np.int64)
    size = np.array([drop[g - 1].sum() for g in groups])
    since = total[steps][:, None] - total[np.maximum(middle - 1, 0)][None, :]
    unfolded = 1 - (1 + c * np.maximum(padded[middle], 1e-12) ** -gamma * np.maximum(since, 0.0)) ** -beta
    return total[steps], (np.where(middle[None, :] <= steps[:, None], unfolded, 0.0) * size).sum(axis=1)


def published_loss(size: str, rates: Floats, steps: NDArray[np.int64]) -> Floats:
    """The published law of a model size (a key of `PUBLISHED`) under a schedule. steps: [n] -> [n]."""
    level, a, alpha, b, c, beta, gamma = PUBLISHED[size]
    s1, reduced = reductions(rates, steps, c, beta, gamma)
    loss: Floats = level + a * s1**-alpha - b * reduced
    return loss


def _columns(rates: Floats, steps: NDArray[np.int64], shape: tuple[float, ...]) -> Floats:
    s1, reduced = reductions(rates, steps, C, BETA, GAMMA)
    return np.stack([np.ones(len(steps)), s1 ** -shape[0], -reduced], axis=1)


MULTI_POWER = CurveLaw(
    name="multi_power",
    source=SOURCE,
    shapes=(Shape("alpha", 0.5, 0.2, 0.05, 3.0),),
    linear=("L0", "A", "B"),
    columns=_columns,
    starts=((0.35,), (0.5,), (0.7,)),
)
