"""What changed from one checkpoint to another, task by task: the difference on the same items, and is it chance?

A task fails where its loss is significant over all tasks together (Holm), warns where it is by itself, and is unknown
where the two were not measured alike, or where a loss of the margin could not have shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from checks.evals.items import Aligned, NotComparable, align
from checks.evals.noise import Noise, noise_between
from checks.evals.paired import ALPHA, Difference, holm, paired_difference
from checks.finding import Level
from trainvitals.evals import Evals, Sheet

MARGIN = 0.02
"""Loss that should be able to show: two points of a share; of other scores .02 of their spread over items."""
POWER = 0.8
QUOTA = 0.01
"""Share of items that may lack a score on either side."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One task, before and after."""

    task: str
    level: Level
    reason: str
    difference: float | None = None
    """After less before, positive where it is better."""
    interval: tuple[float, float] | None = None
    """95 %, two-sided."""
    n: int = 0
    clusters: int | None = None
    se: float | None = None
    se_kind: str = "none"
    se_unpaired: float | None = None
    """Were the items not the same, for comparison."""
    detectable: float | None = None
    """Loss that would show with 80 % chance."""
    lost: int | None = None
    """Items from right to wrong, of scores 0 and 1."""
    won: int | None = None
    p: float | None = None
    """One-sided, of no loss, after Holm over all tasks."""
    mcnemar: float | None = None
    """Mid-p of McNemar's test, of scores 0 and 1 without clusters."""
    shares: bool = False
    """Scores lie between 0 and 1, so that a difference is in percentage points; False where nothing was compared."""

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals evals compare --json` prints it."""
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in self.__slots__}


def compare(evals: Evals, before: str, after: str, margin: float = MARGIN) -> list[Compared]:
    """Every task that either checkpoint was asked, worst first.

    Args:
        evals: of a run.
        before: a checkpoint.
        after: another.
        margin: loss that must be able to show for a `pass`.
    """
    found: list[Compared] = []
    judged: list[tuple[str, Difference, Aligned, bool]] = []
    for task in evals.tasks:
        one, other = evals.sheet(task, before), evals.sheet(task, after)
        if one is None or other is None:
            lacks = [evals.lacking(task, c) for c, sheet in ((before, one), (after, other)) if sheet is None]
            if lacks != [f"{c} was not asked" for c in (before, after)]:
                found.append(Compared(task, "unknown", f"{'; '.join(lacks)}."))
            continue
        try:
            judged.append((task, *_difference(one, other, noise_between(evals, task, before, after))))
        except NotComparable as problem:
            found.append(Compared(task, "unknown", f"{problem}. {problem.change}"))
    adjusted = holm([d.p_worse for _, d, _, _ in judged])
    found += [_told(task, d, a, shares, p, margin) for (task, d, a, shares), p in zip(judged, adjusted, strict=True)]
    order = {"fail": 0, "warn": 1, "unknown": 2, "pass": 3}
    return sorted(found, key=lambda c: (order[c.level], 0.0 if c.difference is None else c.difference, c.task))


def _difference(one: Sheet, other: Sheet, noise: Noise | None) -> tuple[Difference, Aligned, bool]:
    if not len(one.items) or not len(other.items):
        raise NotComparable("scores of the task are known and of its items not", "Run the harness with item logs.")
    scores = np.concatenate([s.items["score"].to_numpy(float, na_value=np.nan) for s in (one, other)])
    shares = bool(np.fmin.reduce(scores) >= 0 and np.fmax.reduce(scores) <= 1) or bool(np.isnan(scores).all())
    aligned = align(one, other, QUOTA, None, None, shares)
    return paired_difference(aligned.before, aligned.after, aligned.clusters, noise), aligned, shares


def _told(task: str, d: Difference, a: Aligned, shares: bool, p: float, margin: float) -> Compared:
    reach = float(stats.t.ppf(1 - ALPHA / 2, max(d.df, 1.0))) * d.se
    detectable = float(stats.t.ppf(1 - ALPHA, max(d.df, 1.0)) + stats.norm.ppf(POWER)) * d.se
    room = margin if shares else margin * float(np.std(a.before))
    binary = shares and bool(np.isin(a.before, (0, 1)).all() and np.isin(a.after, (0, 1)).all())
    lost, won = (int((a.after < a.before).sum()), int((a.after > a.before).sum())) if binary else (None, None)
    unit = 100 if shares else 1
    size = f"{unit * d.value:+.3g}{' points' if shares else ''} over {d.n:,} items"
    level: Level = "fail" if p <= ALPHA and d.value < 0 else "warn" if d.p_worse <= ALPHA and d.value < 0 else "pass"
    reason = {"fail": f"{size}: a loss that is no chance, over all tasks together (p {p:.2g}).",
              "warn": f"{size}: a loss by itself (p {d.p_worse:.2g}), and chance over all tasks together (p {p:.2g}).",
              "pass": f"{size}: no loss that is more than chance; {unit * detectable:.3g} would have shown."}[level]
    if level == "pass" and detectable > room and d.low < -room:
        level = "unknown"
        reason = (f"{size}: no loss that is more than chance, and one of {unit * room:.3g} could not have shown: "
                  f"{unit * detectable:.3g} is the least. More items would tell.")
    interval = (d.value - reach, d.value + reach) if d.kind != "exact" else (d.low, d.high)
    spread = np.sqrt(a.before.var(ddof=1) / d.n + a.after.var(ddof=1) / d.n)
    mid = mid_p(lost, won) if binary and a.clusters is None and lost is not None and won is not None else None
    return Compared(task, level, reason, d.value, interval, d.n, None if a.clusters is None else d.clusters, d.se,
                    d.kind, float(spread), detectable, lost, won, p, mid, shares)  # fmt: skip


def mid_p(lost: int, won: int) -> float:
    """Two-sided mid-p of McNemar's test (Fagerland, Lydersen and Laake 2013)."""
    n, least = lost + won, min(lost, won)
    if n == 0:
        return 1.0
    return float(min(2 * stats.binom.cdf(least, n, 0.5) - stats.binom.pmf(least, n, 0.5), 1.0))
