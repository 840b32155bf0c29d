"""One chart for each choice, or one for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard.charts import plots, text
from dashboard.charts.layers import WIDE
from dashboard.page import POINTS, card, plain_marks, show
from dashboard.sidebar import View
from dashboard.signals.values import MOST_LINES, MOST_ROWS, Curve, curve
from trainvitals.errors import TrainVitalsError

HEAT_COLUMNS, MOST_TOGETHER = 160, 10


def draw(view: View, chosen: Sequence[str], one: bool) -> None:
    """The choices in their order; one that cannot be drawn says why in its place."""
    if one:
        _together(view, chosen)
        return
    with st.grid(2, min_column_width=360, gap="small"):
        for i, choice in enumerate(chosen):
            with st.container():
                _alone(view, choice, i)


def _alone(view: View, choice: str, number: int) -> None:
    found = _read(view, choice)
    if isinstance(found, str):
        with card(text.md(choice, 80)):
            st.caption(f":material/visibility_off: {text.md(found, 300)}")
        return
    with card(text.md(choice, 80), text.md(_note(found), 160), "" if found.unit == "1" else text.md(found.unit, 30)):
        key, words = f"signal-{number}", f"{choice} over steps"
        if found.labels > MOST_LINES:
            rows = list(dict.fromkeys(found.table["label"]))
            chart = plots.heatmap(found.table, found.unit, order=rows, row_title="label", steps=view.axis,
                                  log=view.choice.log)
            show(chart, key, words)
            if found.labels > MOST_ROWS:
                st.caption(f"The first {MOST_ROWS} of {found.labels:,} labels; one alone is {text.md(choice, 60)}"
                           "\\:label.")
            return
        chart = plots.lines(_with_other(view, choice, found.table), found.unit, height=200, log=view.choice.log,
                            steps=view.axis, marks=plain_marks(view))
        show(chart, key, words)
        _say_range(found)


def _together(view: View, chosen: Sequence[str]) -> None:
    curves, wrong = [], []
    for choice in chosen:
        found = _read(view, choice)
        if isinstance(found, str):
            wrong.append(found)
        elif found.labels > MOST_LINES:
            wrong.append(f"{choice} has {found.labels:,} labels: too many for one chart.")
        else:
            curves.append(found)
    parts = [c.table.assign(label=_names(c)) for c in curves]
    units = {c.unit for c in curves}
    unit = units.pop() if len(units) == 1 else "1"
    with card("Together", "" if len(units) < 1 else "on one axis, though their units differ",
              "" if unit == "1" else text.md(unit, 30)):
        if parts:
            data = plots.joined(parts)
            found_labels = list(dict.fromkeys(data["label"]))[:MOST_TOGETHER]
            chart = plots.lines(data[data["label"].isin(found_labels)], unit, order=found_labels, height=360,
                                log=view.choice.log, steps=view.axis, marks=plain_marks(view), band=len(parts) == 1,
                                room=WIDE)
            show(chart, "signals-together", "Chosen signals over steps")
            if data["label"].nunique() > MOST_TOGETHER:
                st.caption(f"The first {MOST_TOGETHER} of {data['label'].nunique():,} lines.")
        for words in wrong:
            st.caption(f":material/visibility_off: {text.md(words, 300)}")


def _read(view: View, choice: str) -> Curve | str:
    """The curve, or why there is none."""
    try:
        found = curve(view.path, choice, view.steps, POINTS)
        if found.labels > MOST_LINES:
            found = curve(view.path, choice, view.steps, HEAT_COLUMNS)
    except TrainVitalsError as error:
        return str(error)
    return found if len(found.table) else f"{choice} has no row between these steps."


def _with_other(view: View, choice: str, table: pd.DataFrame) -> pd.DataFrame:
    """The same of the run that this one is compared with, where it has it."""
    table = table.assign(run="")
    if view.compare is None:
        return table
    try:
        other = curve(view.compare.path, choice, view.steps, POINTS)
    except TrainVitalsError:
        return table
    return plots.joined([table, other.table.assign(run=text.plain(view.choice.compare_name, 60))])


def _names(found: Curve) -> pd.Series | str:
    labels = found.table["label"].astype(str)
    return found.title if found.labels <= 1 else found.title + ":" + labels


def _note(found: Curve) -> str:
    return found.meaning or ("logged by the script" if found.labels <= 1 else f"{found.labels:,} labels")


def _say_range(found: Curve) -> None:
    lost = int(found.table["nonfinite"].sum())
    if lost:
        st.caption(f"{text.plural(lost, 'value')} not finite.")
