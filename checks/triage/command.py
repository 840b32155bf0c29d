"""`trainvitals incident`: what is wrong with a run, incident by incident, and what people say of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from checks.finding import Finding, Incident
from checks.judge import Report, run_checks
from checks.policy import Policy, read
from checks.triage.identity import Known, match, named
from trainvitals.anything import open_run
from trainvitals.errors import UsageError
from trainvitals.store.remarks import Remark, Standing, say, standing

if TYPE_CHECKING:
    from trainvitals.store import Run

EXIT_CODES = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}


@click.command()
@click.argument("run_path", metavar="RUN", type=click.Path())
@click.argument("which", metavar="[N|ID]", required=False)
@click.option("--note", metavar="TEXT", help="Say something of the incident; everybody who opens the run reads it.")
@click.option("--ack", is_flag=True, help="Take it on: `watch` then tells only its failure and its end.")
@click.option("--mute", "hours", type=click.FloatRange(min=0, min_open=True), metavar="HOURS",
              help="Keep `watch` from speaking of it for so long.")
@click.option("--unmute", is_flag=True, help="End a mute.")
@click.option("--who", default="", metavar="NAME", help="[the user of the operating system]")
@click.option("--policy", type=click.Path(), envvar="TRAINVITALS_POLICY", metavar="FILE",
              help="TOML file with thresholds in place of the shipped ones, as `calibrate` writes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def incident(run_path: str, which: str | None, note: str | None, ack: bool, hours: float | None, unmute: bool,
             who: str, policy: str | None, as_json: bool) -> None:  # fmt: skip
    """List the incidents of a run, or show one: what moved first, what followed, what to do.

    RUN is a run folder, its URL, or another tool's log. N is an incident's place in the list, ID its name there, which
    stays while the run grows.

    Example: trainvitals incident runs/mine learning-412 --ack --note "bad shard, going back"
    """
    run = open_run(run_path)
    report = run_checks(run, settings=(read(policy) if policy else Policy()).settings)
    known = match([], report.incidents, report.findings)
    chosen = range(len(known)) if which is None else [_chosen(known, which)]
    if note or ack or hours or unmute:
        if which is None:
            raise UsageError("Of which incident? Give its number or id, as `trainvitals incident RUN` lists them.")
        _say(run.path, known[chosen[0]].id, note, ack, hours, unmute, who)
    remarks = run.remarks()
    told = [_told(report, known[i], report.incidents[i], remarks) for i in chosen]
    if as_json:
        answer: Any = {"run": run.path, "step": report.step, "level": report.level, "incidents": told}
        click.echo(json.dumps(answer, indent=2, allow_nan=False))
    elif which is None:
        click.echo(_list(run, report, told))
    else:
        click.echo(_one(report.incidents[chosen[0]], report.findings, told[0]))
    level = report.level if which is None else report.incidents[chosen[0]].level
    sys.exit(EXIT_CODES[level])


def _chosen(known: Sequence[Known], which: str) -> int:
    if which.isdecimal() and 1 <= int(which[:9]) <= len(known) and len(which) < 9:
        return int(which) - 1
    found = [i for i, one in enumerate(known) if one.id == which] or [
        i for i, one in enumerate(known) if named(one, which)]  # fmt: skip
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{i} {k.id}" for i, k in enumerate(known[:10], 1)) or "none"
    raise UsageError(f"No incident of this run is called {which[:60]!r}. Its incidents: {names}.")


def _say(path: str, id: str, note: str | None, ack: bool, hours: float | None, unmute: bool, who: str) -> None:
    if hours is not None and unmute:
        raise UsageError("--mute and --unmute exclude each other.")
    text = note or ""
    if ack:
        say(path, "ack", id, text, who=who)
    if hours is not None or unmute:
        say(path, "unmute" if unmute else "mute", id, "" if ack else text, who=who, hours=hours)
    elif note and not ack:
        say(path, "note", id, text, who=who)


def _told(report: Report, known: Known, found: Incident, remarks: Sequence[Remark]) -> dict[str, Any]:
    """One incident with its findings and remarks, as strict JSON."""
    ours = [replace(r, incident=known.id) if r.incident and named(known, r.incident) else r for r in remarks]
    members = [report.findings[i].to_json() for i in found.findings]
    return {"id": known.id, **found.to_json(), "findings": members,
            "remarks": [r.to_json() for r in ours if r.incident in ("", known.id)],
            "standing": _words(standing(ours, known.id, time.time()))}


def _words(holds: Standing) -> str:
    parts = [f"taken on by {holds.ack.who}"] if holds.ack else []
    if holds.mute:
        until = f" until {_when(holds.mute.until)}" if holds.mute.until else ""
        parts.append(f"muted by {holds.mute.who}{until}")
    return ", ".join(parts)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _list(run: Run, report: Report, told: Sequence[dict[str, Any]]) -> str:
    if not told:
        return f"{run.name}: no incident as of step {report.step or 0:,}; the verdict is {report.level}."
    width = max(len(t["id"]) for t in told)
    lines = []
    for n, t in enumerate(told, 1):
        state = "ongoing" if t["ongoing"] else "over"
        first, last = t["steps"]
        standing_words = f"  [{t['standing']}]" if t["standing"] else ""
        lines.append(f"{n:>2}  {t['id']:{width}}  {t['level']:4}  steps {first:,}-{last:,}, {state}{standing_words}\n"
                     f"    {t['summary']}")  # fmt: skip
    return "\n".join(lines)


def _one(found: Incident, findings: Sequence[Finding], told: dict[str, Any]) -> str:
    first, last = found.steps
    lines = [f"{told['id']}  {found.level}, steps {first:,}-{last:,}, {'ongoing' if found.ongoing else 'over'}"]
    lines += [told["standing"]] if told["standing"] else []
    for moved, i in zip(found.order, found.findings, strict=True):
        finding = findings[i]
        at = f"{finding.onset[0]:,}-{finding.onset[1]:,}" if finding.onset else f"{moved.step:,}"
        lines.append(f"  step {at:>13}  {finding.check:20} {finding.summary}")
    lines += [f"Twins: {found.twins}"] if found.twins else []
    lines.append(f"Do this: {findings[found.findings[0]].what_to_do}")
    for r in told["remarks"]:
        lines.append(f"  {_when(r['time'])} {r['who']}: {r['kind']}{': ' + r['text'] if r['text'] else ''}")
    return "\n".join(lines)
