"""Safety: how often did the model do what it must not, and how often could it, given so few prompts?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from checks.review.policy import read_policy
from checks.review.report import WORDS
from checks.review.row import Row, percent
from dashboard.charts import text
from dashboard.evals import charts
from dashboard.evals.frame import checkpoint_of, results_page
from dashboard.evals.gates import FAMILIES, Gate, gates, safety_tasks
from dashboard.evals.stored import Stored
from dashboard.failing import guarded
from dashboard.page import card, show
from dashboard.release import beside, rows
from dashboard.release.reviews import Review
from dashboard.sidebar import Choice

ICON, PLACE, RUN, SECTION = ":material/shield:", 22, "always", "Release"

KINDS = ("safety", "judge", "secrets")


def body(choice: Choice, stored: Stored) -> None:
    """Draw the page."""
    with guarded("What the review says"):
        review = beside.draw(choice, KINDS, "Safety", "[safety.TASK] limit = 0.01")
    tasks = safety_tasks(stored.evals)
    if not tasks:
        st.caption(f":material/visibility_off: **No safety task.** Tasks of the families {', '.join(FAMILIES)} are "
                   "shown here; the importer tells them by the task's name.")
        return
    own = stored.summaries[stored.summaries["task"].isin(tasks)]
    names = [c for c in reversed(stored.evals.checkpoints) if c in set(own["checkpoint"])]
    checkpoint = checkpoint_of(names)
    found = stored.read(("gates", checkpoint), lambda: gates(stored.evals, checkpoint, tasks))
    judged = _judged(review, checkpoint)
    with guarded("The tasks"):
        _tasks([g for g in found if not g.category], judged)
    with guarded("The categories"):
        _categories(found, judged)


def _judged(review: Review | None, checkpoint: str) -> dict[str, Row]:
    """Name -> row of a review of this checkpoint; a row of over-refusal also under the task that it is about."""
    if review is None or review.record["candidate"] != checkpoint:
        return {}
    found = {row.name: row for row in review.rows}
    for task, rule in read_policy(Path(review.path, "policy.toml")).safety.items():
        row = found.get(f"safety.{task}.over_refusal")
        if rule.over_refusal and row is not None:
            found.setdefault(f"safety.{rule.over_refusal}", row)
    return found


def _tasks(found: Sequence[Gate], judged: Mapping[str, Row]) -> None:
    with card("Safety tasks", "share of prompts that were answered with a violation; bound: one-sided, 95 %"):
        known = [g for g in found if g.high is not None]
        if known:
            show(charts.bounds([(g.task, g) for g in known], _limits(known, judged)), "gates",
                 "Share of violations of every safety task with its upper bound and limit")
        _table(found, judged, "gate-tasks", "Task")


def _categories(found: Sequence[Gate], judged: Mapping[str, Row]) -> None:
    tasks = list(dict.fromkeys(g.task for g in found if g.category))
    if not tasks:
        return
    with card("Categories", "the same, by what the prompts are about"):
        task = st.selectbox("Task", tasks, key="safety_task", bind="query-params", width=320,
                            format_func=lambda n: text.plain(n, 80), label_visibility="collapsed")
        own = sorted((g for g in found if g.task == task and g.category), key=lambda g: -(g.high or 2.0))
        known = [g for g in own if g.high is not None]
        if known:
            show(charts.bounds([(g.category, g) for g in known], _limits(known, judged)), "gate-categories",
                 f"Share of violations of every category of {task} with its upper bound and limit")
        _table(own, judged, "gate-table", "Category")


def _limits(found: Sequence[Gate], judged: Mapping[str, Row]) -> list[float | None]:
    return [judged[g.row].threshold if g.row in judged else None for g in found]


def _table(found: Sequence[Gate], judged: Mapping[str, Row], key: str, what: str) -> None:
    data = pd.DataFrame([
        {
            what: text.plain(g.category or g.task, 80), "Answer": _answer(g, judged.get(g.row)),
            "Violations": g.violations, "Prompts": g.n or None,
            "Attack families": g.families if g.families != g.n else None,
            "Share seen": "unknown" if g.share is None else percent(g.share),
            "At most (95 %)": "unknown" if g.high is None else percent(g.high),
            "Limit": _limit(judged.get(g.row)), "Why unknown": text.plain(g.why, 300),
        } for g in found
    ])  # fmt: skip
    if not any(g.why for g in found):
        data = data.drop(columns="Why unknown")
    form: dict[str, Any] = {name: st.column_config.NumberColumn(format="localized")
                            for name in ("Violations", "Prompts", "Attack families")}
    st.dataframe(data, hide_index=True, key=key, column_config=form, row_height=28,
                 height=min(36 + 28 * len(data), 400), alt=f"Violations, prompts, bound and limit of every {what}")


def _answer(gate: Gate, row: Row | None) -> str:
    if gate.why:
        return "? unknown"
    return "no limit is set" if row is None else f"{rows.SHAPES[row.verdict]} {WORDS[row.verdict]}"


def _limit(row: Row | None) -> str:
    return "–" if row is None or row.threshold is None else percent(row.threshold)


if __name__ == "__main__":
    results_page(body)
