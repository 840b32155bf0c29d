"""GO, NO-GO or UNDECIDED, from the rows, and what would change it.

GO needs every row to pass: an intersection-union test, which needs no correction. NO-GO needs one row to fail, and rows
that test for a regression fail after Holm over all of them, since one blocked release is what a false alarm costs. What
is unknown blocks GO and is no NO-GO.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from checks.evals.paired import ALPHA, holm
from checks.review.evidence import Evidence
from checks.review.explain import told
from checks.review.machine_rows import cost_rows, incidents_between, latency_rows, training_rows
from checks.review.policy import UNWAIVABLE, UNWAIVABLE_CHECKS, Policy, Waiver
from checks.review.row import Row, unknown
from checks.review.safety_rows import safety_rows
from checks.review.tasks import task_rows

Decision = Literal["GO", "NO-GO", "UNDECIDED"]
EXIT_CODES = {"GO": 0, "NO-GO": 2, "UNDECIDED": 3}
SMALL = 0.5
"""Share of the margin from which a significant loss is a failure; below it is a warning; convention."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer."""

    decision: Decision
    reasons: tuple[str, ...]
    rows: tuple[Row, ...]
    what_would_change_it: tuple[str, ...]
    company: tuple[str, ...] = ()
    """What goes with a failure and decided nothing; the last of the reasons."""


def judge(policy: Policy, evidence: Evidence, today: dt.date) -> Decided:
    """The rows and the decision.

    Args:
        policy: what is asked.
        evidence: what there is.
        today: day (UTC) on which waivers must hold.
    """
    rows = [
        *task_rows(policy, evidence),
        *safety_rows(policy, evidence),
        *latency_rows(policy, evidence),
        *cost_rows(policy, evidence),
        *training_rows(policy, evidence),
    ]
    company = told(evidence.company) if evidence.company else incidents_between(evidence)
    return decide(_waived(_tested(rows), policy.waivers, today), company)


def decide(rows: Sequence[Row], company: Sequence[str] = ()) -> Decided:
    """The decision on rows. `company`: sentences that go with a failure and decide nothing."""
    failed = [r for r in rows if r.verdict == "fail"]
    blocked = [r for r in rows if r.verdict == "unknown"]
    warned = [r for r in rows if r.verdict == "warn"]
    good = any(r.verdict == "pass" and r.kind in ("task", "safety", "family") for r in rows)
    changes = [f"{r.name}: {r.change}" for r in (*failed, *blocked) if r.change]
    if failed:
        decision: Decision = "NO-GO"
    elif blocked or not good:
        decision = "UNDECIDED"
    else:
        decision = "GO"
    reasons = [f"{r.name}: {r.sentence}" for r in (*failed, *blocked, *warned)]
    if failed:
        reasons.extend(company)
    if not failed and not good:
        reasons.insert(0, "Nothing was judged that says whether the model is good: no task and no safety row passed.")
        changes.append("Name tasks or safety limits in the policy; `trainvitals review RUN --init` writes one.")
    if decision == "GO":
        counted = [r for r in rows if r.verdict in ("pass", "warn")]
        waived = sum(r.verdict == "waived" for r in rows)
        reasons.insert(0, f"All {len(counted)} requirements hold" + (f", {waived} more are waived." if waived else "."))
        changes = [f"{r.name}: {r.change}" for r in warned if r.change]
    return Decided(decision, tuple(reasons), tuple(rows), tuple(changes), tuple(company) if failed else ())


def _tested(rows: Sequence[Row]) -> list[Row]:
    """Rows that test for a regression, after Holm over all of them."""
    tested = [i for i, r in enumerate(rows) if r.p is not None]
    adjusted = dict(zip(tested, holm([float(rows[i].p or 0.0) for i in tested]), strict=True)) if tested else {}
    return [row if i not in adjusted else _after_holm(row.but(p_holm=adjusted[i])) for i, row in enumerate(rows)]


def _after_holm(row: Row) -> Row:
    if row.p_holm is None or row.p_holm > ALPHA or row.value is None or row.threshold is None:
        return row
    if row.kind == "latency":
        if row.verdict != "pass" and row.value >= SMALL * row.threshold:
            return row.but(verdict="fail", change="Make it faster: it is slower than the baseline beyond chance.")
        return row
    share = 1.0 if row.kind in ("slice", "safety") else SMALL
    beyond = row.value <= share * row.threshold and row.value < 0
    if beyond and (row.verdict != "pass" or row.kind in ("slice", "safety")):
        return row.but(
            verdict="fail",
            sentence=f"{row.sentence} The loss is beyond chance (p {row.p_holm:.1g} after Holm).",
            change="Mend the model: more items would only confirm the loss.",
        )
    if row.verdict == "pass" and row.kind in ("task", "family"):
        return row.but(
            verdict="warn",
            sentence=f"{row.sentence} A loss beyond chance (p {row.p_holm:.1g} after Holm), inside of the margin.",
        )
    return row


def _waived(rows: Sequence[Row], waivers: Sequence[Waiver], today: dt.date) -> list[Row]:
    """Rows with waivers applied; a waiver that does not hold is a row of its own, which blocks."""
    found = {row.name: row for row in rows}
    told: list[Row] = []
    for waiver in waivers:
        name, row = f"waiver.{waiver.row}", found.get(waiver.row)
        if row is None:
            told.append(
                unknown(
                    name,
                    "waiver",
                    f"The waiver of {waiver.row} is for no row of this review.",
                    "Mend its name, or take it out.",
                )
            )
        elif waiver.expires < today:
            told.append(
                unknown(
                    name,
                    "waiver",
                    f"The waiver of {waiver.row} ({waiver.owner}) expired on {waiver.expires}.",
                    "Renew it, or take it out.",
                )
            )
        elif waiver.created is not None and waiver.created > today:
            told.append(
                unknown(
                    name,
                    "waiver",
                    f"The waiver of {waiver.row} begins on {waiver.created}, after today.",
                    "Wait, or mend its date.",
                )
            )
        elif row.kind in UNWAIVABLE or row.source in UNWAIVABLE_CHECKS:
            told.append(
                unknown(
                    name,
                    "waiver",
                    f"{waiver.row} cannot be waived: tasks, safety and a loss that diverged "
                    "are what the release is about.",
                    "Take the waiver out, and mend what the row says.",
                )
            )
        elif row.verdict in ("fail", "unknown"):
            found[waiver.row] = row.but(
                verdict="waived",
                sentence=f"{row.sentence} Waived by {waiver.owner} until {waiver.expires}: {waiver.reason}",
            )
    return [*(found[row.name] for row in rows), *told]
