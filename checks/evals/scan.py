"""Where did a course fall? A scan over all places and scales, held against what noise alone does to the same scan.

    found = scan(means)                    # the largest fall, in its own noise
    p = null_p(found.size, len(means))     # how often a course that never falls shows as much

At each place the mean of the w checkpoints before is held against that of the w after it, for w = 1, 2, 4, ... The
null is a course that stays or rises, and of those a flat one shows the largest falls, so it is the one that is
simulated. The noise comes from the differences of neighbours and of next neighbours, those of a step trimmed off, so
that a fall does not hide itself; where next neighbours, or means of several, differ more, checkpoints wander together,
and their means are worth less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEAST = 6
"""Checkpoints below which their noise is not known; convention."""
TRIMMED = 0.2
MOST_TOGETHER = 0.6
"""Correlation of neighbours beyond which a course is a walk, not noise; convention."""
ALONE = 12
"""Windows that a course must hold for the noise of their means to be read off them: a step then lies in a sixth."""
DRAWS, CHUNK = 20_000, 1_000
LIKELY = 7.35
"""Twice the log-likelihood that the best place may be better by, for 95 %: -2 log(1 - sqrt(.95)), the limit of Yao
(1987) for small steps, which is wider than larger ones need."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scan:
    """The largest fall of a course. A place k lies between checkpoints k - 1 and k."""

    size: float
    """In standard deviations of what it would be by noise; 0 where nothing falls."""
    place: int
    first: int
    last: int
    """Places that are as likely, 95 %."""
    reach: int
    """Checkpoints on either side that show it best."""
    sd: float
    """Noise of one checkpoint, for means of several."""


def scan(means: Floats, least_sd: float = 0.0) -> Scan:
    """The largest fall.

    Args:
        means: score of each checkpoint, oldest first, more is better (C,), C >= `LEAST`.
        least_sd: noise that one checkpoint has at least, from its items.
    """
    size, place, reach, sd = 0.0, 0, 0, 0.0
    at_best: Floats = np.empty(0)
    for w, falls, noises in _by_scale(means[None]):
        one = max(float(noises[0]), least_sd)
        at = int(falls[0].argmax())
        sd = sd or one
        if one > 0 and falls[0, at] > size * one:
            size, place, reach, sd, at_best = float(falls[0, at]) / one, at + 1, w, one, falls[0]
    if not place:
        return Scan(0.0, 0, 0, 0, 0, sd)
    half = max(2 * reach, 3)
    low, high = max(0, place - half), min(len(means), place + half)
    inside = means[low:high]
    cost = np.array([_cost(inside[:k]) + _cost(inside[k:]) for k in range(1, len(inside))])
    falling = at_best[low : high - 1] > 0
    cost[~falling] = np.inf
    likely = np.flatnonzero(cost <= cost.min() + LIKELY * sd**2) + 1 + low
    return Scan(size, int(cost.argmin()) + 1 + low, int(likely.min()), int(likely.max()), reach, sd)


def scales(checkpoints: int) -> list[int]:
    """Numbers of checkpoints that are taken together."""
    return [2**i for i in range(checkpoints.bit_length()) if 2 ** (i + 1) <= checkpoints]


def _by_scale(means: Floats) -> Iterator[tuple[int, Floats, Floats]]:
    """Scale, falls (N, C - 1) and the noise of one checkpoint for means of so many (N,)."""
    sd = noise(means)
    for w in scales(means.shape[1]):
        falls = _falls(means, w)
        if ALONE * w <= means.shape[1]:
            sd = np.maximum(sd, np.sqrt(_trimmed(falls)))
        yield w, falls, sd


def noise(means: Floats) -> Floats:
    """Standard deviation of one checkpoint in each course (N, C), corrected for neighbours that wander together."""
    near, next_ = (_trimmed(means[:, h:] - means[:, :-h]) for h in (1, 2))
    together = np.clip(next_ / np.maximum(near, 1e-300) - 1, 0, MOST_TOGETHER)
    return np.asarray(np.sqrt(near / 2 * (1 + together)) / (1 - together))


def _trimmed(differences: Floats) -> Floats:
    squares = np.sort((differences - np.median(differences, axis=1, keepdims=True)) ** 2, axis=1)
    return np.asarray(squares[:, : squares.shape[1] - max(2, round(TRIMMED * squares.shape[1]))].mean(axis=1))


def _falls(means: Floats, w: int) -> Floats:
    """Mean of up to w before each place less that after it, over the root of 1/before + 1/after (N, C - 1)."""
    count = means.shape[1]
    total = np.concatenate([np.zeros((len(means), 1)), means.cumsum(axis=1)], axis=1)
    at = np.arange(1, count)
    low, high = np.maximum(at - w, 0), np.minimum(at + w, count)
    before = (total[:, at] - total[:, low]) / (at - low)
    after = (total[:, high] - total[:, at]) / (high - at)
    return np.asarray((before - after) / np.sqrt(1 / (at - low) + 1 / (high - at)))


def _cost(part: Floats) -> float:
    return float(((part - part.mean()) ** 2).sum())


@lru_cache(maxsize=64)
def null(checkpoints: int, draws: int = DRAWS) -> Floats:
    """Largest falls of flat courses, sorted."""
    rng = np.random.default_rng(checkpoints)
    found = []
    for _ in range(0, draws, CHUNK):
        means = rng.standard_normal((CHUNK, checkpoints))
        found.append(np.max([falls.max(axis=1) / sd for _, falls, sd in _by_scale(means)], axis=0))
    return np.sort(np.concatenate(found))


def null_p(size: float, checkpoints: int, draws: int = DRAWS) -> float:
    """Chance of so large a fall in a course that never falls."""
    if size <= 0:
        return 1.0
    drawn = null(checkpoints, draws)
    return float((len(drawn) - np.searchsorted(drawn, size) + 1) / (len(drawn) + 1))


def threshold(p: float, checkpoints: int, draws: int = DRAWS) -> float:
    """The size whose chance is `p`."""
    drawn = null(checkpoints, draws)
    return float(drawn[min(int(np.ceil((1 - p) * len(drawn))), len(drawn) - 1)])
