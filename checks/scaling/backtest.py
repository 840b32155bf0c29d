"""How far forecasts of this kind have been off: the band of a forecast.

A bootstrap of the parameters is no band: it knows the noise of the rows, not that the law is wrong (its 95 % holds 14
to 35 % of held-out points on the Chinchilla data). Here the law is refitted at earlier rows, asked for a loss that is
known by now, and the error is divided by the size it should have had (`expected_error`). That size comes from what a
forecast still has to guess; how many of them the true error takes was measured in rolling-origin backtests on the
public curves of https://github.com/thu-yao-01-luo/MultiPowerLaw, and the run's own backtest may widen it.

Legend: k parameters, r the noise of one of `CURVE_WEIGHT` rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checks.scaling._curve import Curve
from checks.scaling._curve_law import CURVE_WEIGHT, Fitted, Floats
from checks.scaling._rates import FLAT, SETTLED_LAG, Phase, answered, drop_share, is_gradual

COVERAGE = 0.9
ERRORS_AT_90 = 1.8
"""90 % of the rolling-origin forecasts on MultiPowerLaw's curves lie within so many expected errors."""
PRIOR_ERRORS = 8.0
"""Weight of that measurement against the run's own backtest, in past forecasts."""
USUAL_SQUARE = 1.6
"""Mean square of error over expected error there."""
WIDEST = 3.0
"""A good backtest does not narrow the band: a handful of related forecasts prove little. A bad one widens it."""

WEIGHTS = (1.2, 0.15, 0.12, 0.015, 1.0)
"""Parts of the expected error: of the parameters' own uncertainty, of the drop that no curve has answered to yet, of
the whole anneal, of the power law still to run, of the rows' scatter. Fitted to the errors on those curves at 25M and
100M, but for the anneal's: .08 there, and .12 so that the decays at 400M, off by up to .017 of the .11 that they buy,
lie well inside."""
OTHER_KIND = 1.5
"""Times as much of the anneal is to be guessed where a gradual fall is told from sudden ones alone: cosines beside a
warm-up-stable-decay run were forecast up to .023 too high, beside another cosine .013."""
STEADY = 8.0
"""Times as much of the power law is to be guessed under a constant rate, where nothing else is: without siblings such
runs were forecast up to .036 too high at 30 %, .009 at 50 % (25M and 100M), twice their band."""
TESTED_PARAMS = (25e6, 400e6)
"""Model sizes of those curves."""
TESTED: Mapping[Phase, tuple[int, float]] = {
    "constant": (120, 0.99), "gradual": (138, 0.99), "decay not seen": (147, 0.98), "decay under way": (225, 0.99),
}
"""Forecasts per phase on those curves, and the share of them inside their 90 % band before the own backtest widens
it: cut at 30 to 95 %, alone and beside three sets of siblings, as in `python -m benchmarks.forecast_backtest`."""
ANNEAL_BUYS = (0.03, 0.06)
"""A full decay buys 3 to 6 % of the loss (.11 of 3.0 there); a fit that claims more or less is not believed."""
ANCHOR_SHARE = 0.1
"""Over the last tenth of a run, its latest rows take over from the law."""


@dataclass(frozen=True, slots=True)
class Past:
    """One forecast of the backtest."""

    curve: str
    origin_step: int
    target_step: int
    error: float
    """Forecast minus observed, nats per token."""
    expected: float
    """Size that the error should have had."""


@dataclass(frozen=True, slots=True)
class Band:
    """Half the width of the interval, and what it rests on."""

    half_width: float
    expected_error: float
    errors_at_90: float
    past: tuple[Past, ...]

    @property
    def inside(self) -> int:
        """Past forecasts within their own band."""
        return sum(abs(p.error) <= ERRORS_AT_90 * p.expected for p in self.past)


def expected_error(fitted: Fitted, curves: Sequence[Curve], plan: Floats, now: int, then: int) -> float:
    """Size of the error of a forecast for step `then` made at step `now` (0: from other runs only), nats per token.

    curves: those that were fitted, the run itself first; plan: rates of the whole run, [T].
    """
    return float(np.sqrt(np.sum(np.square(np.array(WEIGHTS) * unknowns(fitted, curves, plan, now, then)))))


def unknowns(fitted: Fitted, curves: Sequence[Curve], plan: Floats, now: int, then: int) -> Floats:
    """What a forecast still has to guess, nats per token: [5], in the order of `WEIGHTS`."""
    loss = float(fitted.predict(plan, np.array([then]))[0])
    r = max(1.4826 * float(np.median(np.abs(np.concatenate(fitted.residuals)))), 1e-3) * loss
    rows = [fitted.sensitivity(c.rates, c.steps) * np.sqrt(CURVE_WEIGHT / len(c.steps)) for c in curves]
    information = sum(j.T @ j for j in rows) / r**2 + np.diag(_prior(fitted))
    gradient = fitted.sensitivity(plan, np.array([then]))[0]
    leverage = float(np.sqrt(max(gradient @ np.linalg.solve(information, gradient), 0.0)))
    # The latest rows take over evenly, the errors shrink more slowly: at 95 % of a run the even share held 84 %.
    far = anchor_distance(now, then) ** 0.5
    buys = unsettled = power = 0.0
    if drop_share(plan[:then]) > FLAT:
        buys = _anneal_buys(fitted, plan[:then]) * loss
        settled = [answered(plan, now, SETTLED_LAG)] if now else []
        settled += [_stands_in(c, plan) for c in curves[1:]]
        unsettled = buys * (1 - max(settled, default=0.0))
        annealed_beside = [c.rates for c in curves[1:] if drop_share(c.rates) > FLAT]
        if is_gradual(plan) and annealed_beside and not any(is_gradual(rates) for rates in annealed_beside):
            buys *= OTHER_KIND
    else:
        # What the siblings' anneals bought was taken out of their curves by the law alone, until the run has a level
        # of its own: steady runs beside a cosine were off by twice their band (measured, cut at 10 to 50 %).
        shown = curves[1:] if now else curves
        annealed = [_anneal_buys(fitted, c.rates) for c in shown if drop_share(c.rates) > FLAT]
        buys = max(annealed, default=0.0) * loss * (1 - now / then)
    if now:
        steady = plan[:then].copy()
        steady[now:] = plan[now - 1]
        power = abs(float(np.subtract(*fitted.predict(steady, np.array([now, then])))))
        power *= STEADY if drop_share(plan[:then]) <= FLAT else 1.0
    # Once the latest rows have taken over, what is left to guess is their own noise.
    rows_used = max(len(curves[0].steps) // 20, 3)
    return np.array([*(far * np.array([leverage, unsettled, buys, power])), max(far, rows_used**-0.5) * r])


def _stands_in(sibling: Curve, plan: Floats) -> float:
    """How much of the plan's drop a sibling has shown, settled."""
    share = drop_share(sibling.rates) / drop_share(plan)
    return min(share, 1.0) * answered(sibling.rates, sibling.last_step, SETTLED_LAG)


def anchor_distance(now: int, then: int) -> float:
    """1 where the forecast is the law's alone, down to 0 at the end of the run, where it is what was observed."""
    return float(np.clip((then - now) / then / ANCHOR_SHARE, 0.0, 1.0)) if now else 1.0


def band(expected: float, past: Sequence[Past], *, one_curve: bool = False) -> Band:
    """The 90 % band of a forecast with this expected error, given what past ones were off by.

    `one_curve`: it is for a run under another schedule, and from a single curve. The anneal and the power law are one
    mixture there: such forecasts were off by up to three times the band that two curves have (MultiPowerLaw, 25M).
    """
    squares = sum((p.error / p.expected) ** 2 for p in past) / USUAL_SQUARE
    factor = np.sqrt((PRIOR_ERRORS + squares) / (PRIOR_ERRORS + len(past)))
    errors = ERRORS_AT_90 * (WIDEST if one_curve else float(np.clip(factor, 1.0, WIDEST)))
    return Band(errors * expected, expected, errors, tuple(past))


def _prior(fitted: Fitted) -> Floats:
    # The level is known to a tenth, the other linear parameters to a factor of e^3; shapes are in prior deviations.
    return np.array([1e2] + [0.1] * (len(fitted.coefficients) - 1) + [1.0] * len(fitted.shape))


def _anneal_buys(fitted: Fitted, plan: Floats) -> float:
    """Share of the loss that the plan's anneal buys by the law, held to what has been seen anywhere."""
    drop = drop_share(plan)
    flat = np.minimum.accumulate(plan[::-1])[::-1]
    flat = np.where(np.arange(len(plan)) >= int(plan.argmax()), plan.max(), flat)
    end = np.array([len(plan)])
    with_it, without = float(fitted.predict(plan, end)[0]), float(fitted.predict(flat, end)[0])
    low, high = ANNEAL_BUYS
    return float(np.clip((without - with_it) / max(with_it, 1e-9), low * drop, high * drop))
