"""One look at a run: what is wrong with it now, as alarms with ids that outlive the look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checks.judge import Report, run_checks
from checks.triage.identity import Known, match, named
from checks.watch.alarms import Alarm
from trainvitals.store.remarks import standing

if TYPE_CHECKING:
    from checks.finding import Finding, Incident
    from trainvitals.store import Run

MOST_KNOWN = 500


def judged(
    run: Run, known: Sequence[Known], settings: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[Known], list[Alarm], Report]:
    """Judge a run as of its last refresh: incidents to remember, an alarm each, and the report."""
    report = run_checks(run, settings=settings)
    every = [i for i in report.incidents if not _of_silence(i, report.findings)]
    found = match(known, every, report.findings)
    alarms = [_alarm(k, i, report.findings) for k, i in zip(found, every, strict=True)]
    ids = {k.id for k in found}
    # What is not found at this look may be again at the next, and is then the same incident.
    kept = [k for k in known if k.id not in ids] + found
    return kept[-MOST_KNOWN:], alarms, report


def _of_silence(incident: Incident, findings: Sequence[Finding]) -> bool:
    """Whether all that is wrong is that nothing comes: the watch tells that by the run's own pace."""
    return all(findings[i].check == "telemetry.health" and findings[i].statistic is not None
               and findings[i].statistic.name == "silent runs" for i in incident.findings)  # type: ignore[union-attr]  # fmt: skip


def _alarm(known: Known, incident: Incident, findings: Sequence[Finding]) -> Alarm:
    first = findings[incident.findings[0]]
    return Alarm(known.id, incident.level, first.check, incident.steps[0], incident.summary, first.what_to_do,
                 incident.ongoing, incident.areas)  # fmt: skip


def muted(run: Run, incident: str, known: Sequence[Known], now: float) -> tuple[bool, bool]:
    """Whether people muted an incident (or the run), and whether they acknowledged it.

    `known` holds what is remembered of the judge's incidents: people may have another look's id of the same one. A
    store that does not answer mutes nothing.
    """
    try:
        remarks = run.remarks()
    except (OSError, ValueError):
        return False, False
    this = next((k for k in known if k.id == incident), None)
    if this is not None:
        remarks = [replace(r, incident=incident) if r.incident and named(this, r.incident) else r for r in remarks]
    now_holds = standing(remarks, incident, now)
    return now_holds.mute is not None, now_holds.ack is not None
