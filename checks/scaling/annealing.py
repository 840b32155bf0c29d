"""The annealing law: L(s) = L0 + A P^-alpha - C S2, after Tissue 2024 (https://arxiv.org/abs/2408.11029).

P is the progress so far, the sum of the learning rates to the power .6, and S2 what annealing has bought: every drop
of the rate counts from its own step on, with a momentum that takes `tau` steps to unfold. L0, A and C are linear; S2 is
one recursive filter, so a fit over three curves takes about a tenth of a second.

Tissue's law has the plain sum of the rates for P. Steps at a low rate then count for too little, the anneal of a cosine
has to make up for them, and what it seems to buy is promised to warm-up-stable-decay runs: fitted on a cosine and a
constant rate, it says .006 to .032 too little for their ends, and .001 to .016 with the power.

Warm-up belongs to both sums: a fit without it moves the forecasts of other schedules by .1 (measured on
https://github.com/thu-yao-01-luo/MultiPowerLaw).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from checks.scaling._curve_law import CurveLaw, Floats, Shape, in_cells

SOURCE = "https://arxiv.org/abs/2408.11029"

PROGRESS_POWER = 0.6
"""Of the learning rate in P. Over the nine curves of a size of MultiPowerLaw the objective is least at .7 (25M), .6
(100M) and .6 (400M), of steps of .1; any two sizes choose .6 or .7."""
BUYS = (0.04, 0.03)
"""What a fall of the rate from its peak to nothing buys, as a share of the loss: centre and spread of the prior. Fits
to all schedules of a model say .026, .036, .047 (25M to 400M), and to llm.c's 124M .042."""


def sums(rates: Floats, tau_steps: float, power: float = PROGRESS_POWER) -> tuple[Floats, Floats]:
    """P and S2 at the end of every step.

    P(s) = sum of rates^power; m_i = lambda m_(i-1) + (rate_(i-1) - rate_i) from a rate of 0 before the first step,
    S2 = sum of m, with lambda = exp(-1 / tau_steps). rates: [T] -> two arrays [T].
    """
    from scipy.signal import lfilter

    drops = -np.diff(rates, prepend=0.0)
    momentum = lfilter([1.0], [1.0, -np.exp(-1.0 / tau_steps)], drops)
    return np.cumsum(rates**power), np.cumsum(momentum)


def _columns(rates: Floats, steps: NDArray[np.int64], shape: tuple[float, ...]) -> Floats:
    alpha, tau = shape
    cells, size = in_cells(rates)
    progress, s2 = sums(cells, tau / size)
    ends = np.minimum(size * np.arange(1, len(cells) + 1), len(rates))
    at_progress, at_s2 = np.interp(steps, ends, progress) * size, np.interp(steps, ends, s2) * size
    # The offset that warm-up leaves in S2 for good, tau * peak, is a constant of all curves; L0 absorbs it.
    return np.stack([np.ones(len(steps)), at_progress**-alpha, -at_s2], axis=1)


def _bought(peak: float, shape: tuple[float, ...]) -> Floats:
    """What a settled fall from the peak to nothing has bought: C tau peak."""
    return np.array([0.0, 0.0, shape[1] * peak])


ANNEALING = CurveLaw(
    name="annealing",
    source=SOURCE,
    shapes=(
        Shape("alpha", 0.5, 0.2, 0.05, 3.0),
        # Best fits to all schedules of three model sizes: 172, 210 and 336 steps.
        Shape("tau_steps", 250.0, 0.5, 20.0, 8000.0, log=True),
    ),
    linear=("L0", "A", "C"),
    columns=_columns,
    starts=tuple((alpha, tau) for alpha in (0.35, 0.5, 0.7) for tau in (100.0, 250.0, 600.0, 1500.0)),
    bought=_bought,
    buys=BUYS,
)
