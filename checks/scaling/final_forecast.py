"""scaling.final_forecast: the loss that the run will end at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.masking import warmup_steps
from checks.reading import has
from checks.registry import check
from checks.scaling.forecast import Forecast, forecast, leaves_plan
from checks.scaling.run_curve import curve_of, plan_of

if TYPE_CHECKING:
    from checks.scaling._curve import Curve
    from trainvitals.store import Run

BREAKS = {"lr_restart": "restart of the learning rate", "batch_size": "change of the batch size",
          "stage_switch": "switch of the data stage"}
"""Events across which no law of the loss curve was tested."""
SOURCE = "the target given; the band is the error of rolling-origin forecasts (checks/scaling/backtest.py)"


@check(
    "scaling.final_forecast",
    area="scaling",
    reads=("loss/train",),
    uses=("lr/used", "data/tokens_seen"),
    refs=("https://arxiv.org/abs/2408.11029", "https://github.com/thu-yao-01-luo/MultiPowerLaw"),
)
def final_forecast(
    run: Run, *, target_loss: float | None = None, siblings: Sequence[str] = ()
) -> Iterator[Finding]:
    """The run is on its way to a final loss above the one that is wanted.

    Why it matters: what a run will end at is known long before it ends, and a run that will miss its target is cheaper
    to stop today. How to read it: the annealing law, which knows the learning rate still to come, is fitted to the
    training loss so far (and to `siblings`: CSV files or run folders of the same model); the interval is what such
    forecasts have been off by. Where the curve cannot tell (a WSD run before its decay, a cosine before 30 %, a restart
    of the learning rate) the answer is unknown.
    """
    plan = plan_of(run)
    curve = curve_of(run)
    if plan is None:
        yield _unknown(curve, "The run card holds no learning-rate plan for the whole run.",
                       "Attach with scheduler=... and total_steps=..., or put the plan into the run card.")
        return
    broken = _break(run)
    if broken:
        yield _unknown(curve, broken, "Forecast the part after it as a run of its own.")
        return
    if leaves_plan(curve, plan):
        yield _unknown(curve, "The learning rate used is not the plan's.", "See lr.plan; mend the plan in the card.")
        return
    from checks.scaling.forecast_command import read_sibling

    yield _finding(run, curve, forecast(curve, plan, [read_sibling(path) for path in siblings], target=target_loss))


def _finding(run: Run, curve: Curve, told: Forecast) -> Finding:
    if told.final_loss is None or told.interval is None:
        return _unknown(curve, told.reason, told.what_to_do, told)
    low, high = told.interval
    names = ["loss/train", *(["lr/used"] if has(run, "lr/used") else [])]
    return Finding(
        level=told.level,
        summary=told.reason,
        steps=(int(curve.steps[0]), curve.last_step),
        ongoing=told.level != "pass",
        n=len(curve.steps),
        statistic=Statistic("final loss", told.final_loss, "nats/token", low, high),
        threshold=None if told.target is None else Threshold(told.target, told.target, "nats/token", SOURCE),
        evidence=tuple(Evidence(name, (int(curve.steps[0]), curve.last_step)) for name in names),
        what_it_means="The 90 % band is what such forecasts have been off by on public curves; it says nothing of a "
        "change of data, batch or schedule to come.",
        what_to_do=told.what_to_do,
        details={"forecast": told.to_json(), "path": [list(point) for point in told.path]},
    )


def _unknown(curve: Curve, reason: str, remedy: str, told: Forecast | None = None) -> Finding:
    return Finding(
        level="unknown",
        summary=reason,
        n=len(curve.steps),
        what_it_means="The curve so far does not determine where the run will end.",
        what_to_do=remedy,
        details={} if told is None else {"forecast": told.to_json()},
    )


def _break(run: Run) -> str:
    events = run.events().dropna(subset=["step"])
    for kind, step in zip(events["kind"], events["step"], strict=True):
        if kind in BREAKS and warmup_steps(run) < int(step) <= int(run.last_step or 0):
            return f"A {BREAKS[kind]} at step {int(step):,} divides the curve."
    return ""
