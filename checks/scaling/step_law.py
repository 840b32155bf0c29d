"""The step power law: L(s) = L0 + A s^-alpha. It knows no learning rate; it is here to be compared with.

The single-variable form of Kaplan 2020 (https://arxiv.org/abs/2001.08361). Predicting other schedules with it is off by
.028 to .031 where the annealing law is off by .007 to .009.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from checks.scaling._curve_law import CurveLaw, Floats, Shape


def _columns(rates: Floats, steps: NDArray[np.int64], shape: tuple[float, ...]) -> Floats:
    return np.stack([np.ones(len(steps)), steps.astype(float) ** -shape[0]], axis=1)


STEP_POWER = CurveLaw(
    name="step_power",
    source="https://arxiv.org/abs/2001.08361",
    shapes=(Shape("alpha", 0.5, 0.2, 0.05, 3.0),),
    linear=("L0", "A"),
    columns=_columns,
    starts=((0.3,), (0.5,), (0.8,)),
)
