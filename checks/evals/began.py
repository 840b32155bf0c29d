"""Where between two checkpoints did a fall begin, which the comparison of the two has shown?

Whether there is one is known, so only the place is asked: from the later checkpoint back, each one in between is held
against the first, on the same items, until one is not worse at 5 %. A sequence that stops at its first failure needs no
correction (fixed-sequence testing, Maurer, Hothorn and Lehmacher 1995).
"""

from __future__ import annotations

from dataclasses import dataclass

from checks.evals.items import NotComparable, align
from checks.evals.noise import noise_of
from checks.evals.paired import ALPHA, paired_difference
from trainvitals.evals import Evals

QUOTA = 0.01


@dataclass(frozen=True, slots=True)
class Began:
    """The first of an unbroken row of checkpoints that are worse than the baseline."""

    task: str
    checkpoint: str
    step: int
    last_step: int
    """Of the checkpoint before it, which is not worse beyond chance; what began the fall may lie before it, too."""
    size: float
    """Loss at that checkpoint, negative."""


def began(evals: Evals, task: str, before: str, after: str) -> Began | None:
    """The beginning of a fall between two checkpoints; None where a step is not known, or `after` is no worse.

    Args:
        evals: of a run.
        task: name.
        before: the baseline.
        after: the candidate.
    """
    steps = {s.checkpoint: s.step for s in evals.of_task(task) if s.step is not None}
    first = evals.sheet(task, before)
    if first is None or before not in steps or after not in steps:
        return None
    between = sorted((c for c in steps if steps[before] < steps[c] <= steps[after]), key=lambda c: -steps[c])
    noise = noise_of(evals, task, before)  # of the course up to the baseline: the fall itself is no noise
    found: Began | None = None
    for place, name in enumerate(between):
        other = evals.sheet(task, name)
        if other is None:
            break
        try:
            a = align(first, other, QUOTA, None, None)
        except NotComparable:
            break
        d = paired_difference(a.before, a.after, a.clusters, noise)
        if d.p_worse > ALPHA or d.value >= 0:
            break
        last = between[place + 1] if place + 1 < len(between) else before
        found = Began(task, name, steps[name], steps[last], d.value)
    return found
