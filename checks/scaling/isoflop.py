"""IsoFLOP profiles (approach 2): per compute budget a parabola of loss in log N, its minimum, and a power law of them.

Hoffmann et al. 2022, section 3.2 (https://arxiv.org/abs/2203.15556). A second opinion beside the law of all runs: it
assumes no form of the law, but the law's valley is no parabola in log N, so the minimum is biased even without noise
where the two sides fall differently or the sizes lie off centre (https://arxiv.org/abs/2603.22339). `bias` says by how
much, for these sizes and a given law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from checks.scaling.chinchilla import FLOPS_PER_PARAMETER_TOKEN, Law
from checks.scaling.kaplan import PowerLaw, fit_power_law
from checks.scaling.levenberg import Floats
from checks.scaling.table import Ladder
from trainvitals.errors import UsageError

SAME_BUDGET = 1.15
"""Runs within this factor of compute belong to one budget: Figure 4 of Hoffmann et al. scatters by about 10 %."""
FEWEST_RUNS = 4
FEWEST_SIZES = 3


@dataclass(frozen=True, slots=True)
class Valley:
    """One budget."""

    flops: float
    """Geometric mean of its runs."""
    n: float
    """Parameters at the parabola's minimum."""
    loss: float
    runs: int
    coefficients: tuple[float, float, float]
    """Loss = c0 + c1 log N + c2 (log N)^2."""
    inside: bool
    """The minimum lies between the smallest and the largest size. A budget where it does not tells nothing."""

    @property
    def d(self) -> float:
        return self.flops / (FLOPS_PER_PARAMETER_TOKEN * self.n)


@dataclass(frozen=True, slots=True)
class IsoFlop:
    """All budgets and the power law N* ~ C^a through those with a minimum inside."""

    valleys: tuple[Valley, ...]
    n_exponent: float | None
    """None with fewer than three minima."""
    interval: tuple[float, float] | None
    bias: tuple[float, ...]
    """Per valley, N at the minimum over the true N* if the law held exactly; 1.2 means 20 % too large."""
    exponent_bias: float | None
    """What the parabolas alone would add to the exponent."""
    power: PowerLaw | None = None
    """N* of the compute."""

    def to_json(self, flops: float) -> dict[str, Any]:
        """Strict JSON types, N* and D* at a budget among them."""
        n = None if self.power is None else float(self.power(flops))
        return {
            "n_exponent": self.n_exponent,
            "d_exponent": None if self.n_exponent is None else 1 - self.n_exponent,
            "interval": None if self.interval is None else [x if np.isfinite(x) else None for x in self.interval],
            "exponent_bias": self.exponent_bias,
            "budgets": len(self.valleys),
            "minima_inside": sum(v.inside for v in self.valleys),
            "N": n,
            "D": None if n is None else flops / (FLOPS_PER_PARAMETER_TOKEN * n),
        }


def isoflop(ladder: Ladder, law: Law) -> IsoFlop:
    """Valleys of a ladder, and the bias of their minima under `law` (the ladder's own parametric fit).

    Raises:
        UsageError: no budget has enough runs and sizes.
    """
    groups = budgets(ladder)
    if not groups:
        raise UsageError(
            f"No compute budget has {FEWEST_RUNS} runs of {FEWEST_SIZES} sizes within a factor of {SAME_BUDGET}. Train "
            "several sizes at the same 6 N D."
        )
    valleys = [_valley(ladder.n[g], ladder.flops[g], ladder.loss[g]) for g in groups]
    exact = [_valley(ladder.n[g], ladder.flops[g], law.loss(ladder.n[g], ladder.d[g])) for g in groups]
    bias = tuple(float(v.n / law.optimum(v.flops).n) for v in exact)
    power = _power(valleys)
    if power is None:
        return IsoFlop(tuple(valleys), None, None, bias, None)
    clean = _power([e for e, v in zip(exact, valleys, strict=True) if v.inside])
    shift = None if clean is None else -clean.exponent - law.n_exponent
    low, high = power.interval or (np.nan, np.nan)
    return IsoFlop(tuple(valleys), -power.exponent, (-high, -low), bias, shift, power)


def budgets(ladder: Ladder) -> list[np.ndarray]:
    """Indices of the runs of each budget that has enough of them, from the smallest budget up."""
    order = np.argsort(ladder.flops)
    ordered = np.log(ladder.flops[order])
    groups, first = [], 0
    for i in range(1, len(order) + 1):
        if i == len(order) or ordered[i] - ordered[first] > np.log(SAME_BUDGET):
            groups.append(order[first:i])
            first = i
    return [g for g in groups if len(g) >= FEWEST_RUNS and len(np.unique(np.round(np.log(ladder.n[g]), 2))) >=
            FEWEST_SIZES]


def _valley(n: Floats, flops: Floats, loss: Floats) -> Valley:
    x = np.log(n)
    center = x.mean()
    c2, c1, c0 = np.polyfit(x - center, loss, 2)
    at = center - c1 / (2 * c2) if c2 > 0 else x[loss.argmin()]
    inside = bool(c2 > 0 and x.min() < at < x.max())
    at = float(np.clip(at, x.min(), x.max()))
    value = float(np.polyval([c2, c1, c0], at - center))
    around = (float(c0 - c1 * center + c2 * center**2), float(c1 - 2 * c2 * center), float(c2))
    return Valley(float(np.exp(np.log(flops).mean())), float(np.exp(at)), value, len(n), around, inside)


def _power(valleys: list[Valley]) -> PowerLaw | None:
    used = [v for v in valleys if v.inside]
    return fit_power_law([v.flops for v in used], [v.n for v in used]) if len(used) >= 3 else None
