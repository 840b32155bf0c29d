"""lr.plan: the learning rate used, held against the one planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import NOTHING, Ground, Spell
from checks.optimisation._printed import rounding_error
from checks.reading import Rows, has, vector
from checks.registry import check
from checks.robust import Bools, Floats, k_of_n
from trainvitals.schedules import Plan

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention: the rate is deterministic, so only rounding and interpolation of a sampled plan excuse a difference"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One parameter group."""

    group: str
    away: Bools
    """[n] rows that differ beyond the tolerance."""
    error: Floats
    """[n] relative difference."""
    shift: int
    """Steps by which the used rate lags (+) or leads (-) the plan throughout; 0 for none."""
    sustained: Bools
    """[n]"""


@check(
    "lr.plan",
    area="optimisation",
    reads=("lr/used",),
    uses=("lr/planned",),
    needs=("rounded",),
    refs=("https://github.com/huggingface/transformers/blob/main/src/transformers/optimization.py",),
)
def lr_plan(
    run: Run,
    *,
    tolerance: float = 0.01,
    fail_tolerance: float = 0.1,
    rows_in_a_row: int = 3,
    lone_factor: float = 3.0,
) -> Iterator[Finding]:
    """The learning rate used is not the one planned.

    Why it matters: a scheduler that is stepped twice, lost at a resume or overwritten by a config changes the result of
    the whole run, and no other curve says so plainly. How to read it: relative difference per parameter group, against
    `lr/planned` or the plan in the run card. A constant shift by one step (the rate logged before or after
    `scheduler.step()`) is named, not alarmed. Warm-up and resumes are held to the plan like every other step.
    """
    used = vector(run, "lr/used")
    comparisons = _compare(run, used, tolerance, rows_in_a_row, lone_factor)
    if not comparisons:
        yield Ground(len(used)).unknown(
            "The run has no learning-rate plan to hold the used rate against.",
            "Without a plan any rate may be right.",
            "Attach with scheduler=..., or put the plan (trainvitals.schedules.Plan) into the run card.",
        )
        return
    wrong = [c for c in comparisons if c.sustained.any()]
    ground = Ground(len(used), Threshold(tolerance, fail_tolerance, "relative difference", SOURCE))
    yield _disagreed(ground, used, wrong, comparisons) if wrong else _agreed(ground, comparisons)


def _compare(run: Run, used: Rows, tolerance: float, in_a_row: int, lone_factor: float) -> list[Comparison]:
    plan = Plan.from_json(run.card.lr_plan) if run.card.lr_plan else None
    planned = vector(run, "lr/planned") if has(run, "lr/planned") else None
    found = []
    for g, group in enumerate(used.labels):
        column = used.values[:, g]
        targets = {}
        if planned is not None and group in planned.labels:
            targets = _shifted_rows(used.steps, planned, planned.labels.index(group))
        if not targets or not np.isfinite(targets[0]).any():
            # The card holds one plan, which is the first group's; other groups may scale it on purpose.
            if plan is None or g > 0:
                continue
            targets = {shift: plan.at(used.steps - shift) for shift in (0, 1, -1)}
        compared = _held_against(group, column, targets, tolerance, in_a_row, lone_factor)
        if compared is not None:
            found.append(compared)
    return found


def _shifted_rows(steps: np.ndarray, planned: Rows, group: int) -> dict[int, Floats]:
    """Planned rate at each step and, where that step was logged, at its neighbours; NaN elsewhere."""
    found = {}
    for shift in (0, 1, -1):
        at = np.searchsorted(planned.steps, steps - shift)
        at = np.minimum(at, max(len(planned.steps) - 1, 0))
        hit = planned.steps[at] == steps - shift
        found[shift] = np.where(hit, planned.values[at, group], np.nan)
    return found


def _held_against(
    group: str,
    column: Floats,
    targets: dict[int, Floats],
    tolerance: float,
    in_a_row: int,
    lone_factor: float,
) -> Comparison | None:
    target = targets[0]
    known = np.isfinite(column) & np.isfinite(target)
    if not known.any():
        return None
    floor = 1e-3 * max(float(np.max(np.abs(target[known]))), 1e-30)
    printed = rounding_error(column)
    errors = {shift: _relative(column, values, floor, printed) for shift, values in targets.items()}
    away = known & (errors[0] > tolerance)
    shift = 0
    if away.any():
        for candidate in (1, -1):
            explained = (errors[candidate] <= min(tolerance, 1e-3)) | ~np.isfinite(errors[candidate])
            if explained[away].mean() > 0.99 and np.isfinite(errors[candidate][away]).any():
                shift = candidate
    if shift:
        away &= errors[shift] > tolerance
    ratio = np.divide(column, target, out=np.ones_like(column), where=known & (target > floor))
    # A rate that is printed coarsely may be several times its plan by rounding alone.
    clear = np.abs(column - target) > 2 * printed
    lone = away & clear & ((ratio > lone_factor) | (ratio < 1 / lone_factor))
    hot = k_of_n(away, in_a_row, in_a_row)
    for back in range(1, in_a_row):
        hot[:-back] |= k_of_n(away, in_a_row, in_a_row)[back:]
    return Comparison(group, away, np.where(known, errors[shift], 0.0), shift, hot | lone)


def _relative(used: Floats, planned: Floats, floor: float, printed: Floats) -> Floats:
    """Relative difference beyond what printing the used rate has rounded away."""
    with np.errstate(invalid="ignore"):
        return np.fmax(np.abs(used - planned) - 1.01 * printed, 0.0) / np.fmax(np.abs(planned), floor)


def _agreed(ground: Ground, comparisons: list[Comparison]) -> Finding:
    shifts = {c.group: c.shift for c in comparisons if c.shift}
    note = (
        f" The used rate is the plan's of one step {'earlier' if 1 in shifts.values() else 'later'}: it was logged, or "
        "the scheduler stepped, one step off."
        if shifts
        else ""
    )
    lone = sum(int(c.away.sum()) for c in comparisons)
    where = f"but for {lone} single rows" if lone else f"at all {ground.n:,} rows"
    return ground.passed(
        f"The learning rate follows its plan {where}.{note}",
        Statistic("largest difference", max(float(np.nanmax(c.error)) for c in comparisons), "relative"),
        "The optimizer was given the rate that the plan holds.",
        "Nothing; align the logging if exact rates matter." if shifts else NOTHING,
        {"shift_steps": shifts, "single_rows_away": lone},
    )


def _disagreed(ground: Ground, used: Rows, wrong: list[Comparison], comparisons: list[Comparison]) -> Finding:
    first = min(wrong, key=lambda c: int(np.argmax(c.sustained)))
    row = int(np.argmax(first.sustained))
    rows = np.flatnonzero(np.logical_or.reduce([c.sustained for c in wrong]))
    spell = Spell(int(used.steps[row]), int(used.steps[rows[-1]]), bool(rows[-1] == len(used) - 1))
    worst = max(float(np.max(c.error[c.sustained])) for c in wrong)
    value = used.values[row, used.labels.index(first.group)]
    return ground.alarm(
        f"The learning rate of group {first.group} left its plan at step {spell.first:,}: {value:.4g} used, up to "
        f"{100 * worst:.3g} % away, {spell.end}.",
        Statistic("largest difference", worst, "relative"),
        spell,
        evidence=[Evidence(name, spell.steps, c.group) for c in wrong for name in ("lr/used", "lr/planned")],
        means="The optimizer was not given the rate that the plan holds; every result after it is another run's.",
        do="Look for a second scheduler.step(), a scheduler that was not restored at a resume, or a changed config; "
        f"restart from a checkpoint before step {spell.first:,} if the rate was too high.",
        details={"groups": [c.group for c in wrong], "groups_compared": [c.group for c in comparisons]},
        onset="exact: the first row of the difference",
    )
