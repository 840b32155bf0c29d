"""Latency of every tool and workflow, before and after, and what a solved task costs.

The samples are those of the release review (`checks.review.machine_rows`), the intervals those of
`checks.evals.latency`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checks.evals.latency import Estimate, enough, quantile_bound, quantile_change
from checks.review.evidence import Evidence
from checks.review.machine_rows import cost_rows, requests
from checks.review.policy import CostRule, Policy
from checks.review.row import Row
from trainvitals.evals import Evals, Sheet

QUANTILES = (0.5, 0.95, 0.99)
MOST_NAMES, MOST_REQUESTS = 24, 20_000
"""Tools and tasks that are looked at, those with the most requests first; requests of each that are resampled."""
_ANY_LIMIT = 1e300


@dataclass(frozen=True, slots=True)
class Speed:
    """One tool or task."""

    name: str
    what: str
    """"tool", "workflow" or "model"."""
    n: int
    sessions: int | None
    """None where no session is told."""
    seconds: Mapping[float, Estimate | str]
    """Quantile -> seconds, or why it is not known."""
    before: Mapping[float, Estimate | str]
    """The same of the checkpoint before; empty where there is none."""
    change: Estimate | str
    """Relative change of p95."""

    @property
    def slower(self) -> bool | None:
        """Whether p95 rose beyond chance, by itself; None where it is not known."""
        return None if isinstance(self.change, str) else self.change.low > 0


def sheets_of(evals: Evals, checkpoint: str) -> dict[str, Sheet]:
    """Every result of a checkpoint that tells latencies, tools or costs."""
    found = {}
    for task in evals.tasks:
        sheet = evals.sheet(task, checkpoint)
        if sheet is not None and len(sheet.items) and \
                sheet.items[["latency_s", "tokens_out", "cost_usd"]].notna().any().any():
            found[task] = sheet
    return found


def speeds(after: Mapping[str, Sheet], before: Mapping[str, Sheet], model: bool) -> list[Speed]:
    """Tools and workflows, and with `model` its own tasks, too: each takes about half a second of CPU.

    The slowest p95 first; those that cannot be bounded last.
    """
    counts: dict[str, tuple[str, int]] = {}
    for sheet in after.values():
        timed = sheet.items[sheet.items["latency_s"].notna()]
        for tool, n in timed["tool"].value_counts().items():
            counts[str(tool)] = ("tool", counts.get(str(tool), ("", 0))[1] + int(n))
        if len(timed) and (model or sheet.kind == "workflow"):
            counts.setdefault(sheet.task, (sheet.kind, len(timed)))
    order = sorted(counts, key=lambda name: (counts[name][0] == "model", -counts[name][1]))[:MOST_NAMES]
    found = [_speed(name, counts[name][0], after, before) for name in order]
    return sorted(found, key=lambda s: (s.what == "model", -(e.value if isinstance(e := s.seconds[0.95], Estimate)
                                                             else -1.0)))  # fmt: skip


def _speed(name: str, what: str, after: Mapping[str, Sheet], before: Mapping[str, Sheet]) -> Speed:
    now, then = requests(name, after), requests(name, before)
    too_many = max(len(now.seconds), len(then.seconds)) > MOST_REQUESTS

    def bound(one: object, q: float) -> Estimate | str:
        sample = now if one is now else then
        if too_many:
            return f"more than {MOST_REQUESTS:,} requests"
        return quantile_bound(sample, q) or enough(sample, q)

    change: Estimate | str = "no checkpoint before"
    if len(then.seconds) and not too_many:
        change = quantile_change(then, now, 0.95) or enough(then, 0.95) or enough(now, 0.95)
    elif too_many:
        change = f"more than {MOST_REQUESTS:,} requests"
    return Speed(name, what, len(now.seconds), None if now.sessions is None else now.groups,
                 {q: bound(now, q) for q in QUANTILES},
                 {q: bound(then, q) for q in QUANTILES} if len(then.seconds) else {}, change)  # fmt: skip


def costs(after: Mapping[str, Sheet], tasks: Sequence[str]) -> list[Row]:
    """Dollars and tokens per solved task; a row without a value says why."""
    rule = CostRule(usd_per_solved=_ANY_LIMIT, tokens_per_solved=_ANY_LIMIT)
    return list(cost_rows(Policy(cost=dict.fromkeys(tasks, rule)), Evidence(after, {}, {})))
