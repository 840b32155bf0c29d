"""The judging process: reads requests from standard input and answers with reports, one JSON object a line each.

Before a report that takes a while come lines that are none: what was stored of an earlier state of the run, and how
many checks have answered.

    echo '{"path": "runs/demo", "version": ""}' | python -m dashboard.server.judging

A process of its own, at low priority, because checks over a long run take seconds of computing and gigabytes for a
moment: neither should be felt by the pages, and the memory goes back when the run is done with.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from checks import Finding, Incident, Moved, Report, Verdict, all_checks, run_checks
from checks.judge import incidents, lag_steps, verdict
from checks.judged_by import judged_by
from checks.policy import Policy, read
from checks.scaling.forecast_log import keep_found
from trainvitals.errors import TrainVitalsError
from trainvitals.store import Run, open_run
from trainvitals.untrusted import bounded, misfit

NICENESS = 10

_MAYBE_TEXT, _NUMBER = (str, type(None)), (int, float, str)
"""A number that is not finite is a string."""
_LIMIT = (*_NUMBER, type(None))
_STEPS = ([int], type(None))
_STORED = {
    **dict.fromkeys(("check", "area", "level", "summary", "what_it_means", "what_to_do"), str),
    "steps": _STEPS, "onset": _STEPS, "ongoing": bool, "n": int, "details": dict,
    "statistic": ({"name": str, "value": _NUMBER, "unit": str, "low": _LIMIT, "high": _LIMIT}, type(None)),
    "threshold": ({"unit": str, "source": str, "warn": _LIMIT, "fail": _LIMIT}, type(None)),
    "evidence": [{"signal": str, "steps": _STEPS, "label": _MAYBE_TEXT}],
    "masked": [{"kind": str, "step": int, "until": int}],
}  # fmt: skip
"""What the board needs of a finding in a run's folder, which anybody may have written."""


POLICY_VARIABLE = "TRAINVITALS_POLICY"
"""File with the thresholds that every run of the board is judged by; the shipped ones where it is not set."""


def main() -> None:
    """Answer until standard input ends."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    # A library that prints must not write between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        request = json.loads(line)

        def tell(said: dict[str, Any]) -> None:
            print(json.dumps(said), file=answers, flush=True)

        try:
            tell(answer(runs, request["path"], request["version"], tell))
        except BrokenPipeError:  # the board ended while the run was being judged
            with contextlib.suppress(BrokenPipeError):
                answers.close()
            return


def answer(
    runs: dict[str, Run], path: str, judged_version: str, tell: Callable[[dict[str, Any]], None] = lambda said: None
) -> dict[str, Any]:
    """A report as JSON, {"same": true} where the run has not changed since `judged_version`, or {"error": why}.

    `runs` keeps live runs open between requests. `tell` is given {"stored": report} once, where nothing was judged yet
    and findings of an earlier version are at hand, and {"done": n, "of": m} after each check.
    """
    try:
        run = runs.pop(path, None) or open_run(path)
        run.refresh()
        policy = policy_of_board()
        asked = stamp(run.version, run.status)
        report = None if asked == judged_version else _report(run, asked, judged_version, policy, tell)
        if run.status in ("live", "unknown"):
            runs[path] = run
        return {"same": True} if report is None else _plain(report)
    except (TrainVitalsError, OSError) as error:
        return {"error": str(error)}
    # A fault in a check must leave the board without verdicts, not without its judge.
    except Exception as error:
        traceback.print_exc()
        return {
            "error": f"The checks failed with {type(error).__name__}; the server's log has the details. The run itself "
            "is not affected."
        }


def stamp(version: str, status: str) -> str:
    """What a report belongs to: a run that goes silent is judged once more, though nothing was stored since."""
    return f"{version} silent" if status == "silent" else version


def report_of(raw: dict[str, Any]) -> Report:
    """The report that `answer` put into JSON."""
    verdicts = {area: Verdict(**told) for area, told in raw["verdicts"].items()}
    return Report(
        tuple(map(_finding, raw["findings"])),
        tuple(map(_incident, raw["incidents"])),
        verdicts,
        raw["version"],
        raw["step"],
    )


def _plain(report: Report) -> dict[str, Any]:
    return report.summary_json() | {"findings": report.to_json()}


def _report(
    run: Run, asked: str, judged_version: str, policy: Policy, tell: Callable[[dict[str, Any]], None]
) -> Report:
    stored = _stored(run, policy)
    if stored is not None and stored.version == run.version and not _older_than_silence(run, stored):
        return replace(stored, version=asked)
    if stored is not None and not judged_version:
        tell({"stored": _plain(replace(stored, version=f"{stored.version} stored"))})
    return replace(_fresh(run, policy, tell), version=asked)


def policy_of_board() -> Policy:
    """The policy that the environment names. Raises UsageError."""
    path = os.environ.get(POLICY_VARIABLE)
    return read(path) if path else Policy()


def _fresh(run: Run, policy: Policy, tell: Callable[[dict[str, Any]], None]) -> Report:
    report = run_checks(run, settings=policy.settings, progress=lambda done, of: tell({"done": done, "of": of}))
    try:
        run.save_findings(report.to_json(), judged_by(policy.settings))
        keep_found(run, report.findings)
    except OSError as error:
        print(f"findings of {run.path} are shown but not stored: {error}", file=sys.stderr)
    return report


def _stored(run: Run, policy: Policy) -> Report | None:
    """The report that the stored findings make up, of whatever version, if they are of the judge of today."""
    record = run.stored_findings()
    version, step = record.get("version"), record.get("step")
    if not record.get("findings") or record.get("judge") != judged_by(policy.settings):
        return None
    if not isinstance(version, str) or not isinstance(step, int | None):
        return None
    try:
        if misfit(bounded(record["findings"]), [_STORED]):
            return None
        findings = tuple(map(_finding, record["findings"]))
        told = {(f.check, f.area) for f in findings}
        needed = {(check.name, check.area) for check in all_checks() if not check.optional}
        if not needed <= told <= {(check.name, check.area) for check in all_checks()}:
            return None
        areas = dict.fromkeys(check.area for check in all_checks())
        verdicts = {area: verdict(area, [f for f in findings if f.area == area]) for area in areas}
        return Report(findings, incidents(findings, lag_steps(run)), verdicts, version, step)
    except (TypeError, ValueError, LookupError, AttributeError):
        return None


def _older_than_silence(run: Run, report: Report) -> bool:
    """Whether a run that has gone silent was alive when this was said."""
    told = any(f.check == "telemetry.health" and f.level == "fail" for f in report.findings)
    return run.status == "silent" and not told


def _finding(raw: dict[str, Any]) -> Finding:
    return Finding.from_json({key: value for key, value in raw.items() if key != "incident"})


def _incident(raw: dict[str, Any]) -> Incident:
    first, last = raw["steps"]
    return Incident(
        level=raw["level"],
        summary=raw["summary"],
        steps=(first, last),
        ongoing=raw["ongoing"],
        areas=tuple(raw["areas"]),
        order=tuple(Moved(**moved) for moved in raw["order"]),
        findings=tuple(raw["findings"]),
        twins=str(raw.get("twins", "")),
    )


if __name__ == "__main__":
    main()
