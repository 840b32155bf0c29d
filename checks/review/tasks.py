"""Rows of tasks and families: not inferior by more than the margin, and no significant loss hidden inside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from checks.evals.items import Aligned, NotComparable, align
from checks.evals.paired import ALPHA, Difference, paired_difference
from checks.review.evidence import Evidence
from checks.review.policy import FamilyRule, Policy, TaskRule
from checks.review.row import Row, points, unknown

LEAST_SLICE = 10
"""Items of a slice that is looked at by itself; convention."""
SLICE_MARGINS, SLICE_LEAST = 2.0, 0.1
"""A slice fails where it lost this many margins and this much, beyond chance: smaller moves of one subject are what
checkpoints do; convention."""
MOST_NEEDED = 10_000_000


@dataclass(frozen=True, slots=True)
class Compared:
    """One task's comparison."""

    rule: TaskRule
    difference: Difference
    aligned: Aligned
    family: str


def task_rows(policy: Policy, evidence: Evidence) -> list[Row]:
    """A row per task, per slice that stands out, per family, and the sum of all."""
    rows: list[Row] = []
    compared: dict[str, Compared] = {}
    for name, rule in policy.tasks.items():
        try:
            compared[name] = _compared(name, rule, policy, evidence)
        except NotComparable as problem:
            rows.append(unknown(f"task.{name}", "task", _sentence(problem), problem.change, threshold=rule.margin))
            continue
        rows.append(_task(name, compared[name], evidence.source(name)))
        rows.extend(_slices(name, compared[name]))
    rows.extend(_family(name, family, policy, compared) for name, family in policy.families.items())
    if len(compared) > 1 and "all" not in policy.families:
        rows.extend(_together(list(compared.values())))
    return rows


def _compared(name: str, rule: TaskRule, policy: Policy, evidence: Evidence) -> Compared:
    before, after = evidence.baseline.get(name), evidence.candidate.get(name)
    for who, sheet in (("candidate", after), ("baseline", before)):
        if sheet is None:
            raise NotComparable(f"the {who} has no results of {name}", f"Evaluate the {who} on {name} and import it.")
    assert before is not None and after is not None
    if copied := evidence.copies.get(name):
        raise NotComparable(
            f"the candidate's results are those of {copied}, value for value: a copy, not a measurement",
            "Evaluate the candidate itself.",
        )
    clean = None
    if rule.audit:
        audited = evidence.audits.get(name)
        if audited is None:
            raise NotComparable(f"the audit {rule.audit} cannot be read", "Run `trainvitals audit`, or mend the path.")
        known = set(after.items["item"].astype(str))
        if len(known - audited.keys()) > policy.quotas.missing * len(known):
            raise NotComparable(
                f"the audit knows {len(known & audited.keys()):,} of {len(known):,} items",
                "Audit the benchmark that was evaluated, under the same item ids.",
            )
        clean = {item for item, verdict in audited.items() if verdict == "clean"}
    aligned = align(before, after, policy.quotas.missing, rule.chance, clean)
    difference = paired_difference(aligned.before, aligned.after, aligned.clusters, evidence.noise.get(name))
    return Compared(rule, difference, aligned, after.family)


def _sentence(problem: NotComparable) -> str:
    words = str(problem)
    return words[0].upper() + words[1:] + "."


def _task(name: str, one: Compared, source: str) -> Row:
    d, margin = one.difference, one.rule.margin
    row = _judged(f"task.{name}", "task", d, margin, one.aligned.notes).but(source=source)
    if one.rule.audit:
        row = row.but(sentence=f"{row.sentence} Only items that the audit calls clean count.")
    if len(one.aligned.before_itt) != d.n and row.verdict == "pass":
        strict = paired_difference(one.aligned.before_itt, one.aligned.after_itt)
        if strict.low <= -margin:
            return row.but(
                verdict="unknown",
                change="Run the items without a score again.",
                sentence=f"{row.sentence} With items that have no score counted as wrong, it does not pass.",
            )
    return row


def _judged(name: str, kind: str, d: Difference, margin: float, notes: Sequence[str] = ()) -> Row:
    """Not inferior, or not known; whether it is a failure, Holm says over all rows (`checks.review.decide`)."""
    passed = d.p_not_inferior(margin) <= ALPHA
    how = {
        "paired": "paired items",
        "clustered": f"{d.clusters:,} clusters",
        "exact": "exact bounds, as few items differ",
    }[d.kind]
    sentence = (
        f"{points(d.value)} over {d.n:,} items; at worst {points(d.low)} with 95 % confidence ({how}), and "
        f"{points(-margin)} is allowed."
    )
    row = Row(
        name=name,
        kind=kind,
        verdict="pass" if passed else "unknown",
        sentence=" ".join([sentence, *(f"{note}." for note in notes)]),
        n=d.n,
        clusters=d.clusters,
        statistic="difference",
        value=d.value,
        low=d.low,
        high=d.high,
        threshold=-margin,
        se_kind=d.kind,
        p=d.p_worse,
    )
    return row if passed else row.but(change=_needed(d, margin))


def _needed(d: Difference, margin: float) -> str:
    """How many items would decide it, were the difference the one that is seen."""
    room = d.value + margin
    unit = "items" if d.kind != "clustered" else "items, in more clusters,"
    reach = float(stats.norm.ppf(1 - ALPHA) + stats.norm.ppf(0.9))
    if room <= 0:
        return "The loss seen is the margin or more: mend the model; more items would confirm it."
    items = d.n * (reach * d.se / room) ** 2
    if items > MOST_NEEDED:
        return "The loss seen is nearly the margin: no number of items decides it; mend the model."
    return f"About {max(math.ceil(items / 50) * 50, d.n + 50):,} {unit} (now {d.n:,}) would show whether it passes."


def _slices(name: str, one: Compared) -> Iterator[Row]:
    """The worst slice, where slices are told."""
    a = one.aligned
    if a.slices is None:
        return
    d = a.after - a.before
    found = []
    for label in sorted({str(s) for s in a.slices} - {""}):
        inside = d[a.slices == label]
        if len(inside) < LEAST_SLICE or len(inside) == len(d):
            continue
        lost, won = int((inside < 0).sum()), int((inside > 0).sum())
        p = float(stats.binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
        found.append((p, float(inside.mean()), label, len(inside)))
    if not found:
        return
    p, value, label, n = min(found)
    p = min(1.0, p * len(found))
    needed = max(SLICE_MARGINS * one.rule.margin, SLICE_LEAST)
    yield Row(
        name=f"slice.{name}",
        kind="slice",
        verdict="pass",
        n=n,
        clusters=len(found),
        statistic="difference",
        value=value,
        threshold=-needed,
        se_kind="sign test",
        p=p,
        sentence=f"Of {len(found)} slices {label[:60]} moved most to the worse: {points(value)} over {n} items "
        f"(p {p:.2g} for {len(found)} looks). A slice fails at {points(-needed)} that are no chance; "
        "smaller losses in a slice can hide.",
    )


def mean_of(differences: Sequence[Difference]) -> Difference:
    """The mean over tasks, each counting the same; their errors are independent, degrees after Satterthwaite."""
    k = len(differences)
    variances = np.array([(d.se / k) ** 2 for d in differences])
    se = float(np.sqrt(variances.sum()))
    value = float(np.mean([d.value for d in differences]))
    spread = float((variances**2 / [max(d.df, 1.0) for d in differences]).sum())
    df = se**4 / spread if spread > 0 else math.inf
    reach = float(stats.t.ppf(1 - ALPHA, df)) * se
    p = float(stats.t.cdf(value / se, df)) if se > 0 else 1.0
    return Difference(
        value,
        se,
        df,
        value - reach,
        value + reach,
        sum(d.n for d in differences),
        sum(d.clusters for d in differences),
        "paired",
        p,
    )


def _family(name: str, rule: FamilyRule, policy: Policy, compared: Mapping[str, Compared]) -> Row:
    row = f"family.{name}"
    chosen = list(rule.tasks) or [
        t for t in policy.tasks if name == "all" or (t in compared and compared[t].family == name)
    ]
    lacking = [task for task in chosen if task not in compared]
    if lacking or not chosen:
        why = f"{lacking[0]} could not be compared" if lacking else "No primary task is of this family"
        return unknown(
            row,
            "family",
            f"{why}.",
            "See the rows of its tasks." if lacking else f"Name its tasks: tasks = [...] under [families.{name}].",
            threshold=rule.margin,
        )
    return _judged(
        row,
        "family",
        mean_of([compared[t].difference for t in chosen]),
        rule.margin,
        [f"It is the mean of {len(chosen)} tasks"],
    )


def _together(compared: Sequence[Compared]) -> Iterator[Row]:
    """A loss inside of every margin that all tasks share."""
    d = mean_of([one.difference for one in compared])
    if d.p_worse <= 0.01 and d.value < 0:
        yield Row(
            name="together",
            kind="together",
            verdict="warn",
            n=d.n,
            clusters=len(compared),
            value=d.value,
            statistic="difference",
            low=d.low,
            high=d.high,
            se_kind=d.kind,
            sentence=f"All {len(compared)} tasks together lost {points(d.value)} (between {points(d.low)} and "
            f"{points(d.high)}), p {d.p_worse:.1g}: inside of the margins, and no chance.",
            change="Set a margin for the mean: [families.all] margin = ...",
        )
