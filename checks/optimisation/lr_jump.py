"""lr.jump: a learning rate that jumps up within one row, with or without a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from checks.finding import Evidence, Finding, Masked, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.optimisation._printed import rounding_error
from checks.reading import Rows, has, vector
from checks.registry import check
from trainvitals.schedules import Plan

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "convention: schedules rise in a warm-up and at a restart, both smoothly or with an event"
UNIT = "times the row before"
BEFORE_ROWS = 16
"""Rows whose steps say how fast this schedule usually rises."""
LEAST_ROWS = 4
AT_MOST = 10


@dataclass(frozen=True, slots=True)
class Jump:
    """One row to the next."""

    row: int
    factor: float
    last_row: int
    """Last row before the rate was back, or the last of all."""
    back: bool


@check("lr.jump", area="optimisation", reads=("lr/used",), uses=("lr/planned",))
def lr_jump(run: Run, *, warn_factor: float = 1.2, fail_factor: float = 2.0) -> Iterator[Finding]:
    """The learning rate jumps up from one row to the next.

    Why it matters: a rate that was overwritten or a schedule restored at the wrong place shows in gradients and loss
    only afterwards. How to read it: the rise from row to row, against the rises of the 16 rows before and what printing
    rounds; a restart that the plan or an event announces explains it.
    """
    used = vector(run, "lr/used")
    ground = Ground(len(used), Threshold(warn_factor, fail_factor, UNIT, SOURCE))
    if len(used) < LEAST_ROWS + 1:
        yield ground.unknown(f"{len(used)} rates are too few to tell a jump.", "A jump is judged against rows before.")
        return
    planned = _planned(run, used)
    mask = quiet(run, "optimisation")
    found = []
    masked: dict[Masked, None] = {}
    for g, group in enumerate(used.labels):
        for jump in _jumps(used.steps, used.values[:, g], planned.get(group), warn_factor):
            step = int(used.steps[jump.row])
            events = [s for s in mask.spans if s.kind == "lr_restart" and s.step <= step <= s.until]
            masked |= dict.fromkeys(events)
            if not events:
                found.append((group, jump))
    ground = Ground(len(used), ground.threshold, tuple(masked))
    if not found:
        held = "the plan holds it at every row" if planned else "there is no plan to hold its shape against"
        yield ground.passed(
            f"The learning rate never jumps up in {len(used):,} rows; {held}.", None, "No rate was overwritten upwards."
        )
    for group, jump in sorted(found, key=lambda item: -item[1].factor)[:AT_MOST]:
        spell = Spell(int(used.steps[jump.row]), int(used.steps[jump.last_row]), not jump.back)
        before, after = used.values[jump.row - 1 : jump.row + 1, used.labels.index(group)]
        yield ground.alarm(
            f"The learning rate of group {group} jumped at step {spell.first:,}, from {before:.4g} to {after:.4g} "
            f"({jump.factor:.3g} times), {'still up' if spell.ongoing else f'back after step {spell.last:,}'}.",
            Statistic("rise", jump.factor, UNIT),
            spell,
            evidence=[Evidence("lr/used", spell.steps, group)],
            began=(spell.first, spell.first),
            means="Gradients and loss after this step are those of another learning rate.",
            do="Look for a schedule restored at another step, a restart of the optimizer, or a changed config; if none "
            f"was meant, go back to a checkpoint before step {spell.first:,}.",
            onset="exact: the first row of the rise",
        )


def _jumps(
    steps: NDArray[np.int64], rates: NDArray[np.float64], planned: NDArray[np.float64] | None, factor: float
) -> Iterator[Jump]:
    known = np.flatnonzero(np.isfinite(rates) & (rates > 0))
    if len(known) <= LEAST_ROWS:
        return
    r, at = rates[known], steps[known].astype(np.float64)
    printed = rounding_error(r)
    rise = np.diff(r) / np.maximum(np.diff(at), 1)
    ended = 0
    for i in np.flatnonzero(r[1:] > factor * r[:-1]).tolist():
        row = i + 1
        if row < max(LEAST_ROWS, ended) or r[row] - r[i] <= 2 * (printed[row] + printed[i]):
            continue
        usual = float(np.max(np.abs(rise[max(i - BEFORE_ROWS, 0) : i]), initial=0.0))
        if rise[i] <= 3 * usual:
            continue  # a warm-up rises so in every row
        if planned is not None:
            near = planned[known[row]]
            if np.isfinite(near) and r[row] <= factor * near:
                continue
        # With a plan it is back when it is what was planned; a rate that only decays from too high is not.
        due = planned[known[row + 1 :]] if planned is not None else np.full(len(r) - row - 1, np.nan)
        back = np.flatnonzero(r[row + 1 :] <= np.where(np.isfinite(due), due, r[i]) * np.sqrt(factor))
        last = row + int(back[0]) if len(back) else len(r) - 1
        ended = last + 1
        yield Jump(int(known[row]), float(r[row] / r[i]), int(known[last]), bool(len(back)))


def _planned(run: Run, used: Rows) -> dict[str, NDArray[np.float64]]:
    """Planned rate at each row by group, where one is known."""
    found: dict[str, NDArray[np.float64]] = {}
    if run.card.lr_plan and used.labels:
        plan = Plan.from_json(run.card.lr_plan)
        found[used.labels[0]] = np.fmax(plan.at(used.steps), plan.at(used.steps + 1))
    if has(run, "lr/planned"):
        rows = vector(run, "lr/planned")
        at = np.minimum(np.searchsorted(rows.steps, used.steps), max(len(rows.steps) - 1, 0))
        for g, group in enumerate(rows.labels):
            if len(rows.steps):
                found[group] = np.where(rows.steps[at] == used.steps, rows.values[at, g], np.nan)
    return found
