"""optimizer.reset: an optimizer that forgot its moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import Rows, vector
from checks.registry import check

if TYPE_CHECKING:
    from trainvitals.store import Run

SIGNAL = "optimizer/steps"
SOURCE = "exact: the count that an optimizer keeps beside its moments never falls while it keeps them"
SETTLED = 100
"""Updates after which moments are themselves again, about: the memory of Adam's second moment at beta2 = .99 and less;
at .999 it takes 1,000, but the corrected estimate is no longer coarse."""
NAMED = 3


@dataclass(frozen=True, slots=True)
class Reset:
    """Groups whose counts fell at one row."""

    groups: tuple[str, ...]
    before: int
    """Step of the row before."""
    step: int
    had: int
    """Updates that were counted before, at most."""
    has: int
    """Updates that are counted after, at least."""
    settled: int | None
    """Step at which `SETTLED` updates are counted again; None where it has not come."""


@check("optimizer.reset", area="optimisation", reads=(SIGNAL,))
def optimizer_reset(run: Run) -> Iterator[Finding]:
    """The optimizer's count of updates falls: its state was lost, with the moments beside it.

    Why it matters: Adam without its moments takes the first updates in the direction of single batches' gradients and
    at the full rate, as if training had just begun, and a rate that has long been warmed up may be too high for that;
    the loss often shows a bump that is taken for data. How to read it: the count that the state itself keeps, read
    before each update. A resume from weights alone, a state that was loaded into another optimizer or cleared by hand
    sets it back. It falls as well where an older checkpoint's state is loaded beside newer weights.
    """
    rows = vector(run, SIGNAL)
    counted = int(np.isfinite(rows.values).any(axis=1).sum()) if len(rows) else 0
    ground = Ground(counted, Threshold(0, None, "fall of the count of updates", SOURCE))
    if counted < 2:
        yield ground.unknown(
            f"The optimizer's own count of updates is known at {counted} rows; two are compared.",
            "Whether it kept its state is not known.",
            "Optimizers that count no updates, as SGD, cannot be asked.",
        )
        return
    found = list(_resets(rows))
    yield from (_alarm(run, ground, reset) for reset in found)
    if not found:
        yield ground.passed(
            f"The optimizer's count of updates never fell over {counted:,} rows.",
            Statistic("falls of the count", 0, "falls"),
            "It kept its state, resumes included, where the count is of that state.",
        )


def _resets(rows: Rows) -> Iterator[Reset]:
    """Falls of any group's count from one of its rows to the next; groups that fall together are one."""
    at: dict[int, list[Reset]] = {}
    for i, label in enumerate(rows.labels):
        known = np.flatnonzero(np.isfinite(rows.values[:, i]))
        counts = rows.values[known, i]
        for k in np.flatnonzero(np.diff(counts) < 0) + 1:
            later = np.flatnonzero(counts[k:] >= SETTLED)
            settled = int(rows.steps[known[k + later[0]]]) if len(later) else None
            alone = Reset((label,), int(rows.steps[known[k - 1]]), int(rows.steps[known[k]]), int(counts[k - 1]),
                          int(counts[k]), settled)  # fmt: skip
            at.setdefault(alone.step, []).append(alone)
    for _, those in sorted(at.items()):
        ends = [r.settled for r in those if r.settled is not None]
        yield Reset(tuple(r.groups[0] for r in those), max(r.before for r in those), those[0].step,
                    max(r.had for r in those), min(r.has for r in those),
                    max(ends) if len(ends) == len(those) else None)  # fmt: skip


def _alarm(run: Run, ground: Ground, reset: Reset) -> Finding:
    last = int(run.last_step or reset.step)
    spell = Spell(reset.step, last if reset.settled is None else reset.settled, ongoing=reset.settled is None)
    groups = f" of group {', '.join(reset.groups[:NAMED])}" if len(reset.groups) < _groups(run) else ""
    return ground.alarm(
        f"The optimizer{groups} began anew at step {reset.step:,}: the updates that its state counts fell from "
        f"{reset.had:,} to {reset.has:,}.",
        Statistic("updates forgotten", reset.had - reset.has, "updates"),
        spell,
        evidence=[Evidence(SIGNAL, (reset.before, spell.last), label) for label in reset.groups[:10]],
        began=(reset.before + 1, reset.step),
        means="Its moments are gone with the count: the first updates follow single batches at the full rate.",
        do="Load the optimizer's state dictionary beside the weights, from the same checkpoint; where it is lost, warm "
        "the learning rate up again.",
        onset="exact to one row: between the last count before and the first after",
        details={"groups": list(reset.groups), "had": reset.had, "has": reset.has},
        level="warn",
    )


def _groups(run: Run) -> int:
    return len(vector(run, SIGNAL).labels)
