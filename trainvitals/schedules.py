"""Learning-rate plans: what the rate should be at every step, so that what it was can be held against it.

    >>> plan = Plan(kind="cosine", peak=1e-3, final=1e-4, warmup_steps=100, total_steps=1000)
    >>> [round(float(rate), 6) for rate in plan.at([1, 100, 550, 1000])]
    [1e-05, 0.001, 0.00055, 0.0001]

Step n is the n-th optimizer step. Shapes follow transformers' `optimization.py`
(https://github.com/huggingface/transformers/blob/main/src/transformers/optimization.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainvitals.errors import UsageError

Kind = Literal["constant", "linear", "cosine", "wsd", "table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One parameter group's planned learning rate."""

    kind: Kind
    peak: float = 0.0
    final: float = 0.0
    """Rate at `total_steps` (linear, cosine, wsd)."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0 to `peak`."""
    total_steps: int = 0
    decay_steps: int = 0
    """Length of the last phase of a warm-up-stable-decay plan, linear from `peak` to `final`."""
    steps: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    """A sampled plan (kind "table"): the rates at `steps`, linear in between."""

    def __post_init__(self) -> None:
        numbers = (self.peak, self.final, self.warmup_steps, self.total_steps, self.decay_steps, *self.rates)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise UsageError("A plan's rates and steps must be finite, and zero or more.")
        if self.kind == "table":
            if not self.steps or len(self.steps) != len(self.rates) or list(self.steps) != sorted(set(self.steps)):
                raise UsageError("A table plan needs `steps` in rising order and as many `rates`.")
        elif self.kind not in ("constant", "linear", "cosine", "wsd"):
            raise UsageError(f"Unknown plan {self.kind!r}. Use constant, linear, cosine, wsd or table.")
        elif self.kind != "constant" and self.total_steps <= self.warmup_steps:
            raise UsageError(f"A {self.kind} plan needs total_steps ({self.total_steps}) beyond its "
                             f"warmup_steps ({self.warmup_steps}).")

    def at(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Planned rates at these steps, an array of the same shape."""
        step = np.asarray(steps, dtype=np.float64)
        if self.kind == "table":
            return np.interp(step, self.steps, self.rates)
        warm = self.peak * step / max(self.warmup_steps, 1)
        return np.where(step < self.warmup_steps, warm, self._after_warmup(step))

    def _after_warmup(self, step: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.kind == "constant":
            return np.full(step.shape, self.peak)
        length = self.decay_steps if self.kind == "wsd" else self.total_steps - self.warmup_steps
        progress = np.minimum(np.maximum(1 - (self.total_steps - step) / max(length, 1), 0.0), 1.0)
        falling = 0.5 * (1 + np.cos(np.pi * progress)) if self.kind == "cosine" else 1 - progress
        return self.final + (self.peak - self.final) * falling

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types."""
        return {key: value for key, value in asdict(self).items() if value not in (0, 0.0, ())}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            UsageError: not a plan.
        """
        try:
            return cls(**raw | {key: tuple(raw[key]) for key in ("steps", "rates") if key in raw})
        except (TypeError, OverflowError) as error:
            raise UsageError(f"Not a learning-rate plan: {error}.") from error

    @classmethod
    def sampled(cls, steps: Sequence[int], rates: Sequence[float]) -> Plan:
        """A plan known only by its values at some steps, such as a user's own function."""
        return cls(kind="table", steps=tuple(int(s) for s in steps), rates=tuple(float(r) for r in rates))
