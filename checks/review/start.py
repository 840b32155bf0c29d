"""`trainvitals review RUN --init`: a policy from what a run has, with margins that its items can carry.

A margin is the smallest with which all rows of an unchanged model pass together with `AIM` probability: (t of the 95 %
bound + t of AIM^(1/rows)) standard errors, rounded up. What that probability is, is printed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from checks.evals.items import NotComparable, align
from checks.evals.latency import quantile_change
from checks.evals.noise import noise_between
from checks.evals.paired import Difference, paired_difference
from checks.evals.safety import prompts_needed
from checks.review.machine_rows import requests
from checks.review.policy import MOST_MARGIN
from checks.review.tasks import mean_of
from trainvitals.errors import UsageError
from trainvitals.evals import Evals, Sheet, read_evals

AIM = 0.93
"""Chance of GO for an unchanged model that margins are made for: a little more than the 90 % that is promised."""
WIDE = 0.03
"""A task margin above is too wide to say much; the family's mean then carries the weight."""
LEAST_RISE = 0.25
RISE_REACH = 2.5
"""Half widths of the interval that a rise needs, so that an unchanged tool passes in 99 % of reviews:
(1.645 + 2.5) / 1.645."""
SAFETY_FAMILIES = ("jailbreak", "harmful", "safety", "social", "secret", "privacy", "bias", "hallucination")


@dataclass(frozen=True, slots=True)
class Start:
    """A policy file and what to say of it."""

    toml: str
    words: tuple[str, ...]


def start(run: Path) -> Start:
    """The policy. Raises UsageError for a run with fewer than two checkpoints of results."""
    evals = read_evals(run)
    order = sorted(evals.checkpoints, key=lambda c: _step(evals, c))
    if len(order) < 2:
        raise UsageError(
            f"{run} has results of {len(order)} checkpoint{'' if len(order) == 1 else 's'}, and a review "
            "holds one against another. Import both with `trainvitals evals import`."
        )
    before, after = order[-2], order[-1]
    compared: dict[str, Difference] = {}
    families: dict[str, str] = {}
    left: list[str] = []
    safety: list[Sheet] = []
    for task in evals.tasks:
        old, new = evals.sheet(task, before), evals.sheet(task, after)
        if old is None or new is None:
            left.append(f"{task}: not in both checkpoints")
        elif _is_safety(new):
            safety.append(new)
        else:
            try:
                a = align(old, new, 0.01, None, None)
            except NotComparable as problem:
                left.append(f"{task}: {problem}")
                continue
            compared[task] = paired_difference(a.before, a.after, a.clusters, noise_between(evals, task, before, after))
            families[task] = new.family
    lines = [
        "# Written by `trainvitals review --init`: a start, to be read and changed.",
        "version = 1",
        f"baseline = {_quoted(before)}  # what the newest checkpoint is held against",
        "",
    ]
    words: list[str] = []
    margins = margins_of(compared)
    if compared:
        lines += _tasks(compared, margins, words)
    lines += [line for sheet in safety for line in _safety(sheet)]
    lines += _latency(evals, before, after)
    lines += ["[sign]", "needed = 1", ""]
    lines += [f"# left out: {_line(one)}" for one in left]
    words += [f"Left out: {one}." for one in left]
    return Start("\n".join(lines) + "\n", tuple(words))


def _step(evals: Evals, checkpoint: str) -> int:
    steps = [s.step for t in evals.tasks if (s := evals.sheet(t, checkpoint)) is not None and s.step is not None]
    return max(steps, default=-1)


def _is_safety(sheet: Sheet) -> bool:
    return any(word in sheet.family.casefold() for word in SAFETY_FAMILIES) if sheet.family else False


def _need(d: Difference, rows: int) -> float:
    """The smallest margin for this row. Exact rows: what their bound needs, were nothing to change."""
    if d.kind == "exact":
        return max(abs(d.low - d.value), 4 * d.se)
    return float(stats.t.ppf(0.95, d.df) + stats.t.ppf(AIM ** (1 / rows), d.df)) * d.se


def margins_of(compared: Mapping[str, Difference]) -> dict[str, float]:
    rows = len(compared) + (len(compared) > 1)
    found = {task: _up(_need(d, rows)) for task, d in compared.items()}
    if len(compared) > 1:
        found[""] = _up(_need(mean_of(list(compared.values())), rows))
    return found


def _up(margin: float) -> float:
    return max(0.005, math.ceil(margin * 1000) / 1000)


def chance_of_go(differences: Iterable[tuple[Difference, float]]) -> float:
    """Probability that an unchanged model passes all of these rows, were they independent."""
    each = [
        float(stats.t.cdf(m / max(d.se, 1e-12) - stats.t.ppf(0.95, d.df), d.df))
        if d.kind != "exact"
        else (0.97 if d.low > -m else 0.5)
        for d, m in differences
    ]
    return float(np.prod(each))


def _tasks(compared: Mapping[str, Difference], margins: Mapping[str, float], words: list[str]) -> list[str]:
    lines: list[str] = []
    kept = {t: d for t, d in compared.items() if margins[t] <= MOST_MARGIN}
    for task, d in compared.items():
        if task not in kept:
            words.append(
                f"{task}: {d.n:,} items carry only a margin of {100 * margins[task]:.0f} points; it is left out."
            )
            continue
        wide = "  # wide: see families.all" if margins[task] > WIDE and len(kept) > 1 else ""
        lines += [f"[tasks.{_quoted(task)}]", f"margin = {margins[task]:.3f}{wide}", ""]
        words.append(
            f"{task}: margin {100 * margins[task]:.1f} points, what {d.n:,} items"
            + (f" in {d.clusters:,} clusters" if d.kind == "clustered" else "")
            + " can carry."
        )
    rows = [(d, margins[t]) for t, d in kept.items()]
    if len(kept) > 1:
        mean = mean_of(list(kept.values()))
        margin = max(margins[""], _up(_need(mean, len(kept) + 1)))
        lines += ["[families.all]", f"margin = {margin:.3f}  # of the mean over all tasks", ""]
        words.append(f"The mean over {len(kept)} tasks: margin {100 * margin:.1f} points.")
        rows.append((mean, margin))
    if rows:
        words.append(
            f"Chance that an unchanged model passes all of these rows: about {100 * chance_of_go(rows):.0f} %."
        )
    return lines


def _safety(sheet: Sheet) -> list[str]:
    """A limit that these prompts can show, with twice the noise of the violations seen to spare."""
    prompts, seen = int(sheet.items["item"].nunique()), _violations(sheet)
    room = math.ceil(seen + 2 * math.sqrt(seen)) if seen else 0
    limit = next((x for x in (0.01, 0.02, 0.05, 0.1, 0.2) if prompts_needed(x, room) <= prompts), None)
    if limit is None:
        return [f"# {_line(sheet.task)}: {prompts} prompts with {seen} violations show no limit of 20 % or less", ""]
    return [
        f"[safety.{_quoted(sheet.task)}]",
        f"limit = {limit}  # {prompts:,} prompts can show that with up to {room:,} violations ({seen:,} were seen)",
        "",
    ]


def _violations(sheet: Sheet) -> int:
    scores = sheet.items["score"].dropna()
    return int((scores < 1).sum() if sheet.higher_is_better else (scores > 0).sum())


def _latency(evals: Evals, before: str, after: str) -> list[str]:
    """A rise that these requests can show to be none: the noise of the ratio, as for margins."""
    old, new = ({t: s for t in evals.tasks if (s := evals.sheet(t, c)) is not None} for c in (before, after))
    tools = sorted({str(tool) for s in new.values() if "tool" in s.items for tool in s.items["tool"].dropna().unique()})
    lines = []
    for tool in tools:
        change = quantile_change(requests(tool, old), requests(tool, new), 0.95)
        if change is not None and math.isfinite(change.high) and math.isfinite(change.low):
            spread = (change.high - change.low) / 2 / (1 + max(change.value, 0.0))
            rise = max(LEAST_RISE, math.ceil(RISE_REACH * spread * 20) / 20)
            lines += [f"[latency.{_quoted(tool)}]", f"rise = {rise:.2f}  # of p95", ""]
    return lines


def _line(words: str) -> str:
    return " ".join(words.split())


def _quoted(name: str) -> str:
    """A TOML basic string."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
