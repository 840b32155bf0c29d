"""Power laws of one variable: L(N) = (N_c / N)^alpha_N, L(D) = (D_c / D)^alpha_D, L(C) = (C_c / C)^alpha_C.

Kaplan et al. 2020 (https://arxiv.org/abs/2001.08361). Of historical interest for planning: counted without embeddings,
with a long warm-up for small runs and one learning-rate schedule for all lengths, the runs gave N_opt ~ C^0.73; with
these three corrected the exponent is 0.50 (Porian et al. 2024, https://arxiv.org/abs/2406.19146). Without a floor E
such a law also promises too much far out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from checks.scaling.levenberg import Floats
from trainvitals.errors import UsageError


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = (scale / x)^exponent."""

    scale: float
    exponent: float
    interval: tuple[float, float] | None = None
    """95 % interval of the exponent, where it was fitted."""

    def __call__(self, x: ArrayLike) -> Floats:
        return np.asarray((self.scale / np.asarray(x, dtype=float)) ** self.exponent)


L_N = PowerLaw(8.8e13, 0.076)
"""Loss against non-embedding parameters, trained to convergence: equation 1.1. WebText2, 50,257 tokens."""
L_D = PowerLaw(5.4e13, 0.095)
"""Loss against tokens, stopped early: equation 1.2."""
L_C = PowerLaw(3.1e8, 0.050)
"""Loss against the least compute, in PF-days: equation 1.3."""
N_EXPONENT = 0.73
"""N_opt ~ C^0.73: section 6.1."""
VALID_N = (768.0, 1.5e9)
"""Non-embedding parameters of the runs behind these: section 2."""


def joint_loss(n: ArrayLike, d: ArrayLike) -> Floats:
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D: equation 1.5."""
    first = (L_N.scale / np.asarray(n, dtype=float)) ** (L_N.exponent / L_D.exponent)
    return np.asarray((first + L_D.scale / np.asarray(d, dtype=float)) ** L_D.exponent)


def fit_power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Least squares in logarithms, with Student's interval of the exponent.

    Raises:
        UsageError: fewer than three points, a value that is not positive, or all x alike.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(a) < 3 or not (np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)).all() or np.ptp(np.log(a)) == 0:
        raise UsageError("A power law needs three points or more, all above zero, at different values of x.")
    line = stats.linregress(np.log(a), np.log(b))
    half = stats.t.ppf(0.975, max(len(a) - 2, 1)) * line.stderr
    if line.slope == 0:
        raise UsageError("A power law needs values that change with x; these do not.")
    scale = float(np.exp(-line.intercept / line.slope))
    return PowerLaw(scale, float(-line.slope), (float(-line.slope - half), float(-line.slope + half)))
