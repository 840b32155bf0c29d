"""A run that is written in simulated time: rows carry the times they would have had."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from trainvitals.store import RunWriter


class Simulated:
    """Writes loss, gradient norm and step time; the clock `now` moves with the steps, from the real time on."""

    def __init__(self, path: Path, seed: int = 0, step_seconds: float = 5.0, start_step: int = 0,
                 now: float | None = None) -> None:
        self.path, self.step_seconds, self.step = path, step_seconds, start_step
        self.now = time.time() if now is None else now
        self.factor = 1.0
        """Of the loss; a fault raises it."""
        self.gradient = 1.0
        """Factor of the gradient norm."""
        self._random = np.random.default_rng(seed)
        self.writer = RunWriter(path, when_full="wait", flush_seconds=1000, start_step=start_step)
        self._loss = self.writer.frame("loss", ["loss/sum", "loss/tokens"])
        self._grad = self.writer.frame("grad", ["grad/sumsq"])
        self._rate = self.writer.frame("throughput", ["throughput/step_time", "throughput/tokens"])

    def run(self, steps: int, pause: float = 0.0, every: int = 0) -> None:
        """Make steps; every so-many-th is followed by a pause in seconds, as of a checkpoint."""
        for _ in range(steps):
            self.step += 1
            took = self.step_seconds * float(np.exp(self._random.normal(0, 0.03)))
            self.now += took
            usual = (1.8 + 6 * (self.step + 20) ** -0.4) * np.exp(self._random.normal(0, 0.01))
            self._loss.append(self.step, {"loss/sum": self.factor * usual * 1000, "loss/tokens": 1000}, self.now)
            squares = self.gradient**2 * float(np.exp(self._random.normal(0, 0.1)))
            self._grad.append(self.step, {"grad/sumsq": squares}, self.now)
            self._rate.append(self.step, {"throughput/step_time": took, "throughput/tokens": 1000}, self.now)
            if every and self.step % every == 0:
                self.now += pause
        self.writer.flush()

    def idle(self, seconds: float, reports: bool = False) -> None:
        """Let time pass without a step; the process may still report."""
        until = self.now + seconds
        while reports and self.now + 10 <= until:
            self.now += 10
            self.writer.past_event("note", self.step, "the process is there", self.now, {})
        self.now = until
        self.writer.flush()
