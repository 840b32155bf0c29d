"""Which setting of a dial meets a wanted false-alarm rate, and whether so many rows can show that it does.

A dial is turned only on evidence. *Looser*, where the rate seen is above the wanted one beyond chance (lower 95 %
bound, Clopper and Pearson) and more than one run shows it: to the first step at which the count is what was wanted, and
one step further, because the next run will differ. *Tighter*, where even the upper bound stays below the wanted rate. A
run that alone decides how far a dial is turned is named and left out: it may be no healthy one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from checks.calibrate.dials import Dial
from checks.calibrate.healthy import Healthy, counted
from checks.certificates import lower_bound, upper_bound

STEP = 2**0.25
LOOSEST, TIGHTEST = 16, -8
"""Steps of a fourth of an octave: up to 16 times as loose, down to a fourth."""
ALONE = 2
"""Steps by which one run may move a dial and be no exception."""
WARNINGS = 5
"""Warnings that are wanted for each failure: convention."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What became of one dial."""

    dial: Dial
    scale: float
    """1 where it was kept."""
    wanted: float
    """Alarms a row."""
    alarms: int
    rows: int
    """At `scale`, on the runs that it was fitted to."""
    before: int
    """Alarms at the shipped setting, on the same runs."""
    runs: int
    why: str
    alone: tuple[str, ...] = ()
    """Runs that were left out because each alone decided the setting."""
    elsewhere: tuple[int, int] | None = None
    """Alarms and rows on runs that the setting was not fitted to: each left out once. None where it was kept."""

    @property
    def bound(self) -> float:
        """Upper 95 % bound of the rate."""
        return upper_bound(self.alarms, self.rows) if self.rows else 1.0


def fit(dial: Dial, runs: Sequence[Healthy], failures: float) -> Fitted:
    """Fit a dial. failures: wanted false failures a row; of warnings five times as many are wanted."""
    wanted = failures * (WARNINGS if dial.level == "warn" else 1)
    kept = [run for run in runs if run.rows(dial)]
    alone: list[str] = []
    while (who := _alone(dial, kept, wanted)) is not None:
        alone.append(who.name)
        kept = [run for run in kept if run is not who]
    steps = _steps(dial, kept, wanted)
    before, rows = counted(kept, dial)
    alarms, _ = counted(kept, dial, _scale(steps or 0))
    elsewhere = _elsewhere(dial, kept, wanted) if steps else None
    why = _why(dial, kept, wanted, steps, alone)
    return Fitted(dial, _scale(steps or 0), wanted, alarms, rows, before, len(kept), why, tuple(alone), elsewhere)


def _scale(steps: int) -> float:
    return STEP**steps


def _steps(dial: Dial, runs: Sequence[Healthy], wanted: float) -> int | None:
    """Steps to turn a dial by; 0 to keep it, None where no step of it would do."""
    alarms, rows = counted(runs, dial)
    if not rows:
        return 0
    if lower_bound(alarms, rows) > wanted and sum(run.alarms(dial) > 0 for run in runs) > 1:
        found = _first(range(1, LOOSEST), lambda k: counted(runs, dial, _scale(k))[0] <= wanted * rows)
        return None if found is None else found + 1
    if upper_bound(alarms, rows) <= wanted:
        found = _first(range(TIGHTEST, 0), lambda k: upper_bound(counted(runs, dial, _scale(k))[0], rows) <= wanted)
        return 0 if found is None else min(found + 1, 0)
    return 0


def _first(steps: range, holds: Callable[[int], bool]) -> int | None:
    """The first step from which on it holds, by halving; None where it does not even at the last."""
    low, high = 0, len(steps) - 1
    if not holds(steps[high]):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(steps[middle]) else (middle + 1, high)
    return steps[low]


def _alone(dial: Dial, runs: Sequence[Healthy], wanted: float) -> Healthy | None:
    """The run without which the dial would be turned much less far, or not at all."""
    alarmed = [run for run in runs if run.alarms(dial)]
    if len(alarmed) == 1 and lower_bound(*counted(runs, dial)) > wanted:
        return alarmed[0]
    whole = _steps(dial, runs, wanted)
    if len(runs) < 3 or (whole is not None and whole <= ALONE):
        return None
    for run in alarmed:
        without = _steps(dial, [other for other in runs if other is not run], wanted)
        if without is not None and (LOOSEST if whole is None else whole) - without > ALONE:
            return run
    return None


def _elsewhere(dial: Dial, runs: Sequence[Healthy], wanted: float) -> tuple[int, int]:
    alarms = rows = 0
    for run in runs:
        steps = _steps(dial, [other for other in runs if other is not run], wanted)
        alarms, rows = alarms + run.alarms(dial, _scale(steps or 0)), rows + run.rows(dial)
    return alarms, rows


def _why(dial: Dial, runs: Sequence[Healthy], wanted: float, steps: int | None, alone: Sequence[str]) -> str:
    alarms, rows = counted(runs, dial)
    if not rows:
        return "kept: no run has an answer of it" if not alone else "kept: one run alone is no ground for another value"
    if steps is None:
        return f"kept: even {_scale(LOOSEST - 1):.3g} times as loose it alarms more often than wanted"
    if steps:
        return "looser: it alarmed more often than wanted, in several runs" if steps > 0 else \
            "tighter: even so its bound meets the wanted rate"
    if upper_bound(alarms, rows) <= wanted:
        return "kept: it meets the wanted rate, and a tighter one could not be shown to"
    if lower_bound(alarms, rows) > wanted:
        return "kept: it alarms more often than wanted, but in one run only"
    # The rule of three: with no alarm, so many rows bring the upper bound down to the wanted rate.
    return f"kept: so few rows cannot tell; {3 / wanted:,.0f} without an alarm could"
