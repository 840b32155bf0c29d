"""Where a run will end: its final loss from the curve so far and the learning-rate schedule to come.

    curve = read_curve("cosine.csv")
    told = forecast(curve, read_schedule("cosine:total=72000,warmup=2160,final=3e-5", curve), siblings=[...])
    told.final_loss, told.interval, told.reason

The annealing law is fitted to the curve and its siblings (other runs of the same model) together; the interval is what
such forecasts were off by (`checks.scaling.backtest`); where the curve cannot tell, the level is `unknown`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from checks.finding import Level
from checks.scaling._curve import Curve
from checks.scaling._curve_law import CurveLaw, Fitted, Floats, fit
from checks.scaling._rates import Phase, phase, warmup_end
from checks.scaling.annealing import ANNEALING
from checks.scaling.backtest import COVERAGE, TESTED, TESTED_PARAMS, Past, anchor_distance, band, expected_error
from checks.scaling.multi_power import MULTI_POWER
from checks.scaling.refusals import Refusal, not_siblings, refuse, refuse_other, refuse_size
from checks.scaling.step_law import STEP_POWER

LAWS: dict[str, CurveLaw] = {law.name: law for law in (ANNEALING, MULTI_POWER, STEP_POWER)}
MOST_ROWS = 256
EARLY_SHARE = 0.03
"""Rows before so much of the run are left out, as warm-up is: no power law holds there."""
PAST_ORIGINS = (0.5, 0.65, 0.8, 0.9)
"""Shares of the curve so far at which the backtest asks again."""
OFF_PLAN = 0.02
"""A logged rate this far from the plan, in peak rates, is another schedule's."""
WIDEST_BAND = 0.05
"""Half a band wider than this share of the loss is no forecast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The answer. `final_loss` and `interval` are None where the level is unknown."""

    level: Level
    reason: str
    what_to_do: str = "Nothing."
    final_loss: float | None = None
    """Loss at the last step of the plan, row noise removed, in the unit of the curve."""
    interval: tuple[float, float] | None = None
    """Holds the final loss in `coverage` of rolling-origin backtests."""
    coverage: float = COVERAGE
    phase: Phase | None = None
    """Where the run stands in its schedule."""
    unit: str = ""
    """Of the losses; empty where nobody said."""
    rows: int = 0
    """Rows of the run that the law was fitted to."""
    law: str = ANNEALING.name
    last_step: int = 0
    total_steps: int = 0
    parameters: dict[str, float] = field(default_factory=dict)
    backtest: dict[str, Any] = field(default_factory=dict)
    alternatives: dict[str, float] = field(default_factory=dict)
    """The other laws' final losses, for comparison."""
    siblings: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    target: float | None = None
    path: tuple[tuple[int, float], ...] = ()
    """Steps and losses of the law from the first used row to the end, for a chart."""

    @property
    def trained_share(self) -> float:
        """Share of the plan's steps that the curve has."""
        return min(self.last_step / self.total_steps, 1.0) if self.total_steps else 0.0

    def to_json(self) -> dict[str, Any]:
        """Strict JSON types."""
        return {
            "level": self.level,
            "final_loss": self.final_loss,
            "interval": None if self.interval is None else list(self.interval),
            "coverage": self.coverage,
            "phase": self.phase,
            "unit": self.unit or None,
            "law": self.law,
            "trained_share": self.trained_share,
            "last_step": self.last_step,
            "total_steps": self.total_steps,
            "reason": self.reason,
            "what_to_do": self.what_to_do,
            "parameters": self.parameters,
            "backtest": self.backtest,
            "alternatives": self.alternatives,
            "siblings": list(self.siblings),
            "assumed": list(self.assumed),
            "target": self.target,
        }


def forecast(
    curve: Curve,
    plan: Floats,
    siblings: Sequence[Curve] = (),
    *,
    target: float | None = None,
    law: CurveLaw = ANNEALING,
    compare: bool = False,
) -> Forecast:
    """Forecast the final loss of a run.

    Where the curve's own rates are not those of the plan, the answer is for another run of the same model under the
    plan, from its first step, and says so.

    Args:
        curve: the run so far.
        plan: rates of the whole run, [T] of steps 1 to T.
        siblings: other runs of the same model, data and batch, under any schedule.
        target: final loss that is wanted; the level then says whether the interval lies below it.
        law: law to forecast with.
        compare: also forecast with the other laws.
    """
    other = leaves_plan(curve, plan)
    if not other:
        curve = replace(curve, rates=plan[: max(curve.last_step, 1)])
    usable = _usable(curve, len(curve.rates) if other else len(plan))
    beside = [_usable(c, len(c.rates)) for c in siblings]
    asked = Forecast(
        level="unknown",
        reason="",
        law=law.name,
        last_step=0 if other else curve.last_step,
        total_steps=len(plan),
        siblings=tuple(c.name for c in siblings),
        assumed=tuple(dict.fromkeys(s for c in (curve, *siblings) for s in c.assumed)),
        target=target,
        phase=phase(plan, 0 if other else curve.last_step),
        unit=curve.unit,
        rows=len(usable.steps),
    )
    pool = [c for c in beside if len(c.steps) >= 5]
    refusal = (refuse_other if other else refuse)(curve, usable, plan, pool)
    refusal = refusal or refuse_size(plan, asked.last_step, curve.params)
    if refusal:
        return _refused(asked, refusal)
    return _told(asked, usable, plan, pool, law, compare, other)


def _told(
    asked: Forecast, usable: Curve, plan: Floats, pool: list[Curve], law: CurveLaw, compare: bool, other: bool
) -> Forecast:
    curves = [usable, *pool]
    fitted = fit(law, curves)
    misfit = not_siblings([c.name for c in curves], fitted.residuals) if pool else None
    if misfit:
        return _refused(asked, misfit)
    now, end = asked.last_step, len(plan)
    final = _value(fitted, usable, plan, now, end)
    past = _past(law, usable, plan, pool, other)
    width = band(expected_error(fitted, curves, plan, now, end), past, one_curve=other and not pool)
    if not np.isfinite(final) or width.half_width > WIDEST_BAND * final:
        return _refused(
            asked,
            Refusal(
                f"The band would be {200 * width.half_width / max(final, 1e-9):.0f} % of the loss wide.",
                "Wait for more of the run, or give finished runs of the same model with --siblings.",
            ),
        )
    low, high = final - width.half_width, final + width.half_width
    steps = np.unique(np.linspace(int(usable.steps[0]), end, 200).astype(int))
    told = replace(
        asked,
        final_loss=final,
        interval=(low, high),
        parameters=fitted.parameters,
        backtest=_summary(width, past),
        path=tuple(zip(steps.tolist(), fitted.predict(plan, steps).tolist(), strict=True)),
    )
    if compare:
        told = replace(told, alternatives=_alternatives(law, curves, plan))
    return _judged(told, other)


def _judged(told: Forecast, other: bool) -> Forecast:
    assert told.final_loss is not None and told.interval is not None
    low, high = told.interval
    about = "Another run under this schedule" if other else "The run"
    ends = "ended" if told.trained_share >= 1 and not other else "ends"
    unit = told.unit.replace("/", " per ") or "in the unit of its losses"
    said = f"{about} {ends} at {told.final_loss:.4f} {unit}, 90 % band {low:.4f} to {high:.4f}"
    note = "; the curve's own learning rate is not this schedule's" if other else ""
    if told.target is None:
        return replace(told, level="pass", reason=f"{said}{note}. {_rests_on(told)}")
    if high <= told.target:
        level, word, todo = "pass", "below", "Nothing."
    elif low > told.target:
        level, word, todo = "fail", "above", "Train longer or change the run: it will not reach its target."
    else:
        level, word, todo = "warn", "across", "Ask again later: the band narrows as the run goes on."
    return replace(
        told,
        level=level,  # type: ignore[arg-type]
        reason=f"{said}, {word} the target of {told.target:.4f}{note}. {_rests_on(told)}",
        what_to_do=todo,
    )


def _rests_on(told: Forecast) -> str:
    """What the band rests on: rows, siblings, and the backtests of this phase."""
    assert told.phase is not None
    count, inside = TESTED[told.phase]
    low, high = (f"{size / 1e6:.0f}M" for size in TESTED_PARAMS)
    beside = f" and {len(told.siblings)} siblings" if told.siblings else ""
    return (
        f"It rests on {told.rows} rows{beside}; phase: {told.phase}, in which bands held {100 * inside:.0f} % of "
        f"{count} backtests on models of {low} to {high} parameters."
    )


def _refused(asked: Forecast, refusal: Refusal) -> Forecast:
    return replace(asked, level="unknown", reason=refusal.reason, what_to_do=refusal.remedy)


def leaves_plan(curve: Curve, plan: Floats) -> bool:
    """Whether the logged rates are those of another schedule; one step more or less is no difference."""
    if not len(curve.rates) or not len(curve.steps):
        return False
    if curve.last_step > 1.01 * len(plan):
        return True
    at = curve.steps[curve.steps <= len(plan)]
    near = [np.abs(curve.rates[at - 1] - plan[np.clip(at - 1 + shift, 0, len(plan) - 1)]) for shift in (-1, 0, 1)]
    away = np.min(near, axis=0) > OFF_PLAN * plan.max()
    return bool(away.mean() > OFF_PLAN)


def _usable(curve: Curve, total: int) -> Curve:
    """Finite rows after warm-up and after the run's first steps, thinned; of the rates those that were lived."""
    late = curve.after(max(warmup_end(curve.rates) - 1, int(EARLY_SHARE * total)))
    keep = np.isfinite(late.losses) & (late.losses > 0) & (late.steps <= max(len(curve.rates), 1))
    rates = late.rates[: max(curve.last_step, 1)]
    return replace(late, steps=late.steps[keep], losses=late.losses[keep], rates=rates, tokens=None).thinned(MOST_ROWS)


def _value(fitted: Fitted, usable: Curve, plan: Floats, now: int, then: int) -> float:
    """The law's loss at `then`; near the end of a run its latest rows take over."""
    law = float(fitted.predict(plan, np.array([then]))[0])
    near = 1 - anchor_distance(now, then)
    rows = max(len(usable.steps) // 20, 3)
    return law * (1 + near * float(np.mean(fitted.residuals[0][-rows:])))


def _past(law: CurveLaw, usable: Curve, plan: Floats, pool: list[Curve], other: bool) -> list[Past]:
    """Forecasts that could have been made earlier, and siblings forecast from the rest."""
    found = []
    if not other:
        first, last = int(usable.steps[0]), usable.last_step
        for share in PAST_ORIGINS:
            early = usable.until(int(first + share * (last - first)))
            if len(early.steps) < len(usable.steps):
                found.append(_asked_again(law, early, usable, plan, pool))
    for i, sibling in enumerate(pool if len(pool) > 1 or not other else []):
        early = sibling.until(int(0.5 * sibling.last_step))
        found.append(_asked_again(law, early, sibling, sibling.rates, [*pool[:i], *pool[i + 1 :], usable]))
    return [p for p in found if p is not None]


def _asked_again(law: CurveLaw, early: Curve, known: Curve, plan: Floats, pool: list[Curve]) -> Past | None:
    horizon = plan[: known.last_step]
    if refuse(early, early, horizon, pool):
        return None
    curves = [early, *pool]
    fitted = fit(law, curves)
    now, then = early.last_step, known.last_step
    rows = max(len(known.steps) // 20, 3)
    observed = known.losses[-rows:]
    # The average of the last rows, put forward to the last one along the law's own slope.
    slope = fitted.predict(plan, known.steps[-rows:])
    seen = float(np.mean(observed / slope) * slope[-1])
    expected = expected_error(fitted, curves, horizon, now, then)
    return Past(known.name, now, then, _value(fitted, early, horizon, now, then) - seen, expected)


def _summary(width: Any, past: Sequence[Past]) -> dict[str, Any]:
    return {
        "forecasts": len(past),
        "inside_their_band": width.inside,
        "expected_error": width.expected_error,
        "errors_at_90": width.errors_at_90,
        "mean_abs_error": float(np.mean([abs(p.error) for p in past])) if past else None,
        "past": [
            {"curve": p.curve, "origin_step": p.origin_step, "target_step": p.target_step, "error": p.error}
            for p in past
        ],
    }


def _alternatives(law: CurveLaw, curves: list[Curve], plan: Floats) -> dict[str, float]:
    end = np.array([len(plan)])
    return {
        name: float(fit(one, curves).predict(plan, end)[0]) for name, one in LAWS.items() if name != law.name
    }
