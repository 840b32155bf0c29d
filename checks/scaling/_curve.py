"""Loss curves with the learning rate of every step.

    curve = read_curve("cosine.csv")                      # columns step, loss and, where known, lr and tokens

Step n is the n-th optimizer step. Legend: n logged rows, T steps of a schedule.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_STEPS = 100_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A logged loss and the rate of every step up to its last row."""

    name: str
    steps: Ints
    """[n], rising"""
    losses: Floats
    """[n]; NaN and infinities as logged"""
    rates: Floats
    """[T] of steps 1 to T, T >= the last step; empty where no rate is known yet"""
    tokens: Floats | None = None
    """[n] tokens seen"""
    future: Floats = field(default_factory=lambda: np.zeros(0))
    """Rates of the whole run where the file goes on past its last loss: [T]"""
    assumed: tuple[str, ...] = ()
    """What was filled in, one sentence each."""
    params: float | None = None
    """Parameters of the model, where somebody says."""
    unit: str = ""
    """Of the losses, where somebody says: nats/token, bits/token or bits/byte."""

    @property
    def last_step(self) -> int:
        """Step of the last row; 0 without rows."""
        return int(self.steps[-1]) if len(self.steps) else 0

    def until(self, step: int) -> Curve:
        """The curve as it was at `step`."""
        n = int(np.searchsorted(self.steps, step, side="right"))
        tokens = None if self.tokens is None else self.tokens[:n]
        return replace(self, steps=self.steps[:n], losses=self.losses[:n], tokens=tokens)

    def after(self, step: int) -> Curve:
        """The rows after `step`; the rates stay."""
        n = int(np.searchsorted(self.steps, step, side="right"))
        tokens = None if self.tokens is None else self.tokens[n:]
        return replace(self, steps=self.steps[n:], losses=self.losses[n:], tokens=tokens)

    def thinned(self, most_rows: int) -> Curve:
        """At most so many rows, medians of blocks of neighbouring rows: noise falls, and a lone spike has no say."""
        size = -(-len(self.steps) // most_rows)
        if size <= 1:
            return self
        edges = np.arange(len(self.steps) % size, len(self.steps) + 1, size)
        blocks = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        steps = np.array([int(round(float(np.mean(self.steps[b])))) for b in blocks])
        return replace(self, steps=steps, losses=np.array([np.median(self.losses[b]) for b in blocks]), tokens=None)


def with_schedule(curve: Curve, rates: Floats) -> Curve:
    """The curve with its rates taken from a schedule, for logs that hold none. rates: [T]."""
    return replace(curve, rates=rates[: curve.last_step])


def dense(steps: Ints, rates: Floats) -> tuple[Floats, tuple[str, ...]]:
    """Rates of steps 1 to the last known one, linear between rows; [0] where none is known."""
    known = np.isfinite(rates)
    if not known.any() or steps[known][-1] < 1:
        return np.zeros(0), ()
    at, rate = steps[known], np.maximum(rates[known], 0.0)
    every = np.interp(np.arange(1, int(at[-1]) + 1), at, rate)
    first = int(at[0])
    if first <= 1:
        return every, ()
    # A log that begins late still had a warm-up; leaving it out shifts forecasts of other schedules by .1.
    every[:first] = rate[0] * np.arange(1, first + 1) / first
    return every, (f"The rate of steps 1 to {first - 1:,} is not in the file: a linear warm-up from 0 is assumed.",)
