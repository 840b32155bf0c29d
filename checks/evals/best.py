"""Which checkpoint is best, and which are not worse: the best score of many is in part luck.

What the best may be expected to score again is its score less the luck of the highest of so many noisy ones, which is
simulated around the smoothed course. The others that may be the best are those whose paired difference from it is no
loss at 5 % over all of them (multiple comparisons with the best, Hsu 1984, with Bonferroni's bound).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from checks.evals.course import Course
from checks.evals.noise import Noise
from checks.evals.paired import ALPHA, paired_difference

SMOOTH, DRAWS = 5, 2_000


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint with the best score of a task."""

    checkpoint: str
    step: int
    score: float
    again: float | None
    """Expected of another measurement like it; None where the noise of checkpoints is not known."""
    as_good: tuple[str, ...]
    """Checkpoints that may be the best as well, 95 %; itself among them. All where noise is not known."""


def best_of(course: Course, sd: float | None) -> Best | None:
    """The best checkpoint of a course; None where it has none.

    Args:
        course: of a task.
        sd: standard deviation of one checkpoint's score; None where it is not known.
    """
    count = len(course.steps)
    if not count:
        return None
    at = int(np.argmax(course.means_C))
    where = course.checkpoints[at], course.steps[at], float(course.raw_C[at])
    if sd is None:
        return Best(*where, None, course.checkpoints)
    sign = 1.0 if course.raw_C[at] == course.means_C[at] else -1.0
    return Best(*where, where[2] - sign * luck(course.means_C, sd), tuple(_as_good(course, at, sd)))


def luck(means_C: NDArray[np.float64], sd: float) -> float:
    """By how much the best of these is expected to be better than itself, in the unit of the scores."""
    half = min(SMOOTH, len(means_C)) // 2
    smooth = np.array([means_C[max(0, i - half) : i + half + 1].mean() for i in range(len(means_C))])
    drawn = smooth + sd * np.random.default_rng(0).standard_normal((DRAWS, len(smooth)))
    best = drawn.argmax(axis=1)
    return float((drawn[np.arange(DRAWS), best] - smooth[best]).mean())


def _as_good(course: Course, at: int, sd: float) -> list[str]:
    level = ALPHA / max(len(course.steps) - 1, 1)
    found = []
    for other, name in enumerate(course.checkpoints):
        if other == at:
            found.append(name)
            continue
        if course.scores_CI is None:
            p = float(stats.norm.cdf((course.means_C[other] - course.means_C[at]) / (sd * np.sqrt(2))))
        else:
            best, this = course.scores_CI[at].astype(float), course.scores_CI[other].astype(float)
            p = paired_difference(best, this, course.clusters_I, Noise(sd, max(len(course.steps) - 3.0, 1.0))).p_worse
        if p > level:
            found.append(name)
    return found
