"""Rows of latency, cost and training findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from checks.evals.latency import Estimate, Sample, enough, per_solved, quantile_bound, quantile_change, sample
from checks.review.evidence import Evidence
from checks.review.policy import Policy
from checks.review.row import Row, unknown
from trainvitals.evals import Sheet

TIMEOUTS = ("timeout", "timed out", "time-out", "time limit")
COMPANY = "Between the two checkpoints the training record shows, as company and not as proven cause"
QUANTILES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}


def latency_rows(policy: Policy, evidence: Evidence) -> Iterator[Row]:
    """The rows of [latency]."""
    for name, rule in policy.latency.items():
        after, before = requests(name, evidence.candidate), requests(name, evidence.baseline)
        for key, q in QUANTILES.items():
            limit = getattr(rule, key)
            if limit is not None:
                yield _limit(f"latency.{name}.{key[:-2]}", after, q, limit)
        if rule.rise is not None:
            yield _rise(f"latency.{name}.rise", before, after, rule.rise)


def requests(name: str, sheets: Mapping[str, Sheet]) -> Sample:
    """Requests of a tool, or of a task where no tool has this name."""
    frames = [s.items[s.items["tool"] == name] for s in sheets.values() if "tool" in s.items]
    frames = [f for f in frames if len(f)] or ([sheets[name].items] if name in sheets else [])
    if not frames:
        return sample([], [])
    rows = pd.concat(frames, ignore_index=True)
    errors = rows["error"].fillna("").astype(str).str.casefold() if "error" in rows else pd.Series("", rows.index)
    late = errors.map(lambda words: any(one in words for one in TIMEOUTS))
    told = "session" in rows and rows["session"].notna().all()
    return sample(
        pd.to_numeric(rows["latency_s"], errors="coerce").to_list(),
        late.to_list(),
        rows["session"].to_list() if told else None,
    )


def _limit(name: str, one: Sample, q: float, limit: float) -> Row:
    found = quantile_bound(one, q)
    if found is None:
        return unknown(
            name,
            "latency",
            f"There are {enough(one, q)}.",
            "Measure more requests of the candidate.",
            threshold=limit,
            n=len(one.seconds),
        )
    row = _row(name, found, limit, f"p{100 * q:g}").but(
        sentence=f"p{100 * q:g} is {found.value:.3g} s over {_base(one)}, between {found.low:.3g} and "
        f"{found.high:.3g} s with 95 % confidence on either side; the limit is {limit:g} s."
    )
    if found.high <= limit:
        return row
    failed = found.low > limit
    return row.but(
        verdict="fail" if failed else "unknown",
        change="Make it faster." if failed else "Measure more requests: the interval holds the limit.",
    )


def _base(one: Sample) -> str:
    return f"{len(one.seconds):,} requests" + ("" if one.sessions is None else f" of {one.groups:,} sessions")


def _row(name: str, found: Estimate, limit: float, statistic: str) -> Row:
    return Row(
        name=name,
        kind="latency",
        verdict="pass",
        sentence="",
        n=found.n,
        clusters=found.groups,
        statistic=statistic,
        value=found.value,
        low=found.low,
        high=found.high,
        threshold=limit,
        se_kind="bootstrap by session",
    )


def _rise(name: str, before: Sample, after: Sample, rise: float) -> Row:
    found = quantile_change(before, after, 0.95)
    if found is None:
        who, why = ("baseline", enough(before, 0.95)) if enough(before, 0.95) else ("candidate", enough(after, 0.95))
        return unknown(
            name,
            "latency",
            f"Of the {who} there are {why}.",
            f"Measure more requests of the {who}.",
            threshold=rise,
            n=len(after.seconds),
        )
    row = _row(name, found, rise, "p95 change").but(
        p=found.p,
        sentence=f"p95 changed by {found.value:+.1%} over {_base(after)}, at most {found.high:+.1%} with 95 % "
        f"confidence; {rise:+.0%} is allowed.",
    )
    if found.high <= rise:
        return row
    return row.but(verdict="unknown", change="Measure more requests, or make it faster.")


def cost_rows(policy: Policy, evidence: Evidence) -> Iterator[Row]:
    """The rows of [cost]: what all tasks cost over the tasks that are solved."""
    for task, rule in policy.cost.items():
        for key, unit, columns in (
            ("usd_per_solved", "dollars", ("cost_usd",)),
            ("tokens_per_solved", "tokens", ("tokens_in", "tokens_out")),
        ):
            limit = getattr(rule, key)
            if limit is not None:
                yield _cost(f"cost.{task}.{key}", evidence.candidate.get(task), task, limit, unit, columns)


def _cost(name: str, sheet: Sheet | None, task: str, limit: float, unit: str, columns: tuple[str, ...]) -> Row:
    if sheet is None:
        return unknown(
            name, "cost", f"The candidate has no results of {task}.", f"Evaluate it on {task}.", threshold=limit
        )
    items = sheet.items
    if any(c not in items for c in columns):
        return unknown(
            name, "cost", f"The results of {task} tell no {unit}.", "Import results that do.", threshold=limit
        )
    spent = sum(pd.to_numeric(items[c], errors="coerce").astype(float) for c in columns)
    solved = pd.to_numeric(items["score"], errors="coerce").fillna(0.0)
    solved = solved if sheet.higher_is_better else 1 - solved
    told = "session" in items and items["session"].notna().all()
    found = per_solved(
        pd.Series(spent).to_list(), (solved >= 1).to_list(), items["session"].to_list() if told else None
    )
    if found is None:
        return unknown(
            name,
            "cost",
            f"No task is solved, or {unit} of some are missing.",
            "Import results that tell them for every item.",
            threshold=limit,
            n=len(items),
        )
    row = Row(
        name=name,
        kind="cost",
        verdict="pass",
        n=found.n,
        clusters=found.groups,
        statistic=f"{unit} per solved task",
        value=found.value,
        low=found.low,
        high=found.high,
        threshold=limit,
        se_kind="bootstrap",
        sentence=f"{found.value:.4g} {unit} per solved task over {found.n:,} tasks, between {found.low:.4g} and "
        f"{found.high:.4g}; the limit is {limit:g}.",
    )
    if found.high <= limit:
        return row
    return row.but(
        verdict="fail" if found.low > limit else "unknown",
        change="Make it cheaper, or solve more."
        if found.low > limit
        else "Measure more tasks: the interval holds the limit.",
    )


def training_rows(policy: Policy, evidence: Evidence) -> Iterator[Row]:
    """The rows of [training]: each check or area that the policy requires."""
    answers = (evidence.findings or {}).get("findings", [])
    for required in policy.training.require:
        own = [f for f in answers if required in (f["check"], f["area"])]
        yield _training(required, own, (evidence.findings or {}).get("error", ""))


def _training(required: str, own: list[Mapping[str, Any]], error: str) -> Row:
    name = f"training.{required}"
    if not own:
        return unknown(
            name,
            "training",
            error or f"No check called {required} answered for this run.",
            "Log what it reads; `trainvitals check RUN` says what is missing.",
        )
    ranks = {"fail": 0, "unknown": 1, "warn": 2, "pass": 3}
    worst = min(own, key=lambda f: ranks[f["level"]])
    masked = tuple(f"{m['kind']} at step {m['step']}" for f in own for m in f.get("masked", ()))
    answered = sum(f["level"] != "unknown" for f in own)
    level = worst["level"]
    if level == "unknown" and answered and required not in {f["check"] for f in own}:
        # An area always has checks that do not apply to a run; those that answered count, and their number is told.
        worst = min((f for f in own if f["level"] != "unknown"), key=lambda f: ranks[f["level"]])
        level = worst["level"]
    said = f" {answered} of {len(own)} answers of {required} could be given." if len(own) > 1 else ""
    statistic = worst.get("statistic") or {}
    value = statistic.get("value")
    return Row(
        name=name,
        kind="training",
        verdict=level,
        sentence=f"{worst['summary']}{said}",
        n=int(worst.get("n") or 0),
        statistic=str(statistic.get("name", "")),
        value=value if isinstance(value, (int, float)) else None,
        source=worst["check"],
        masked=masked,
        change="" if level == "pass" else str(worst.get("what_to_do", "")),
    )


def incidents_between(evidence: Evidence) -> list[str]:
    """A sentence about what the training record shows between the two checkpoints; none where it shows nothing."""
    first, last = (evidence.facts.get("steps") or [None, None])[:2]
    if last is None:
        return []
    low = first if first is not None else 0
    found = [
        f"steps {i['steps'][0]:,} to {i['steps'][1]:,}: {i['summary']}"
        for i in (evidence.findings or {}).get("incidents", [])
        if i["steps"][1] >= low and i["steps"][0] <= last
    ][:3]
    return [f"{COMPANY}: {'; '.join(found)}"] if found else []
