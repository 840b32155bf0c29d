"""telemetry.holes: steps that the record should have, by its own cadence, and has not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.registry import check
from checks.telemetry._record import MOST_NAMED, count, logged, no_data
from trainvitals.catalogue import MANY_ROWS, SPARSE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run
    from trainvitals.store.series import Logged

_BY_EVENT = (*SPARSE, *MANY_ROWS, "coverage")
NOT_REGULAR = frozenset({*_BY_EVENT, *(f"stated_{frame}" for frame in _BY_EVENT), "custom", "system"})
"""Frames with rows where something happened, when the script chose, or by the clock: they have no cadence."""
NEIGHBOURS = 9
"""Gaps on each side that tell the cadence around a gap."""
UNEVEN = 1.5
"""Times the cadence: a larger gap lacks a row."""
RARE = 7.0
"""Of gaps that are exponential, as those of a random sample of steps are, the largest of n exceeds m (ln n + 7) times
their mean m in one record of 1,000: P(max > x) = 1 - (1 - e^(-x/m))^n, about n e^(-x/m)."""
SOURCE = (
    "the cadence is the median gap of the 9 rows before or after, whichever is larger; where gaps are uneven, a hole "
    "is beyond what 1 of 1,000 random samples of the steps would leave"
)


@dataclass(frozen=True, slots=True)
class Hole:
    """Rows that are missing."""

    frame: str
    first: int
    """First step that is missing."""
    last: int
    rows: int
    """Rows that the cadence around it has for these steps."""
    left: bool = False
    """An earlier attempt wrote some, and the later one said that it began before them."""

    @property
    def words(self) -> str:
        """`steps 501 to 900 (400 rows)`."""
        where = f"step {self.first:,}" if self.first == self.last else f"steps {self.first:,} to {self.last:,}"
        left = ", left to a branch by an attempt that began after them" if self.left else ""
        return f"{where} ({count(self.rows, 'row')}{left})"


@check("telemetry.holes", area="telemetry")
def holes(run: Run, *, min_rows: int = 3) -> Iterator[Finding]:
    """Rows are missing between rows: a hole of `min_rows` or more in a record that was regular around it.

    Why it matters: what happened in a hole is in no answer of any check, and sums and counts lack it. How to read it:
    the cadence of every frame is measured from its rows, before and after, so a log that changes its interval, a
    resume, or a log of sampled steps has no hole. Gaps of one or two rows are counted and named, without an alarm.
    Frames with rows only where something happened (evaluations, skipped steps, numbers of the script's own) have no
    cadence and are not looked at.
    """
    frames = [list(own) for _, own in groupby(logged(run), key=lambda one: one.frame)]
    frames = [own for own in frames if own[0].frame not in NOT_REGULAR and any(len(one.steps) for one in own)]
    if run.last_step is None:
        yield no_data()
        return
    found, few = list[Hole](), list[str]()
    short = looked = regular = 0
    for own in frames:
        steps = _joined(own)
        if len(steps) < NEIGHBOURS + 1:
            few.append(own[0].frame)
            continue
        regular, looked = regular + 1, looked + len(steps)
        in_frame = list(_holes(own[0].frame, steps))
        found += [hole for hole in in_frame if hole.rows >= min_rows]
        short += sum(hole.rows < min_rows for hole in in_frame)
        found += _left_before(run, own)
    ground = Ground(looked, Threshold(min_rows, None, "rows missing", SOURCE), details={"short_gaps": short})
    places = list({(hole.first, hole.last): hole for hole in sorted(found, key=lambda h: (h.first, h.rows))}.values())
    if places:
        yield _alarm(ground, places, found)
    elif not regular:
        yield ground.unknown(
            f"No frame has {NEIGHBOURS + 1} rows on the main line, so its cadence cannot be told.",
            "A hole is a gap in a regular record, and a few rows show no regularity.",
        )
    else:
        yield ground.passed(
            f"No hole of {min_rows} rows or more lies between the {looked:,} rows of {count(regular, 'frame')}"
            + (f"; {count(short, 'gap')} of fewer rows." if short else "."),
            Statistic("rows missing in one place", min_rows - 1 if short else 0, "rows"),
            "Each frame keeps its own cadence. Nothing is said of before the first row, after the last, and of frames "
            + (f"without a cadence or with too few rows ({', '.join(few[:5])})." if few else "without a cadence."),
        )


def _joined(attempts: Sequence[Logged]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([one.steps for one in attempts]))


def _holes(frame: str, steps: NDArray[np.int64]) -> Iterator[Hole]:
    """Gaps that are larger than the cadence on both sides of them. steps: rising [n >= 10]."""
    gaps = np.diff(steps).astype(float)
    if gaps.max() <= UNEVEN * gaps.min():
        return
    around = _around(gaps)
    usual = _growing(gaps, around)
    limit = UNEVEN * usual
    # Lone gaps leave most of the others even; a random sample of steps does not.
    if (np.abs(gaps - usual) > 0.5 * usual).mean() > 0.2:
        usual = np.fmax(around, np.minimum(gaps, np.quantile(gaps, 0.99)).mean())
        limit = usual * (np.log(len(gaps)) + RARE)
    for i in np.flatnonzero(gaps > limit):
        missing = max(1, round(gaps[i] / usual[i]) - 1)
        yield Hole(frame, int(steps[i] + 1), int(steps[i + 1] - 1), missing)


def _around(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cadence around each gap [n]: the larger of the medians before and after it; for the last, the gap before."""
    import pandas as pd

    before = pd.Series(gaps).rolling(NEIGHBOURS, min_periods=1).median().shift(1).to_numpy()
    after = pd.Series(gaps[::-1]).rolling(NEIGHBOURS, min_periods=1).median().shift(1).to_numpy()[::-1].copy()
    after[-1] = gaps[-2]
    return np.asarray(np.fmax(before, after))


def _growing(gaps: NDArray[np.float64], around: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cadence of gaps that grow, as those of intervals that double do, is the next of their growth."""
    growth = gaps[1:] / gaps[:-1]
    grows = (growth[:-1] > 1.2) & (growth[1:] > 1.2)
    usual = around.copy()
    usual[3:] = np.where(grows[:-1], np.fmax(usual[3:], gaps[2:-1] * growth[1:-1]), usual[3:])
    return usual


def _left_before(run: Run, attempts: Sequence[Logged]) -> Iterator[Hole]:
    """Steps before the main line's first that an earlier attempt has: a later one said that it began before them."""
    whole = _joined(attempts)
    begin, usual = int(whole[0]), max(1, int(np.median(np.diff(whole))))
    for branch in run.branches().itertuples():
        missing = (begin - int(branch.from_step)) // usual
        if missing > 0:
            yield Hole(attempts[0].frame, int(branch.from_step), begin - 1, missing, left=True)
            return


def _alarm(ground: Ground, places: Sequence[Hole], found: Sequence[Hole]) -> Finding:
    widest = max(places, key=lambda hole: hole.rows)
    named = sorted(sorted(places, key=lambda hole: -hole.rows)[:MOST_NAMED], key=lambda hole: hole.first)
    more = f" and {len(places) - len(named):,} more places" if len(places) > len(named) else ""
    frames = sorted({hole.frame for hole in found})
    which = f"frame{'s' * (len(frames) > 1)} {', '.join(frames[:4])}" + ", ..." * (len(frames) > 4)
    return ground.alarm(
        f"The record has no rows of {'; '.join(hole.words for hole in named)}{more}, in {which}, though it is regular "
        "around them.",
        Statistic("rows missing in one place", widest.rows, "rows"),
        Spell(places[0].first, max(hole.last for hole in places), ongoing=False),
        evidence=[],
        means="What happened in these steps is in no answer here; counts and sums over the run lack them.",
        do="Look whether the job ran there without the tap, wrote to another folder, or lost its disk; import or merge "
        "the missing rows where they are.",
        onset="exact: the first step without a row",
        details={"holes": [[hole.frame, hole.first, hole.last, hole.rows] for hole in found[:50]]},
        level="warn",
    )
