"""Of a task that fails: at which checkpoint it began, which kind of item was lost, and what the training did then.

    facts = explain(run, policy, evidence, decided)       # kept as evidence/company.json
    lines = told(facts)                                   # reasons of the decision

Nothing of it decides anything: it stands in company of the failure, and correlation is called correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.evals.began import began
from checks.evals.clusters import error_clusters
from checks.evals.trend import trends
from checks.evals.walk_back import Kind, moved, seen
from checks.review.evidence import Evidence
from checks.review.row import Row, points
from trainvitals.errors import TrainVitalsError
from trainvitals.evals import Evals, read_evals
from trainvitals.store import open_run

MOST_CLUSTERS, MOST_OF_A_KIND = 3, 2
ORDER: tuple[Kind, ...] = ("mix", "loss", "rate", "routing", "incident")


def failed_tasks(rows: Sequence[Row]) -> list[str]:
    """Tasks whose rows fail, or a slice of which does."""
    failed = [r for r in rows if r.verdict == "fail" and r.kind in ("task", "slice")]
    return list(dict.fromkeys(r.name.partition(".")[2] for r in failed))


def explain(run: Path, evidence: Evidence, rows: Sequence[Row], findings: Mapping[str, Any]) -> dict[str, Any]:
    """What goes with the failures; empty where no task fails, or the two checkpoints are not of one run.

    Args:
        run: the run folder.
        evidence: of the review.
        rows: of the decision.
        findings: the judge's answer about the training.
    """
    failed = failed_tasks(rows)
    baseline, candidate = evidence.facts.get("baseline"), evidence.facts.get("candidate")
    if not failed or not baseline or not candidate or evidence.facts.get("baseline_run"):
        return {}
    evals = read_evals(run)
    falls = _falls(evals, failed, evidence)
    found = error_clusters(evals, baseline, candidate)
    kinds = [{"name": c.name, "lost": c.lost, "right": c.right, "lift": c.lift, "gain": c.gain, "tasks": list(c.tasks)}
             for c in found.clusters if set(c.tasks) & set(failed)][:MOST_CLUSTERS]  # fmt: skip
    return {"falls": falls, "clusters": kinds, "moved": _moved(run, falls, evidence, findings)}


def _falls(evals: Evals, failed: Sequence[str], evidence: Evidence) -> list[dict[str, Any]]:
    low, high = (evidence.facts.get("steps") or [None, None])[:2]
    found = []
    for one in trends(evals, tasks=failed):
        fall = one.fall
        # A fall before the baseline, or behind the candidate, is another one.
        if fall is not None and low is not None and high is not None and low < fall.latest_step and \
                fall.earliest_step < high:
            found.append({"task": one.task, "start": fall.start, "start_step": fall.start_step,
                          "last_good": fall.last_good, "steps": [fall.earliest_step, fall.latest_step],
                          "size": fall.size, "p": fall.p, "checkpoints": len(one.points)})  # fmt: skip
    for task in failed:
        if not any(fall["task"] == task for fall in found):
            begun = began(evals, task, str(evidence.facts["baseline"]), str(evidence.facts["candidate"]))
            if begun is not None:
                found.append({"task": task, "start": begun.checkpoint, "start_step": begun.step, "last_good": "",
                              "steps": [begun.last_step, begun.step], "size": begun.size, "p": None,
                              "checkpoints": 0})  # fmt: skip
    return found


def _moved(run: Path, falls: Sequence[Mapping[str, Any]], evidence: Evidence, findings: Mapping[str, Any]
           ) -> dict[str, Any]:
    steps = [fall["steps"] for fall in falls] or [evidence.facts.get("steps") or [None, None]]
    low, high = steps[0]
    if low is None or high is None or low >= high:
        return {}
    try:
        record = open_run(str(run))
        found, looked, last = moved(record, low, high, findings), seen(record, low, high), record.last_step
    except TrainVitalsError as error:
        return {"steps": [low, high], "error": str(error)[:200], "lines": [], "seen": [], "last_step": None}
    told = [one for kind in ORDER for one in [m for m in found if m.kind == kind][:MOST_OF_A_KIND]]
    return {"steps": [low, high], "error": "", "lines": [one.sentence.rstrip(".") for one in told], "seen": looked,
            "last_step": last}  # fmt: skip


def told(facts: Mapping[str, Any]) -> list[str]:
    """Sentences for the reasons."""
    lines = [_began(fall) for fall in facts.get("falls", [])]
    lines += [f"Of the lost items many are of one kind, {c['name']}: {c['lost']} of {c['right']} that were right are "
              f"wrong now, {c['lift']:.2g} times the share of the rest." for c in facts.get("clusters", [])]
    if found := facts.get("moved"):
        lines.append(_company(found))
    return lines


def _company(found: Mapping[str, Any]) -> str:
    """What moved in the steps, or of what it is said that it did not, or why nothing can be said."""
    low, high = found["steps"]
    steps, last = f"In steps {low:,} to {high:,}", found.get("last_step")
    short = f" The record ends at step {last:,}, before the end of these steps." if last is not None and last < high \
        else ""
    if found["lines"]:
        return (f"{steps} the training record shows, as company and not as proven cause: {'; '.join(found['lines'])}."
                f"{short}")  # fmt: skip
    if found["error"]:
        return f"What the training did in steps {low:,} to {high:,} is not known: {found['error'].rstrip('.')}."
    if "seen" not in found:
        return f"{steps} nothing is told to have moved, and the evidence does not say what was looked at."
    if last is None or last <= low:
        where = "holds no step" if last is None else f"ends at step {last:,}"
        return f"What the training did in steps {low:,} to {high:,} is not known: its record {where}."
    if not found["seen"]:
        return (f"{steps} the training record holds neither the data mix nor routing, the learning rate with its plan "
                f"or validation losses by domain, so what moved is not known.{short}")  # fmt: skip
    held = ", ".join(found["seen"])
    return f"{steps} nothing of what the training record holds moved beyond its noise: {held}.{short}"


def _began(fall: Mapping[str, Any]) -> str:
    low, high = fall["steps"]
    if fall["checkpoints"]:
        return (f"{fall['task']} fell from checkpoint {fall['start']} on ({points(fall['size'])}, seen over "
                f"{fall['checkpoints']} checkpoints; it began between steps {low:,} and {high:,}, 95 %).")
    return (f"{fall['task']} is worse than the baseline from checkpoint {fall['start']} on, without a break "
            f"({points(fall['size'])} there, each checkpoint at 5 %); the one before, of step {low:,}, is not worse "
            "beyond chance.")
