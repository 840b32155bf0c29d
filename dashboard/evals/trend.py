"""A task over all checkpoints: its band, where a fall began, and the best checkpoint; beside it the other tasks."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from checks.evals.trend import Trend, trends
from dashboard.charts import plots, text
from dashboard.charts.levels import level_of
from dashboard.charts.live import Area, Mark
from dashboard.evals import company
from dashboard.evals.signs import SIGNS
from dashboard.evals.stored import Stored
from dashboard.failing import guarded
from dashboard.page import card, show

MOST_SHEETS = 5_000
"""Results with items up to which all tasks are looked at together: about 10 ms of CPU each."""
MOST_ROWS, COURSE_POINTS = 60, 40
JOB = "trends"
MARKS = {name: SIGNS[name].mark for name in ("fail", "warn", "unknown", "pass")}


def draw(stored: Stored, task: str, kind: str) -> None:
    """The task's course, and a table of all tasks once they are looked at together."""
    whole = _whole(stored)
    own = next((t for t in whole or () if t.task == task), None)
    if own is None:
        with st.spinner("Reading the checkpoints of this task"):
            alone = stored.read(("trend", task), lambda: trends(stored.evals, tasks=[task]))
        if not alone:
            st.caption(":material/visibility_off: **No trend.** No checkpoint of this task has a step. Import results "
                       "with `--step N`.")
            return
        own = alone[0]
    with card(text.md(task, 80), "score as the metric has it; band: 95 %, items and the noise of one checkpoint"):
        _told(own, whole is not None)
        show(_chart(own), "trend", f"Score of {task} over steps with its band")
        _best(own)
    if own.fall is not None:
        with guarded("The training in these steps"):
            company.draw(stored.path, own.fall)
    if whole is not None:
        names = set(stored.summaries.loc[stored.summaries["kind"] == kind, "task"])
        _table([t for t in whole if t.task in names])


def _whole(stored: Stored) -> list[Trend] | None:
    """All tasks, with their falls counted as so many looks; None where that is still, or too much, to work out."""
    if int((stored.summaries["rows"] > 0).sum()) > MOST_SHEETS:
        return None
    stored.later(JOB, lambda: trends(stored.evals))
    found: list[Trend] | None = stored.done(JOB)
    return found


def _told(own: Trend, whole: bool) -> None:
    level = level_of(own.level)
    if whole or own.fall is None:
        st.markdown(f":{level.color}-badge[{level.icon} {level.word}] {text.md(own.reason, 500)}")
        return
    fall = own.fall
    st.markdown(f":orange-badge[:material/trending_down: a fall by itself] Behind {text.md(fall.last_good, 60)} the "
                f"score is worse by {text.number(abs(fall.size))} (p {fall.p:.2g} over all places of this task). Over "
                "all tasks that may be chance: `trainvitals evals trend` counts them.")


def _chart(own: Trend) -> alt.LayerChart:
    data = pd.DataFrame({
        "step": [p.step for p in own.points], "value": [p.score for p in own.points], "lo": [p.low for p in own.points],
        "hi": [p.high for p in own.points], "label": "score",
    })  # fmt: skip
    fall = own.fall
    areas = [] if fall is None else [Area(fall.earliest_step, fall.latest_step, "fail", "the fall began here, 95 %")]
    marks = [] if own.best is None else [Mark(own.best.step, "best", f"best: {own.best.checkpoint}")]
    return plots.lines(data, "1", height=240, areas=areas, marks=marks, legend=False)


def _best(own: Trend) -> None:
    clusters = f" in {own.clusters:,} clusters" if own.clusters else ""
    facts = [f"{len(own.points):,} checkpoints, {f'{own.n:,} items{clusters}' if own.n else 'items not known'}"]
    if own.noise is not None:
        facts.append(f"one checkpoint adds a standard deviation of {text.number(own.noise)} beside the course")
    if own.best is not None:
        again = "" if own.best.again is None else f", {own.best.again:.4g} to be expected of it again"
        facts.append(f"best is {own.best.checkpoint} with {own.best.score:.4g}{again}; {len(own.best.as_good):,} of "
                     f"{len(own.points):,} may be as good (95 %)")
    st.caption(text.md(". ".join(fact[0].upper() + fact[1:] for fact in facts), 500) + ".")


def _table(found: Sequence[Trend]) -> None:
    shown = found[:MOST_ROWS]
    data = pd.DataFrame({
        "": [MARKS.get(t.level, "?") for t in shown],
        "Task": [text.plain(t.task, 80) for t in shown],
        "Course": [_course(t) for t in shown],
        "Fall": ["" if t.fall is None else f"{t.fall.size:+.3g}" for t in shown],
        "Began after": ["" if t.fall is None else text.plain(t.fall.last_good, 40) for t in shown],
        "Recovered": ["" if t.fall is None else "yes" if t.fall.recovered else "no" for t in shown],
        "Best": ["" if t.best is None else text.plain(t.best.checkpoint, 40) for t in shown],
        "As good": [None if t.best is None else len(t.best.as_good) for t in shown],
        "Why": [text.plain(t.reason, 300) for t in shown],
    })  # fmt: skip
    with card("Trends of all tasks", "a fall is corrected over all places and all tasks of the run (Holm)"):
        st.dataframe(data, hide_index=True, key="trends", row_height=28, height=min(36 + 28 * len(data), 400),
                     column_config={"": st.column_config.TextColumn(width=40),
                                    "Course": st.column_config.LineChartColumn(help="Scores, oldest first."),
                                    "Fall": st.column_config.TextColumn(help="Of the score; negative is worse."),
                                    "As good": st.column_config.NumberColumn(help="Checkpoints that may be the best.")},
                     alt="Trend of every task")  # fmt: skip
        if len(found) > MOST_ROWS:
            st.caption(f"The worst {MOST_ROWS} of {len(found):,}; `trainvitals evals trend` prints them all.")


def _course(one: Trend) -> list[float]:
    if not one.points:
        return []
    return [one.points[i].score for i in np.unique(np.linspace(0, len(one.points) - 1, COURSE_POINTS).astype(int))]
