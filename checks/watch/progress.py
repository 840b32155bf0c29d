"""Whether a run still makes steps: told by its own pauses and by when this watcher last saw it move.

How long is too long comes from the run: its longest pauses between two steps (evaluations and checkpoints are among
them), doubled. A pause that came once only is left out where three others were shorter, so that one hang that ended
does not make the run deaf to the next. Below the minute within which the store calls a run silent nothing is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from checks.watch.alarms import Alarm
from trainvitals.errors import UnknownSignal
from trainvitals.store.liveness import SILENT_SECONDS

if TYPE_CHECKING:
    from trainvitals.store import Run

TIMED = ("throughput/step_time", "loss/train", "loss/returned", "grad/norm")
"""Signals whose rows are steps, the first that the run has."""
MARGIN = 2.0
"""Times the longest pause that the run has shown. Convention: on a busy disk a checkpoint takes twice its time."""
FEWEST_GAPS = 3
"""Gaps between rows that tell a run's pace; with fewer nothing is known of it."""
RECENT_GAPS = 10_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How a run has moved so far, by the times of its rows."""

    gaps: int
    usual: float
    """Seconds between two rows, the median."""
    longest: float
    """Seconds of the longest pause that counts."""
    start_up: float
    """Seconds from the longest start of an attempt to its first row; 0 where none is known."""

    @property
    def patience(self) -> float:
        """Seconds without a step that are too long."""
        return max(SILENT_SECONDS, MARGIN * self.longest)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watcher saw of a run's growth, by its own clock (Unix seconds)."""

    step: int = -1
    moved: float = 0.0
    """When the step last changed."""
    reported: float = 0.0
    """When anything last came."""
    newest: float = 0.0
    """Time of the newest row or event, by the run's clock."""
    attempts: int = 0
    began: float = 0.0
    """When the newest attempt was first seen."""
    alive: bool = False
    """Whether it was ever seen to grow: a run that was dead before the watch began wakes nobody."""


def pace(run: Run) -> Pace | None:
    """A run's pace from its rows; None where too few tell it."""
    name = next((n for n in TIMED if run.has(n)), None)
    if name is None:
        return None
    try:
        steps, times = run.times(name)
    except UnknownSignal:
        return None
    started = sorted((a.start_step, a.started) for a in run.attempts)
    firsts = np.searchsorted(steps, [s for s, _ in started])
    waits = [float(times[i]) - at for i, (_, at) in zip(firsts, started, strict=True) if i < len(times)]
    gaps = np.diff(times)
    between = np.zeros(len(gaps), bool)
    between[[i - 1 for i in firsts if 0 < i <= len(gaps)]] = True
    gaps = gaps[~between & np.isfinite(gaps) & (gaps > 0)][-RECENT_GAPS:]
    if len(gaps) < FEWEST_GAPS:
        return None
    top = np.sort(gaps)[-4:]
    usual = float(np.median(gaps))
    # Three pauses of their own kind, not ordinary steps, must stand beside the one that is left out.
    alone = len(top) == 4 and top[0] > MARGIN * usual and top[3] > MARGIN * top[2]
    known = [w for w in waits if np.isfinite(w) and w > 0]
    return Pace(len(gaps), usual, float(top[2] if alone else top[-1]), max(known, default=0.0))


def look(seen: Seen, run: Run, now: float) -> Seen:
    """What is seen after this look at a run as of its last refresh."""
    step, newest, attempts = int(-1 if run.last_step is None else run.last_step), _newest(run), len(run.attempts)
    if not seen.moved:
        at = min(newest, now) if newest else now
        return Seen(step, at, at, newest, attempts, at, False)
    grew = newest > seen.newest or step != seen.step or attempts > seen.attempts
    return replace(
        seen,
        step=step,
        moved=now if step != seen.step or attempts > seen.attempts else seen.moved,
        reported=now if grew else seen.reported,
        newest=max(newest, seen.newest),
        attempts=attempts,
        began=now if attempts > seen.attempts else seen.began,
        alive=seen.alive or grew,
    )


def stalled(seen: Seen, known: Pace | None, status: str, now: float) -> Alarm | None:
    """The alarm of a run that makes no steps; None where it does, ended in order, or its pace is not known."""
    if known is None or status == "finished" or not seen.alive:
        return None
    patience = known.patience
    if seen.began >= seen.moved:  # an attempt that has made no step: it compiles and loads first
        patience = max(patience, MARGIN * known.start_up)
    still = now - seen.moved
    if still <= patience:
        return None
    reports = now - seen.reported <= max(patience / 2, SILENT_SECONDS)
    kind, area = ("progress", "throughput") if reports else ("silence", "telemetry")
    first = (
        f"No step for {_span(still)} after step {seen.step:,}, though the job still reports."
        if reports
        else f"Nothing was heard for {_span(now - seen.reported)} after step {seen.step:,}."
    )
    words = f"{first} A step takes {known.usual:.3g} s, and its longest usual pause was {_span(known.longest)}."
    remedy = (
        "Look for a rank that waits in a collective or for data (py-spy dump), and restart from the last checkpoint."
        if reports
        else "Look at the job's log and its scheduler: it is dead, hung, or cannot write to the run folder."
    )
    return Alarm(f"stall-{max(seen.step, 0)}", "fail", f"no {kind}" if reports else "silent", max(seen.step, 0), words,
                 remedy, True, (area,))  # fmt: skip


def restarted(before: Seen, seen: Seen, ended: bool) -> Alarm | None:
    """The warning that a job was started again without having ended in order. `ended`: the one before did."""
    if not before.attempts or seen.attempts <= before.attempts or ended:
        return None
    step = max(before.step, 0)
    return Alarm(f"attempt-{seen.attempts}", "warn", "restarted", step,
                 f"Attempt {seen.attempts} began; the one before had reached step {step:,} and did not end in order.",
                 "Find out why it ended, in the log of that attempt.", False, ("telemetry",))  # fmt: skip


def _newest(run: Run) -> float:
    events = run.events()
    last = float(events["time"].max()) if len(events) else 0.0
    return max(float(run.last_time or 0.0), last if np.isfinite(last) else 0.0)


def _span(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else \
        f"{seconds / 3600:.0f} h"
