"""telemetry.health: whether the job still writes, and what its writers told that they lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from checks.finding import Finding, Level, Statistic
from checks.ground import Ground
from checks.registry import check
from checks.telemetry._record import ANY, count, no_data, one_or_more
from trainvitals.catalogue import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

    from trainvitals.store import Run

_PARTLY: tuple[Level, str, str] = (
    "warn",
    "The tap could not see all that it is meant to, so signals of this family are missing or partial.",
    "Follow the event's message; docs/collectors.md says what each collector needs.",
)

_NAMES = (
    "Something that the training script logs is not in the record under the name or as the value that it gave.",
    "Read the message; rename the number, or log a plain number.",
)

BAD_EVENTS: dict[str, tuple[Level, str, str]] = {
    "collector_disabled": (
        "fail",
        "A collector threw and was taken out; its signals end there.",
        "Read the event's error, mend or switch off that collector, and attach again at the next restart.",
    ),
    "exception": (
        "fail",
        "The training script ended with an error.",
        "Read the error; resume from the last checkpoint.",
    ),
    "rows_dropped": (
        "warn",
        "The disk did not keep up, so sums and counts of these steps are missing.",
        "Write the run to a faster disk or raise the collectors' cadence.",
    ),
    "rows_gone": (
        "warn",
        "Rows of these steps are not in the record; sums and counts lack them.",
        "Find out who deletes files of a run that is written, and stop that.",
    ),
    "events_dropped": (
        "warn",
        "Events were dropped, so marks on the time axis are missing.",
        "Write the run to a faster disk, or log fewer events.",
    ),
    "rows_late": (
        "warn",
        "The disk took rows much later than promised; a kill at that time would have lost them.",
        "Write the run to a faster or less loaded disk.",
    ),
    "folder_lost": (
        "fail",
        "The folder was deleted, moved or unmounted under the job; what it held before is not here.",
        "Look for the old folder (moved, or below a mount point), and merge it or keep it beside this one.",
    ),
    "number_refused": ("warn", *_NAMES),
    "name_taken": ("warn", *_NAMES),
    "router_missed": (
        "warn",
        "The model is a mixture of experts whose routers were not found, so no routing check can run.",
        "Report the model class; name the routers when attaching, if the version allows it.",
    ),
    "router_uneven": (
        "warn",
        "Some layers' routers are left out of the record.",
        "Judge these layers by other means.",
    ),
}
"""Kind of event -> level, what it means, what to do. Any other event that is marked `unknown` says what the tap could
not see."""


@check("telemetry.health", area="telemetry")
def health(run: Run) -> Iterator[Finding]:
    """The job went silent, or its writers told of something that is not in the record.

    Why it matters: every other answer rests on this record. How to read it: a run that did not end in order and no
    longer grows is silent; collectors that failed, rows that were dropped and names that were refused are events of
    the writers. What nobody told is for the other checks of this area: holes, repeats, ranks, damage, coverage. An
    imported log tells of no loss of its own, and the answer is unknown.
    """
    if run.last_step is None and not len(_bad_kinds(run.events())):
        yield no_data()
        return
    found = [*_silence(run), *_events(run)]
    yield from found
    if found:
        return
    events, extent = run.events(), run.extent()
    ground = Ground(extent.rows, ANY)
    if run.imported is not None:
        yield ground.unknown(
            f"{extent.rows:,} rows were imported from {run.imported.title}, which does not tell what its writer lost.",
            "The import lost nothing that it knows of. What the job's own logger dropped or left out is not in a log.",
            "Log with tv.attach(model, ...), which tells what it loses.",
        )
        return
    state = {"finished": "ended in order", "live": "still writes"}.get(run.status, run.status)
    attempts = f" in {extent.attempts} attempts" if extent.attempts > 1 else ""
    yield ground.passed(
        f"The run {state}, and no writer told of a loss in {extent.rows:,} rows of {count(extent.ranks, 'rank')}"
        f"{attempts} ({count(len(events), 'event')}).",
        Statistic("losses that were told", 0, "events"),
        "No collector failed, no row was dropped and no name refused, as far as the writers noticed.",
    )


def _silence(run: Run) -> Iterator[Finding]:
    seen, last = run.liveness, int(run.last_step or 0)
    if seen.status == "unknown":
        yield Finding(
            level="unknown",
            summary=f"Whether the job still writes cannot be told: {seen.reason}.",
            steps=(last, last) if run.last_step is not None else None,
            what_it_means="The run did not end in order so far. It may be at work, or dead since its last row.",
            what_to_do="Look again in a minute with the board, which watches the folder grow; check the hosts' clocks.",
        )
    if seen.status == "silent":
        yield Finding(
            level="fail",
            summary=f"No data came after step {last:,}, and the run did not end in order: {seen.reason}.",
            steps=(last, last),
            ongoing=True,
            n=1,
            statistic=Statistic("silent runs", 1, "runs"),
            threshold=ANY,
            what_it_means="The job is dead, hung, or cannot write to the run folder.",
            what_to_do="Look at the job's log and its scheduler; resume from the last checkpoint.",
            details={"onset": {"method": "last stored row"}},
        )


def _events(run: Run) -> Iterator[Finding]:
    events = run.events()
    for kind in _bad_kinds(events):
        level, meaning, advice = BAD_EVENTS.get(kind, _PARTLY)
        of_kind = events[events["kind"] == kind]
        steps = of_kind["step"].dropna()
        messages = list(dict.fromkeys(str(m) for m in of_kind["message"]))
        span = (int(steps.min()), int(max(steps.max(), run.last_step or 0))) if len(steps) else None
        yield Finding(
            level=level,
            summary=one_or_more([messages[0] or kind, *messages[1:]]),
            steps=span,
            ongoing=True,
            n=len(of_kind),
            statistic=Statistic(f"{kind} events", len(of_kind), "events"),
            threshold=ANY,
            what_it_means=meaning,
            what_to_do=advice,
            details={"messages": messages[:20], "kind": kind, "onset": {"method": "the event's step"}},
        )


def _bad_kinds(events: pd.DataFrame) -> list[str]:
    """Kinds of events that say what the record lacks, known ones first."""
    marked = [isinstance(data, Mapping) and data.get(UNKNOWN) is True for data in events["data"]]
    found = set(events["kind"])
    others = dict.fromkeys(events["kind"][marked])
    return [*[kind for kind in BAD_EVENTS if kind in found], *[kind for kind in others if kind not in BAD_EVENTS]]
