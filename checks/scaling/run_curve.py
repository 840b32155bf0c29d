"""A stored run as a curve and a plan, for forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from checks.reading import has, scalar, vector
from checks.scaling._curve import Curve, Floats
from checks.scaling.schedule import rates_of
from trainvitals.schedules import Plan

if TYPE_CHECKING:
    from trainvitals.store import Run


def curve_of(run: Run) -> Curve:
    """The training loss, the rate used (first group) and, where stored, the tokens seen."""
    loss = scalar(run, "loss/train")
    keep = loss.steps >= 1
    steps, losses = loss.steps[keep], loss.values[keep]
    tokens = None
    if has(run, "data/tokens_seen"):
        seen = scalar(run, "data/tokens_seen").finite()
        if len(seen):
            tokens = np.interp(steps, seen.steps, seen.values)
    return Curve(run.name, steps, losses, _used(run, int(steps[-1]) if len(steps) else 0), tokens,
                 params=run.card.params_active or run.card.params_total or None, unit="nats/token")


def plan_of(run: Run) -> Floats | None:
    """Planned rates of the whole run: [T]; None where the run card holds no plan with a length."""
    if not run.card.lr_plan:
        return None
    plan = Plan.from_json(run.card.lr_plan)
    if plan.kind == "constant" and run.card.total_steps:
        return plan.at(np.arange(1, run.card.total_steps + 1))
    planned = plan.steps[-1] if plan.kind == "table" else plan.total_steps
    return rates_of(plan) if planned else None


def _used(run: Run, last: int) -> Floats:
    rows = vector(run, "lr/used")
    known = np.isfinite(rows.values[:, 0]) & (rows.steps >= 1) if rows.labels else np.zeros(len(rows), bool)
    if not known.any() or last < 1:
        return np.zeros(0)
    used: Floats = np.interp(np.arange(1, last + 1), rows.steps[known], rows.values[known, 0])
    return used
