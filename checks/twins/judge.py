"""A run against its twins under the scan: what left all of them is the run's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from checks.stream.layout import Bounds
from checks.stream.series import Episode, Series
from checks.twins.difference import Difference, difference
from checks.twins.pair import Pair
from checks.twins.rows import LossRows

BOUNDS = Bounds(warn=0.005, fail=0.02, fall=0.02, lone=0.05, brief=0.05, huge=0.7, floor=0.0013, raw=-1, level=1)
"""Those of the loss, but a gap between twins is not expected to fall for ever."""
LEAST_ROWS, SETTLED_ROWS, SETTLED_STEPS = 100, 100, 400
"""Shared rows for an answer; and rows of the pair and steps of the run from which on a gap is settled: two optimizers
part and meet again in the first hundreds of steps."""
STARTED_STEPS = 100
"""Steps that are left out: two models part at their start by a multiple of all that comes later, which hides that."""
LASTING_ROWS = 8
"""Rows off the twin that count, as in loss.divergence; fewer only from the height of a spike."""
SURE = 3.0
"""Log likelihood ratio at which it is clear which of two runs moved."""
BEND = 0.005
"""What a course that bends, as where the rate begins to fall, leaves of a line: 0.2-0.6 % on public logs."""
SLACK_STEPS = 50


@dataclass(frozen=True, slots=True)
class Control:
    """One twin under the scan."""

    name: str
    pair: Pair
    series: Series
    rows: Difference


@dataclass(frozen=True, slots=True)
class Parting:
    """The run left its twins upward."""

    episode: Episode
    agreed: int
    """Twins that show it."""
    of: int
    """Twins that have rows there, and little enough noise to show it."""
    moved: bool | None
    """Whether the run moved and not the twin; None where two runs alone cannot tell."""


def controls(run: LossRows, twins: Sequence[tuple[LossRows, Pair]], bounds: Bounds = BOUNDS) -> list[Control]:
    """The usable twins, each with the difference read by a detector."""
    found = []
    for rows, pair in twins:
        made = difference(run, rows, pair)
        if len(made.steps) >= LEAST_ROWS:
            series = Series(bounds)
            later = made.steps >= STARTED_STEPS
            series.feed(made.steps[later], np.exp(np.clip(made.values[later], -50, 50)))
            found.append(Control(rows.name, pair, series, made))
    return found


def partings(found: list[Control]) -> list[Parting]:
    """What left the twins upward, by the twin with the least noise among those that show it."""
    order = sorted(found, key=lambda c: -(c.pair.noise_ratio or 0.0))
    told: list[Parting] = []
    for control in order:
        for episode in _rises(control):
            if not any(_overlap(episode, t.episode) for t in told):
                told.append(_parting(control, episode, found))
    return sorted(told, key=lambda t: t.episode.onset)


def _rises(control: Control) -> list[Episode]:
    return [e for e in control.series.episodes() if e.side > 0 and not e.lone and e.first_row >= SETTLED_ROWS
            and e.onset >= SETTLED_STEPS and (lasts(e) or e.effect >= BOUNDS.brief)]


def lasts(e: Episode) -> bool:
    """Whether enough rows show it: those of the window that noticed it, or those that stand out one by one."""
    return max(e.rows, e.window) >= LASTING_ROWS


def told_at(e: Episode) -> int:
    """The step at which a live run hears of it: where the window that noticed it is short, some rows later."""
    return e.noticed if e.window >= LASTING_ROWS else e.noticed + LASTING_ROWS


def _parting(control: Control, episode: Episode, found: list[Control]) -> Parting:
    there = [c for c in found if c is control or _would_show(c, episode)]
    agreed = sum(any(_overlap(episode, e) for e in _rises(c)) for c in there)
    # What the run itself did shows against every twin that is calm enough; else the others moved.
    moved = who_moved(control.rows, episode) if len(there) == 1 else agreed == len(there)
    return Parting(episode, agreed, len(there), moved)


def _would_show(control: Control, episode: Episode) -> bool:
    """Whether a twin has rows at the onset, and noise that would not hide the change."""
    steps, seen = control.rows.steps, control.series.resolution()
    inside = len(steps) > 0 and steps[0] <= episode.onset <= steps[-1]
    return bool(inside and seen is not None and np.log1p(seen[0]) <= abs(episode.effect))


def _overlap(a: Episode, b: Episode) -> bool:
    low, high = a.onset_low - SLACK_STEPS, a.onset_high + SLACK_STEPS
    return (low <= b.onset_high and b.onset_low <= high) or (a.onset <= b.last and b.onset <= a.last)


def who_moved(rows: Difference, episode: Episode) -> bool | None:
    """Whether the run's loss changed at the onset and not the twin's; None where both are as likely.

    What the data adds is in both: the change of the one that did not move is that noise alone, so with c and d the
    changes of run and twin from the rows before to the rows after, and s their noise, the log likelihood ratio is
    (c^2 - d^2) / 2 s^2. s is that of a line through w rows read w rows further on, 14 times the variance of a mean of
    w, and what a bend of the course that both share may add.
    """
    at = int(np.searchsorted(rows.steps, episode.onset))
    until = int(np.searchsorted(rows.steps, episode.last, side="right"))
    width = min(at, until - at, 512)
    if width < 4:
        return None
    before, after = slice(at - width, at), slice(at, at + width)
    change, other = (_change(values, before, after) for values in (rows.own, rows.twins))
    variance = float(np.var(np.diff(rows.twins[at - width : at + width]))) / 2
    ratio = (change**2 - other**2) / (2 * (14 * variance / width + BEND**2))
    return True if ratio > SURE else False if ratio < -SURE else None


def _change(values: np.ndarray, before: slice, after: slice) -> float:
    """Level after, less what the course of the rows before leads to expect there."""
    x = np.arange(before.stop - before.start, dtype=float)
    line = np.polyfit(x, values[before], 1) if len(x) >= 8 else np.array([0.0, float(np.median(values[before]))])
    expected = float(np.mean(np.polyval(line, x + len(x))))
    return float(np.mean(values[after])) - expected
