"""telemetry.health: whether the run's own record can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Level, Statistic, Threshold
from checks.registry import check

if TYPE_CHECKING:
    from trainvitals.store import Run

_PARTLY: tuple[Level, str, str] = (
    "warn",
    "A collector could not read all it is meant to, so signals of this family are missing or partial.",
    "Follow the event's message; the collectors' page of the documentation lists what each needs.",
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
    "router_unread": _PARTLY,
    "router_unaligned": _PARTLY,
    "loss_unseen": _PARTLY,
    "loss_unaligned": _PARTLY,
    "loss_twice": _PARTLY,
    "loss_ignored": _PARTLY,
    "batch_unseen": _PARTLY,
    "domains_unknown": _PARTLY,
}
"""Kind of event -> level, what it means, what to do."""

SOURCE = "convention: telemetry is whole, or it says so"


@check("telemetry.health", area="telemetry")
def health(run: Run) -> Iterator[Finding]:
    """The record has holes: collectors that failed, rows that were lost, ranks or files that are missing, silence.

    Why it matters: every other answer rests on this record. How to read it: one finding per kind of hole; none
    means that all ranks wrote all they were asked to.
    """
    found = [*_silence(run), *_events(run), *_problems(run)]
    if not found and run.last_step is None:
        yield Finding(
            level="unknown",
            summary="The run holds no data yet.",
            what_it_means="Nothing has been written.",
            what_to_do="Wait for the first flush, or check that this is the run folder of the job.",
        )
    elif not found:
        yield Finding(
            level="pass",
            n=int(run.last_step or 0),
            summary="The record is whole.",
            steps=(0, int(run.last_step or 0)),
            statistic=Statistic("holes", 0, "holes"),
            threshold=_threshold(),
            what_it_means="All ranks wrote, nothing was lost or disabled.",
            what_to_do="Nothing.",
        )
    yield from found


def _threshold() -> Threshold:
    return Threshold(1, 1, "holes", SOURCE)


def _silence(run: Run) -> Iterator[Finding]:
    if run.status == "silent":
        last = int(run.last_step or 0)
        yield Finding(
            level="fail",
            summary=f"No data came after step {last:,}, and the run did not end in order.",
            steps=(last, last),
            ongoing=True,
            n=1,
            statistic=Statistic("silent runs", 1, "runs"),
            threshold=_threshold(),
            what_it_means="The job is dead, hung, or cannot write to the run folder.",
            what_to_do="Look at the job's log and its scheduler; resume from the last checkpoint.",
            details={"onset": {"method": "last stored row"}},
        )


def _events(run: Run) -> Iterator[Finding]:
    events = run.events()
    for kind, (level, meaning, advice) in BAD_EVENTS.items():
        of_kind = events[events["kind"] == kind]
        if of_kind.empty:
            continue
        steps = of_kind["step"].dropna()
        messages = list(dict.fromkeys(str(m) for m in of_kind["message"]))
        span = (int(steps.min()), int(max(steps.max(), run.last_step or 0))) if len(steps) else None
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        yield Finding(
            level=level,
            summary=f"{messages[0].rstrip('.') or kind}{more}.",
            steps=span,
            ongoing=True,
            n=len(of_kind),
            statistic=Statistic(f"{kind} events", len(of_kind), "events"),
            threshold=_threshold(),
            what_it_means=meaning,
            what_to_do=advice,
            details={"messages": messages[:20], "kind": kind, "onset": {"method": "the event's step"}},
        )


def _problems(run: Run) -> Iterator[Finding]:
    # Dropped rows come as an event too and were told there.
    problems = [p for p in run.problems() if "rows dropped" not in p]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        yield Finding(
            level="warn",
            summary=f"{problems[0].rstrip('.')}{more}.",
            n=len(problems),
            ongoing=True,
            statistic=Statistic("problems", len(problems), "problems"),
            threshold=_threshold(),
            what_it_means="Parts of the record are missing; sums are over what could be read.",
            what_to_do="Check the ranks that are missing and the disk; torn ends of killed writers need no repair.",
            details={"problems": problems[:50]},
        )
