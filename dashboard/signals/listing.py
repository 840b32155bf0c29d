"""The table of all signals, with what each one is and its course at a glance."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard.charts import text
from dashboard.server import reads
from dashboard.sidebar import View

MOST_COURSES, COURSE_POINTS = 60, 40
"""Signals whose course is drawn beside their name; a read costs some milliseconds."""


def draw(view: View, signals: pd.DataFrame) -> None:
    """The table, narrowed by the words in the search field."""
    wanted = st.text_input("Search", key="find", bind="query-params", placeholder="a part of a name or meaning",
                           icon=":material/search:", label_visibility="collapsed")
    found = matching(signals, wanted)
    own = int(found["own"].sum()) if len(found) else 0
    st.caption(f"{text.plural(len(found), 'signal')}, {own:,} of them logged by the script itself."
               + (f" The course is drawn for the first {MOST_COURSES}." if len(found) > MOST_COURSES else ""))
    if not len(found):
        return
    st.dataframe(_shown(view, found), hide_index=True, width="stretch", key="all-signals", column_config={
        "course": st.column_config.LineChartColumn("course", help="Mean of 40 stretches of the whole run."),
        "last": st.column_config.NumberColumn("last", format="%.4g", help="Newest value; empty with several labels."),
        "rows": st.column_config.NumberColumn("rows", format="localized"),
    })  # fmt: skip


def matching(signals: pd.DataFrame, wanted: str) -> pd.DataFrame:
    """The signals whose name or meaning holds every word."""
    words = wanted.lower().split()
    if not words or not len(signals):
        return signals
    texts = (signals["name"] + " " + signals["meaning"].fillna("")).str.lower()
    return signals[[all(word in where for word in words) for where in texts]]


def _shown(view: View, found: pd.DataFrame) -> pd.DataFrame:
    courses, last = [], []
    for i, row in enumerate(found.itertuples()):
        course = _course(view, str(row.name)) if i < MOST_COURSES and not row.axis else []
        courses.append(course)
        last.append(course[-1] if course else None)
    return pd.DataFrame({
        "signal": [text.plain(name, 120) for name in found["name"]],
        "course": courses,
        "last": last,
        "unit": [text.plain(unit, 30) if unit != "1" else "" for unit in found["unit"]],
        "by": [text.plain(axis.replace(".", " and "), 40) for axis in found["axis"]],
        "rows": found["points"].to_list(),
        "first step": found["first_step"].to_list(),
        "last step": found["last_step"].to_list(),
        "meaning": [text.plain(words, 200) for words in found["meaning"]],
    })  # fmt: skip


def _course(view: View, name: str) -> list[float]:
    table = reads.series(view.path, name, view.steps, COURSE_POINTS)
    return [float(v) for v in table["value"] if pd.notna(v)]
