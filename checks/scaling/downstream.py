"""From size and tokens to the accuracy of a task in two steps: bits per byte of the right answer, then accuracy.

The model ladder of Bhagia et al. 2024 (https://arxiv.org/abs/2412.04403; allenai/OLMo-ladder
`src/scaling/fitting_functions.py`): step 1 is Chinchilla's law for the task's bits per byte, step 2 a sigmoid

    accuracy(x) = a / (1 + exp(-k (x - x0))) + b

with an ideal point (0 bits, accuracy 1) added. Some tasks cannot be predicted so (ARC-Challenge is off by 17 % in the
paper's own ladder), so a task is forecast only where the ladder predicts its own largest runs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeWarning, curve_fit

from checks.scaling.chinchilla import Law, fit_law
from checks.scaling.levenberg import Floats, Points
from trainvitals.errors import UsageError

GOOD_BACKTEST = 0.03
"""Mean relative error on the ladder's largest runs up to which a task is forecast (OLMo ladder: MMLU 0.7 %, PIQA 1.1 %,
HellaSwag 2.5 % on its targets; ARC-Challenge 17 %)."""
FEWEST_RUNS = 8
BEYOND = 2.0


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """Accuracy as a function of bits per byte."""

    a: float
    x0: float
    k: float
    b: float

    def __call__(self, bits: ArrayLike) -> Floats:
        return _sigmoid(np.asarray(bits, dtype=float), self.a, self.x0, self.k, self.b)


@dataclass(frozen=True, slots=True)
class TaskLadder:
    """Both steps and how well they predicted the largest runs from the smaller ones."""

    bits: Law
    accuracy: Sigmoid
    backtest: float | None
    """Mean relative error of accuracy; None where no run could be held out."""
    held_out: int

    @property
    def usable(self) -> bool:
        return self.backtest is not None and self.backtest <= GOOD_BACKTEST

    def predict(self, n: ArrayLike, d: ArrayLike) -> Floats:
        """Accuracy of `n` parameters on `d` tokens.

        Raises:
            UsageError: the ladder did not predict its own largest runs.
        """
        if not self.usable:
            error = "could not be tested" if self.backtest is None else f"was off by {100 * self.backtest:.1f} %"
            raise UsageError(
                f"This task is not forecast: on its own largest runs the ladder {error}, and {100 * GOOD_BACKTEST:g} % "
                "is the limit. Use a task with less noise, or more and larger runs."
            )
        return self.accuracy(self.bits.loss(n, d))


def fit_task(n: Floats, d: Floats, bits: Floats, accuracy: Floats) -> TaskLadder:
    """Fit both steps to a ladder and backtest them on its largest size.

    Raises:
        UsageError: too few runs, values out of range, or no sigmoid fits.
    """
    if len(n) < FEWEST_RUNS:
        raise UsageError(f"{len(n)} runs are too few for a task ladder. Give at least {FEWEST_RUNS}.")
    if not ((bits > 0) & np.isfinite(bits)).all() or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise UsageError("Bits per byte must be above zero and accuracies between 0 and 1; give shares, not percent.")
    law, curve = _both(n, d, bits, accuracy)
    below = n < n.max() / 1.01
    ahead = ~below & (n * d > BEYOND * (n * d)[below].max()) if below.sum() >= FEWEST_RUNS else np.zeros_like(below)
    if not ahead.any():
        return TaskLadder(law, curve, None, 0)
    past, past_curve = _both(n[below], d[below], bits[below], accuracy[below])
    forecast = past_curve(past.loss(n[ahead], d[ahead]))
    error = float(np.abs(forecast / np.maximum(accuracy[ahead], 1e-9) - 1).mean())
    return TaskLadder(law, curve, error, int(ahead.sum()))


def _both(n: Floats, d: Floats, bits: Floats, accuracy: Floats) -> tuple[Law, Sigmoid]:
    return fit_law(Points.of(n, d, bits)).law, _fit_sigmoid(bits, accuracy)


def _fit_sigmoid(bits: Floats, accuracy: Floats) -> Sigmoid:
    x, y = np.append(bits, 0.0), np.append(accuracy, 1.0)
    low, high = float(accuracy.min()), float(x.max())
    bounds = ([-0.999, 0.0, 0.0, 0.0], [0.0, high, 50.0, 1.0])
    begin = [-max(1 - low, 0.05), float(np.median(bits)), 3.0, 1.0]
    bounds[1][3] = 1.0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # only the values are used, not their covariance
            found, _ = curve_fit(_sigmoid, x, y, p0=np.clip(begin, *bounds), bounds=bounds, maxfev=20_000)
    except RuntimeError as error:
        raise UsageError("No sigmoid of bits fits these accuracies. Check that both are of one task.") from error
    return Sigmoid(*(float(v) for v in found))


def _sigmoid(x: Floats, a: float, x0: float, k: float, b: float) -> Floats:
    return np.asarray(a / (1 + np.exp(np.clip(-k * (x - x0), -60, 60))) + b)
