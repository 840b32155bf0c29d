"""telemetry.repeats: steps that were written twice, by one job or by two at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.registry import check
from checks.telemetry._record import MOST_NAMED, SOURCE, count, logged, no_data, runs_of, span, told
from trainvitals.catalogue import MANY_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.imported import Imported
    from trainvitals.store import Run
    from trainvitals.store.series import Logged


@check("telemetry.repeats", area="telemetry")
def repeats(run: Run) -> Iterator[Finding]:
    """A rank has more than one row for a step, or two jobs of one rank wrote at once.

    Why it matters: two rows of one rank for one step are two stories of it; added up they would be twice the truth. How
    to read it: of a rank's rows for one step the last one counts, in every sum and mean, and the finding names the
    steps. An attempt that went back by its own word (a rollback, a resume) is no repeat: what it left is a branch,
    and the answer says so. Frames of evaluations may have a row for each pass, and are not looked at.
    """
    if run.last_step is None:
        yield no_data()
        return
    if pairs := run.overlaps():
        yield told(
            "fail",
            pairs,
            "jobs at once",
            "Two jobs wrote one run at the same time, and the record holds both: the main line is that of one of them, "
            "from its first step on, and the other's rows are a branch. Both may be the training that was meant.",
            "Stop one of them. Read the other's rows as a branch (run.branches()), or give it a folder of its own.",
            run.last_step,
        )
    frames = [one for one in logged(run) if one.frame not in MANY_ROWS]
    rows = sum(len(one.steps) for one in frames)
    ground = Ground(rows, Threshold(1, None, "steps", SOURCE))
    found = [one for one in frames if one.repeats]
    if found:
        yield _twice(ground, found, run.imported)
    elif not pairs:
        yield _once(run, ground, frames)


def _twice(ground: Ground, found: Sequence[Logged], imported: Imported | None) -> Finding:
    steps = _union([twice for one in found for twice in one.repeats.values()])
    among = _union([one.steps for one in found])
    ranks = sorted({rank for one in found for rank in one.repeats})
    places = list(runs_of(steps, among))
    more = f" and {len(places) - MOST_NAMED:,} more places" if len(places) > MOST_NAMED else ""
    said = ", ".join(span(place) for place in places[:MOST_NAMED])
    several = f"by {len(ranks):,} ranks, of them rank {ranks[0]}" if len(ranks) > 1 else f"by rank {ranks[0]}"
    by = "in the imported log" if imported else several
    return ground.alarm(
        f"{said[0].upper()}{said[1:]}{more} were written twice {by}; the last row of each counts, and none is added "
        "to another.",
        Statistic("steps written twice", len(steps), "steps"),
        Spell(int(steps[0]), int(steps[-1]), ongoing=bool(steps[-1] >= among[-1])),
        evidence=[],
        means=f"Several jobs or ranks may have written one log. {' '.join(imported.notes)}".rstrip()
        if imported
        else "The job repeated these steps without telling that it went back (a loop that was started again, a log "
        "that was joined with itself). The rows before them are of weights that the later rows may not have followed.",
        do="Import the log of each job by itself, and look which of the two rows is the truth."
        if imported
        else "Resume with the step that the checkpoint has (tv.attach finds it in the optimizer; "
        "RunWriter.rewind(step) says it), so that what was left becomes a branch.",
        onset="exact: the first step with two rows of one rank",
        details={
            "places": [[int(place[0]), int(place[-1]), len(place)] for place in places[:50]],
            "frames": sorted({one.frame for one in found}),
            "ranks": ranks[:50],
        },
        level="warn",
    )


def _once(run: Run, ground: Ground, frames: Sequence[Logged]) -> Finding:
    branches = run.branches()
    left = ""
    if len(branches):
        first, last = int(branches["from_step"].min()), int(branches["to_step"].max())
        one = len(branches) == 1
        left = (
            f" Apart from these, {count(len(branches), 'attempt')} that {'was' if one else 'were'} left for an earlier "
            f"step {'is a branch' if one else 'are branches'}, of steps {first:,} to {last:,}."
        )
    imported = run.imported
    if imported is not None and imported.notes:
        return ground.unknown(
            f"No step has two rows on the main line; of the log itself the import says: {imported.notes[0]}{left}",
            " ".join(imported.notes),
            "Look at the log where this is not as expected.",
        )
    return ground.passed(
        f"None of {ground.n:,} steps with rows in {count(len({one.frame for one in frames}), 'frame')} has two rows of "
        f"one rank.{left}",
        Statistic("steps written twice", 0, "steps"),
        "Every value is made of one row a rank. No job wrote beside another one, as far as the times of rows tell.",
    )


def _union(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate(parts))
