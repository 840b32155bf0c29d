"""telemetry.ranks: whether all ranks are in the record, at the same steps and by the same clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic
from checks.ground import Ground, Spell
from checks.reading import has, vector
from checks.registry import check
from checks.telemetry._record import ANY, logged, no_data, one_or_more, span, told

if TYPE_CHECKING:
    from trainvitals.store import Run

SKIPPED = "skipped/gradients_by_rank"
OWN_TIME = ("system",)
"""Frames of which each rank writes a row when its own clock says so."""


@check("telemetry.ranks", area="telemetry", uses=(SKIPPED,))
def ranks(run: Run) -> Iterator[Finding]:
    """Ranks that wrote nothing, lack rows that others have, count their steps apart, or disagree on the time.

    Why it matters: a sum over ranks is right only where all of them are in it, at the same step. How to read it: the
    ranks of the last attempt against the world size that they state, and the rows of each against those of the others.
    An imported log has the one rank that wrote it, whatever the job had: there the answer is unknown.
    """
    if run.last_step is None:
        yield no_data()
        return
    found = [*_lacking(run), *_apart(run), *_clocks(run)]
    yield from found
    if found:
        return
    last = run.attempts[-1]
    rows = sum(len(one.steps) for one in logged(run))
    ground = Ground(rows, ANY)
    if run.imported is not None:
        yield ground.unknown(
            f"The log was written by one process; how many ranks trained is not in {run.imported.title}.",
            "What the other ranks did is not in the record.",
            "Log with tv.attach(model, ...) on every rank.",
        )
        return
    yield ground.passed(
        f"All {last.world_size:,} ranks that the last attempt states wrote, at the same steps."
        if last.world_size > 1
        else "The last attempt states one rank, and it wrote.",
        Statistic("ranks or rows missing", 0, "places"),
        "Sums over ranks hold all of them. A job that told a world size of one on every rank would look like this, too."
        if last.world_size == 1
        else "Sums over ranks hold all of them, and no clock contradicts another.",
    )


def _lacking(run: Run) -> Iterator[Finding]:
    """Ranks that belong to the last attempt and wrote nothing, and rows that some ranks have and others lack."""
    if silent := run.silent_ranks():
        yield told(
            "warn",
            silent,
            "ranks",
            "Sums are over the ranks that wrote, so they are too small; means are over the others.",
            "Find out whether these ranks run, and whether they reach the run folder.",
            run.last_step,
        )
    frames = [one for one in logged(run) if one.frame not in OWN_TIME]
    places = [
        (int(steps[0]), f"Rank {rank} has no row of {one.frame} at {len(steps):,} of {span(steps)}, which others have")
        for one in frames
        for rank, steps in one.lacking.items()
    ]
    if not places:
        return
    first, last = min(at for at, _ in places), int(run.last_step or 0)
    n = sum(len(steps) for one in frames for steps in one.lacking.values())
    ongoing = any(int(one.steps[-1]) == int(steps[-1]) for one in frames for steps in one.lacking.values())
    yield Ground(sum(len(one.steps) for one in frames), ANY).alarm(
        one_or_more([words for _, words in sorted(places)]),
        Statistic("rows missing", n, "rows"),
        Spell(first, max(first, last), ongoing),
        evidence=[],
        means="Sums over ranks are unknown at these steps, and means are over the others.",
        do="Look at the disk and the log of these ranks at that time.",
        onset="exact: the first step at which a rank lacks a row",
        details={"places": [words for _, words in sorted(places)[:50]]},
        level="warn",
    )


def _clocks(run: Run) -> Iterator[Finding]:
    if notes := run.clock_notes():
        yield told(
            "warn",
            notes,
            "clocks",
            "Times of rows and events of some hosts are off. Steps and the order of attempts do not depend on them.",
            "Have the hosts synchronise their clocks (NTP, chrony).",
            run.last_step,
        )


def _apart(run: Run) -> Iterator[Finding]:
    """Ranks that skipped different numbers of steps: each counts its own, so they no longer count together."""
    if not has(run, SKIPPED):
        return
    rows = vector(run, SKIPPED)
    skips = np.nan_to_num(rows.values).cumsum(axis=0)
    if skips.shape[1] < 2 or (skips[-1] == skips[-1, :1]).all():
        return
    least, most = int(skips[-1].argmin()), int(skips[-1].argmax())
    first = int(rows.steps[(skips != skips[:, :1]).any(axis=1)][0])
    yield Ground(len(rows), ANY).alarm(
        f"Rank {rows.labels[most]} skipped {skips[-1, most]:,.0f} optimizer step(s) and rank "
        f"{rows.labels[least]} {skips[-1, least]:,.0f}, since step {first:,}.",
        Statistic("steps apart", float(skips[-1].max() - skips[-1].min()), "steps"),
        Spell(first, max(first, int(run.last_step or first)), ongoing=True),
        evidence=[SKIPPED],
        means="Every rank counts its own steps, so from there on one step number holds updates that the ranks "
        "made at different times; if they hold copies of one model, the copies differ.",
        do="Let all ranks decide together whether to skip: reduce the scaler's overflow flag, or the loop's "
        "own test, over the ranks before optimizer.step().",
        details={"skips": dict(zip(rows.labels, skips[-1].tolist(), strict=True))},
        level="warn",
    )
