"""Release reviews of models whose fate is known: false NO-GO, GO of unchanged models, and regressions found.

Twelve tasks, simulated item by item. Margins are those of `--init` on an earlier unchanged pair; then another
checkpoint is reviewed. Beside them the documented rule of NeMo Evaluator 0.3 (`nel gate`: two-sided 95 % interval of
the paired difference of each task, z, `max_drop` 1 point).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.report import Table
from checks.evals.items import align
from checks.evals.paired import ALPHA, paired_difference
from checks.review.decide import judge
from checks.review.evidence import Evidence
from checks.review.policy import FamilyRule, Policy, TaskRule
from checks.review.start import margins_of
from trainvitals.evals import Sheet

TASKS, DISCORDANCE, NEL_DROP = 12, 0.1, 0.01
TODAY = dt.date(2026, 12, 1)
NULLS = 10_000
CLUSTERED = {"57 of 40 items": [40] * 57, "57 of 5 to 200": list(np.geomspace(5, 200, 57).astype(int)),
             "12 of 30": [30] * 12, "8 of 50": [50] * 8, "6, one with half the items": [150, *[30] * 5]}  # fmt: skip
"""Sizes of clusters by name."""

Scores = NDArray[np.bool_]


def run(quick: bool) -> list[Table]:
    """Whole reviews, one row per kind of world; and one comparison, one row per kind of clusters."""
    reviews = 20 if quick else 120
    worlds = [(f"unchanged, {n:,} items a task", n, 0.0, 0) for n in (300, 1000, 5000)]
    worlds += [
        ("unchanged, 50 subjects of 40 that share 2 points", 2000, 0.0, 50),
        ("one task lost twice its margin, 1,000 items a task", 1000, 2.0, 0),
        ("one task lost twice its margin, 50 subjects of 40", 2000, 2.0, 50),
    ]
    rows = [_world(*world, max(20, reviews // (5 if world[1] > 2000 else 1))) for world in worlds]
    table = Table(
        title="Release reviews of 12 tasks",
        notes="Share of whole reviews with each answer. Margins are those of `--init`, tasks and their mean.",
        columns=("world", "reviews", "GO", "UNDECIDED", "NO-GO", "`nel gate` rule: GO / inconclusive / NO-GO"),
        rows=rows,
    )
    return [table, _nulls(500 if quick else NULLS)]


def _nulls(n: int) -> Table:
    """False alarms of one comparison at 5 %, and how often a loss of the size that shows with 80 % is found."""
    rng = np.random.default_rng(0)
    rows = []
    for name, sizes in CLUSTERED.items():
        clusters = np.repeat(np.arange(len(sizes)), sizes)
        false = found = 0
        for _ in range(n):
            shift = rng.normal(0, 0.05, len(sizes))[clusters]  # what a checkpoint gains or loses in a whole subject
            draw = rng.random(len(clusters))
            d = np.where(draw < 0.05 + shift / 2, 1.0, np.where(draw > 0.95 + shift / 2, -1.0, 0.0))
            null = paired_difference(np.zeros(len(d)), d, clusters)
            false += null.p_worse < ALPHA
            power = (stats.t.ppf(0.95, null.df) + stats.t.ppf(0.8, null.df)) * null.se
            found += paired_difference(np.zeros(len(d)), d - power, clusters).p_worse < ALPHA
        rows.append((name, f"{n:,}", f"{100 * false / n:.2f} %", f"{100 * found / n:.1f} %"))
    return Table(
        title="One comparison over clusters that share what they gain and lose",
        notes="Nominal: 5 % and 80 %. Paired differences of +1, 0, -1; a cluster's mean has a deviation of 5 points.",
        columns=("clusters", "simulations", "unchanged, called worse", "worse by what shows with 80 %, called worse"),
        rows=rows,
    )


def _world(name: str, n: int, lost: float, subjects: int, reviews: int) -> tuple[str, ...]:
    rng = np.random.default_rng(n + int(lost) + subjects)
    ours: Counter[str] = Counter()
    nel: Counter[str] = Counter()
    for _ in range(reviews):
        base = {f"t{k:02}": rng.random(n) < rng.uniform(0.4, 0.8) for k in range(TASKS)}
        chain = [base]
        for _ in range(2):
            chain.append({t: _moved(values, rng, subjects) for t, values in chain[-1].items()})
        sheets = [{t: _sheet(t, step, v, subjects) for t, v in values.items()} for step, values in enumerate(chain)]
        margins = _margins(sheets[0], sheets[1])
        if lost:
            task = "t05"
            falls = rng.random(n) < lost * margins[task] / base[task].mean()
            hurt = sheets[2][task].items
            sheets[2][task] = _sheet(task, 2, (hurt["score"].to_numpy() > 0) & ~falls, subjects)
        policy = Policy(
            baseline="1",
            tasks={t: TaskRule(margin=margins[t]) for t in base},
            families={"all": FamilyRule(margin=margins[""])},
        )
        ours[judge(policy, Evidence(sheets[2], sheets[1], {}), TODAY).decision] += 1
        nel[_nel(sheets[1], sheets[2])] += 1
    answers = [f"{100 * ours[d] / reviews:.1f} %" for d in ("GO", "UNDECIDED", "NO-GO")]
    peer = " / ".join(f"{100 * nel[d] / reviews:.0f}" for d in ("GO", "INCONCLUSIVE", "NO-GO"))
    return (name, f"{reviews:,}", *answers, f"{peer} %")


def _moved(values: Scores, rng: np.random.Generator, subjects: int) -> Scores:
    """Another checkpoint of the same quality: a tenth of the items change, as many either way."""
    n = len(values)
    rate = values.mean()
    lose, win = (min(1.0, DISCORDANCE / 2 / share) for share in (rate, 1 - rate))
    shift = rng.normal(0, 0.02, subjects)[np.arange(n) % subjects] if subjects else np.zeros(n)
    chance = np.where(values, lose - shift, win + shift)
    return values ^ (rng.random(n) < chance)


def _sheet(task: str, step: int, values: Scores, subjects: int) -> Sheet:
    n = len(values)
    cluster = np.arange(n) % subjects if subjects else None
    items = pd.DataFrame({"item": np.arange(n).astype(str), "score": values.astype(float), "cluster": cluster})
    return Sheet(
        task=task,
        checkpoint=str(step),
        step=step,
        kind="model",
        family="",
        metric="acc",
        higher_is_better=True,
        harness="",
        version="",
        n_shot=0,
        prompt_hash="",
        filter="",
        source="",
        chance=0.25,
        items=items,
    )


def _margins(before: Mapping[str, Sheet], after: Mapping[str, Sheet]) -> dict[str, float]:
    found = {}
    for task in before:
        a = align(before[task], after[task], 0.01, None, None)
        found[task] = paired_difference(a.before, a.after, a.clusters)
    return margins_of(found)


def _nel(before: Mapping[str, Sheet], after: Mapping[str, Sheet]) -> str:
    said = set()
    for task in before:
        d = after[task].items["score"].to_numpy() - before[task].items["score"].to_numpy()
        clusters = after[task].items["cluster"].to_numpy()
        se = (
            d.std(ddof=1) / np.sqrt(len(d))
            if clusters[0] is None
            else paired_difference(np.zeros(len(d)), d, clusters.astype(np.int64)).se
        )
        low, high = d.mean() - 1.96 * se, d.mean() + 1.96 * se
        said.add("NO-GO" if high < -NEL_DROP else "GO" if low > -NEL_DROP else "INCONCLUSIVE")
    return "NO-GO" if "NO-GO" in said else "INCONCLUSIVE" if "INCONCLUSIVE" in said else "GO"
