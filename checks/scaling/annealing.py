"""The annealing law: L(s) = L0 + A S1^-alpha - C S2 (Tissue 2024, https://arxiv.org/abs/2408.11029).

S1 is the sum of the learning rates so far, S2 what annealing has bought: every drop of the rate counts from its own
step on, with a momentum that takes `tau` steps to unfold. L0, A and C are linear; S2 is one recursive filter, so a fit
over three curves takes about a tenth of a second.

Warm-up belongs to both sums: a fit without it moves the forecasts of other schedules by .1 (measured on
https://github.com/thu-yao-01-luo/MultiPowerLaw).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from checks.scaling._curve_law import CurveLaw, Floats, Shape, in_cells

SOURCE = "https://arxiv.org/abs/2408.11029"


def sums(rates: Floats, tau_steps: float) -> tuple[Floats, Floats]:
    """S1 and S2 at the end of every step.

    S1(s) = sum of rates; m_i = lambda m_(i-1) + (rate_(i-1) - rate_i) from a rate of 0 before the first step, S2 = sum
    of m, with lambda = exp(-1 / tau_steps). rates: [T] -> two arrays [T].
    """
    from scipy.signal import lfilter

    drops = -np.diff(rates, prepend=0.0)
    momentum = lfilter([1.0], [1.0, -np.exp(-1.0 / tau_steps)], drops)
    return np.cumsum(rates), np.cumsum(momentum)


def _columns(rates: Floats, steps: NDArray[np.int64], shape: tuple[float, ...]) -> Floats:
    alpha, tau = shape
    cells, size = in_cells(rates)
    s1, s2 = sums(cells, tau / size)
    ends = np.minimum(size * np.arange(1, len(cells) + 1), len(rates))
    at_s1, at_s2 = np.interp(steps, ends, s1) * size, np.interp(steps, ends, s2) * size
    # The offset that warm-up leaves in S2 for good, tau * peak, is a constant of all curves; L0 absorbs it.
    return np.stack([np.ones(len(steps)), at_s1**-alpha, -at_s2], axis=1)


ANNEALING = CurveLaw(
    name="annealing",
    source=SOURCE,
    shapes=(
        Shape("alpha", 0.5, 0.2, 0.05, 3.0),
        # Best fits on three model sizes: lambda .9981-.9983.
        Shape("tau_steps", 600.0, 1.0, 20.0, 8000.0, log=True),
    ),
    linear=("L0", "A", "C"),
    columns=_columns,
    starts=tuple((alpha, tau) for alpha in (0.35, 0.5, 0.7) for tau in (150.0, 400.0, 900.0, 2000.0)),
)
