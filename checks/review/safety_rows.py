"""Rows of safety: violations, over-refusals, regressions by prompt, the judge's agreement, canary secrets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from checks.evals.items import NotComparable, columns, side
from checks.evals.safety import Bound, clustered_bound, judge_agreement, prompts_needed
from checks.review.evidence import Evidence
from checks.review.policy import Policy, SafetyRule
from checks.review.row import Row, percent, points, unknown
from trainvitals.evals import Sheet

LEAST_LABELS = 50
"""Labels of a human that an interval of kappa needs; convention."""


def safety_rows(policy: Policy, evidence: Evidence) -> Iterator[Row]:
    """The rows of [safety] and [secrets]."""
    for task, rule in policy.safety.items():
        sheet = evidence.candidate.get(task)
        yield from _task(task, rule, policy, evidence, sheet)
        if rule.over_refusal:
            other = evidence.candidate.get(rule.over_refusal)
            yield _limit(
                f"safety.{task}.over_refusal",
                other,
                rule.over_refusal,
                rule.over_refusal_limit or 0.0,
                policy.quotas.missing,
                None,
                "refused of harmless prompts",
                evidence,
            )
    if policy.secrets is not None:
        yield _secrets(evidence)


def _task(task: str, rule: SafetyRule, policy: Policy, evidence: Evidence, sheet: Sheet | None) -> Iterator[Row]:
    quota = policy.quotas.missing
    yield _limit(f"safety.{task}", sheet, task, rule.limit, quota, None, "violations", evidence)
    for category, limit in rule.categories.items():
        yield _limit(
            f"safety.{task}.{category}", sheet, task, limit, quota, category, f"violations in {category}", evidence
        )
    before = evidence.baseline.get(task)
    if sheet is not None and before is not None:
        yield _regression(task, before, sheet)
    if rule.human and sheet is not None:
        yield _judge(task, rule, sheet, evidence)


def _violated(sheet: Sheet, quota: float) -> tuple[pd.Series, int]:
    """Item -> whether any of its answers was a violation, and items without a verdict. Raises NotComparable."""
    told = side(sheet, "candidate")  # duplicates, missing scores, scores outside of 0 to 1
    scores, missing = told.scores, told.missing
    known = pd.to_numeric(sheet.items["score"], errors="coerce").dropna()
    if not known.isin([0.0, 1.0]).all():
        raise NotComparable(
            "scores are not 0 or 1, so nothing says which answer is a violation",
            "Import the judge's verdict as 0 or 1.",
        )
    total = len(scores) + missing
    if total == 0 or missing > quota * total:
        raise NotComparable(
            f"{missing:,} of {total:,} prompts have no verdict (errors, time-outs or labels that the "
            f"judge does not have); {quota:.1%} may",
            "Judge those answers again.",
        )
    return scores < 1, missing


def _by_item(sheet: Sheet, column: str, items: pd.Index) -> pd.Series | None:
    values = columns(sheet, column)
    return (
        None
        if values is None
        else values.groupby(sheet.items["item"].astype(str)).first().reindex(items).fillna("").astype(str)
    )


def _limit(
    name: str,
    sheet: Sheet | None,
    task: str,
    limit: float,
    quota: float,
    category: str | None,
    what: str,
    evidence: Evidence,
) -> Row:
    least = prompts_needed(limit)
    if sheet is None:
        return unknown(
            name,
            "safety",
            f"The candidate has no results of {task}.",
            f"Run it with {least:,} prompts at the least.",
            threshold=limit,
        )
    try:
        if copied := evidence.copies.get(task):
            raise NotComparable(
                f"the candidate's results are those of {copied}, value for value", "Evaluate the candidate itself."
            )
        violated, missing = _violated(sheet, quota)
    except NotComparable as problem:
        words = str(problem)
        return unknown(name, "safety", words[0].upper() + words[1:] + ".", problem.change, threshold=limit)
    if category is not None:
        groups = _by_item(sheet, "group", violated.index)
        violated = violated[groups == category] if groups is not None else violated[:0]
        if not len(violated):
            return unknown(
                name,
                "safety",
                f"No prompt is of the category {category}.",
                "Import the results with their categories, or mend the name.",
                threshold=limit,
            )
    families = _by_item(sheet, "cluster", violated.index)
    bound = clustered_bound(violated.to_numpy(bool), None if families is None else families.to_list())
    return _row(name, bound, limit, least, missing, what, evidence.source(task))


def _row(name: str, bound: Bound, limit: float, least: int, missing: int, what: str, source: str) -> Row:
    tied = bound.effective < bound.prompts - 0.5
    worth = f" in {bound.families} attack families, worth {bound.effective:.0f} independent ones" if tied else ""
    base = (
        f"{bound.violations:,} {what} in {bound.prompts:,} prompts{worth}: {percent(bound.share)}, at most "
        f"{percent(bound.high)} with 95 % confidence; the limit is {percent(limit)}."
    )
    if missing:
        base += f" {missing:,} prompts without a verdict are left out."
    row = Row(
        name=name,
        kind="safety",
        verdict="pass",
        sentence=base,
        n=bound.prompts,
        clusters=bound.families,
        statistic="share",
        value=bound.share,
        low=bound.low,
        high=bound.high,
        threshold=limit,
        se_kind="Clopper-Pearson",
        source=source,
    )
    if bound.high <= limit:
        return row
    if bound.low > limit or (bound.share >= limit and bound.effective >= least):
        return row.but(verdict="fail", change="Mend the model: the share seen is above the limit.")
    needed = prompts_needed(limit, bound.violations) if bound.share < limit else 0
    if needed:
        factor = bound.prompts / bound.effective
        return row.but(
            verdict="unknown",
            change=f"{int(np.ceil(needed * factor)):,} prompts without a further violation "
            f"would show it (now {bound.prompts:,}).",
        )
    return row.but(
        verdict="unknown",
        change=f"Too few prompts for this limit: {least:,} at the least, and fewer violations among them.",
    )


def _regression(task: str, before: Sheet, after: Sheet) -> Row:
    """More violations on the same prompts? Attack families are clusters."""
    from checks.evals.paired import paired_difference

    name = f"safety.{task}.change"
    try:
        b, a = side(before, "baseline"), side(after, "candidate")
    except NotComparable as problem:
        return unknown(name, "safety", f"{problem}.", problem.change)
    both = b.scores.index.intersection(a.scores.index)
    if before.prompt_hash != after.prompt_hash or len(both) < 0.95 * max(len(b.wrong), len(a.wrong)):
        return unknown(
            name,
            "safety",
            f"The prompts are not those of the baseline: {len(both):,} are the same.",
            "Evaluate both on one set of prompts.",
        )
    x, y = b.scores[both].to_numpy(), a.scores[both].to_numpy()
    families = _by_item(after, "cluster", both)
    codes = None if families is None else np.unique(families.to_numpy(str), return_inverse=True)[1]
    lost, won = int((y < x).sum()), int((y > x).sum())
    if codes is None or len(np.unique(codes)) == len(both):
        codes = None
        p = float(stats.binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
    d = paired_difference(x, y, codes)
    p = d.p_worse if codes is not None else p
    return Row(
        name=name,
        kind="safety",
        verdict="pass",
        n=len(both),
        clusters=d.clusters,
        statistic="difference",
        value=d.value,
        low=d.low,
        high=d.high,
        threshold=0.0,
        se_kind="McNemar" if codes is None else d.kind,
        p=p,
        sentence=f"Against the baseline {lost:,} prompts became violations and {won:,} stopped being one; "
        f"{points(d.value)} of harmless answers, at worst {points(d.low)}. No significant change is no "
        "proof of none: the limit above decides.",
    )


def _judge(task: str, rule: SafetyRule, sheet: Sheet, evidence: Evidence) -> Row:
    name = f"safety.{task}.judge"
    labels = evidence.human.get(task, {})
    scores = side(sheet, "candidate").scores
    both = [item for item in labels if item in scores.index]
    if len(both) < LEAST_LABELS:
        return unknown(
            name,
            "judge",
            f"Humans judged {len(both)} of these answers; {LEAST_LABELS} are needed.",
            "Have a random sample of answers judged by humans.",
            threshold=rule.kappa,
            n=len(both),
        )
    found = judge_agreement(np.array([scores[i] < 1 for i in both]), np.array([labels[i] for i in both]))
    row = Row(
        name=name,
        kind="judge",
        verdict="pass",
        n=found.n,
        statistic="kappa",
        value=found.kappa,
        low=found.low,
        high=found.high,
        threshold=rule.kappa,
        source=rule.human,
        sentence=f"Judge and humans agree on {percent(found.agreement)} of {found.n:,} answers: on "
        f"{percent(found.on_violations)} of the violations and {percent(found.on_harmless)} of the others; "
        f"kappa {found.kappa:.2f} ({found.low:.2f} to {found.high:.2f}), {rule.kappa:g} is needed.",
    )
    if not found.low == found.low:
        return row.but(
            verdict="unknown",
            low=None,
            high=None,
            change="Have violations in the sample: where one side never changes its answer, agreement says nothing.",
        )
    if found.low >= rule.kappa:
        return row
    return row.but(
        verdict="fail" if found.high < rule.kappa else "unknown",
        change="Take a better judge." if found.high < rule.kappa else "Have more answers judged by humans.",
    )


def _secrets(evidence: Evidence) -> Row:
    found = evidence.facts.get("secrets") or {}
    if not found.get("texts"):
        return unknown(
            "secrets",
            "secrets",
            "No result keeps the text of an answer, so no canary can be looked for.",
            "Import results with their answers.",
        )
    hits = found["hits"]
    row = Row(
        name="secrets",
        kind="secrets",
        verdict="pass",
        n=found["texts"],
        statistic="leaks",
        value=float(found["leaks"]),
        threshold=0.0,
        sentence=f"None of {found['canaries']} canary secrets is in {found['texts']:,} answers, verbatim, spaced, "
        "reversed, rot13, hex or base64; other encodings are not looked for.",
    )
    if not hits:
        return row
    first = hits[0]
    return row.but(
        verdict="fail",
        change="Find out how the secret came into the training data or the prompt.",
        sentence=f"Canary secrets left the model in {found['leaks']} answers of {found['texts']:,}; the first: "
        f"canary {first['canary']} ({', '.join(first['ways'])}) in item {first['item']} of "
        f"{first['task']}.",
    )
