"""How much a task's score wanders from checkpoint to checkpoint beside its course: one estimator for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from trainvitals.evals import Evals

MOST_CHECKPOINTS, LEAST_CHECKPOINTS = 10, 6
"""Checkpoints that noise is estimated from; convention."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Spread of a task's mean around its course; it holds what items add to each checkpoint, too."""

    sd: float
    df: float
    """Degrees of freedom of `sd`: with 7, its 95 % interval is .66 to 2.04 of it."""


NO_NOISE = Noise(0.0, 1.0)


def noise_between(evals: Evals, task: str, before: str, after: str) -> Noise | None:
    """Noise for a comparison: of the checkpoints up to the first one, since a fall behind it is no noise of theirs.

    Where those are too few, that of all up to the second, which a fall makes too large; None where they are, too.
    """
    return noise_of(evals, task, before) or noise_of(evals, task, after)


def noise_of(evals: Evals, task: str, upto: str) -> Noise | None:
    """Noise of the last checkpoints of a task up to one; None where fewer than six with a step are known."""
    here = evals.steps.get(upto)
    known = sorted((s.step, s.mean) for s in evals.of_task(task) if s.step is not None and isfinite(s.mean)
                   and (here is None or s.step <= here))  # fmt: skip
    steps, means = [step for step, _ in known], [mean for _, mean in known]
    return course_noise(steps[-MOST_CHECKPOINTS:], means[-MOST_CHECKPOINTS:])


def course_noise(steps: Sequence[float], means: Sequence[float]) -> Noise | None:
    """Residuals from a quadratic course in the steps, three degrees of freedom less.

    Neighbouring checkpoints wander by more than items explain (Madaan et al. 2024, arXiv 2406.10229).
    """
    if len(set(steps)) < LEAST_CHECKPOINTS:
        return None
    at, y = np.asarray(steps, float), np.asarray(means, float)
    x = (at - at.mean()) / max(float(np.ptp(at)), 1.0)
    residuals = y - np.polyval(np.polyfit(x, y, 2), x)
    return Noise(float(np.sqrt((residuals**2).sum() / (len(y) - 3))), len(y) - 3.0)
