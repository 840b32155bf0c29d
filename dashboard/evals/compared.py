"""One comparison: what changed in a task, how sure that is, and beside it all tasks of the same two checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from checks.evals.compare import Compared
from dashboard.charts import text
from dashboard.charts.levels import level_of
from dashboard.evals import charts
from dashboard.evals.signs import SIGNS, amount, points, sign_of
from dashboard.evals.stored import Pair, Stored
from dashboard.page import card, show

ERRORS = {
    "paired": "paired items",
    "clustered": "clustered, over items that belong together",
    "exact": "exact bounds on the items that changed, as few did",
    "none": "none",
}


def draw(stored: Stored, pair: Pair, one: Compared, every: Sequence[Compared]) -> None:
    """The task on the left, all tasks on the right."""
    left, right = st.columns([2, 3], gap="small")
    with left, card(text.md(one.task, 80), f"{text.md(pair[1], 50)} against {text.md(pair[0], 50)}"):
        _task(stored, pair, one)
    with right, card("All tasks", "difference in points, 95 % intervals by themselves; positive is better"):
        chart = charts.forest(every, one.task)
        if chart is None:
            st.caption(":material/visibility_off: No task of these two could be compared item by item.")
        else:
            show(chart, "forest", "Difference of every task with its 95 % interval")
            drawn = sum(o.difference is not None and points(o) for o in every)
            if drawn > charts.MOST_ROWS:
                st.caption(f"The worst {charts.MOST_ROWS} of {drawn:,}; the table below has them all.")
    with st.expander(f"As a table: {text.plural(len(every), 'task')}"):
        _table(every)


def _task(stored: Stored, pair: Pair, one: Compared) -> None:
    level, share = level_of(one.level), points(one)
    sign = SIGNS[sign_of(one)]
    st.markdown(f":{level.color}-badge[{level.icon} {level.word}] {sign.mark} {sign.word}")
    st.markdown(text.md(one.reason, 500))
    if one.difference is None:
        return
    low, high = one.interval or (None, None)
    with st.container(horizontal=True, gap="medium"):
        st.metric("Difference", amount(one.difference, share), width="content")
        interval = f"{amount(low, share).removesuffix(' points')} to {amount(high, share)}"
        st.metric("95 % interval", interval, width="content")
        st.metric("Items", f"{one.n:,}", width="content")
    scale, unit = (100, " points") if share else (1, "")
    facts = [
        f"Scores: {_mean(stored, one.task, pair[0])} before, {_mean(stored, one.task, pair[1])} now",
        f"Standard error {text.number(scale * one.se)}{unit}: {ERRORS.get(one.se_kind, one.se_kind)}"
        if one.se is not None else "",
        f"{one.clusters:,} clusters" if one.clusters is not None else "",
        f"Without pairing, and without what checkpoints add, it would be {text.number(scale * one.se_unpaired)}{unit}"
        if one.se_unpaired else "",
        f"A loss of {text.number(scale * one.detectable)}{unit} would show with 80 % chance"
        if one.detectable is not None else "",
        f"{one.lost:,} items from right to wrong, {one.won:,} from wrong to right" if one.lost is not None else "",
        f"p {one.p:.2g} of no loss, one-sided, after Holm over all tasks" if one.p is not None else "",
        f"McNemar's mid-p {one.mcnemar:.2g}, two-sided" if one.mcnemar is not None else "",
    ]  # fmt: skip
    for fact in filter(None, facts):
        st.caption(f"{text.md(fact, 200)}.")


def _mean(stored: Stored, task: str, checkpoint: str) -> str:
    own = stored.summaries
    found = own.loc[(own["task"] == task) & (own["checkpoint"] == checkpoint), "mean"]
    return "none" if found.empty or pd.isna(found.iloc[0]) else f"{found.iloc[0]:.4g}"


def _table(every: Sequence[Compared]) -> None:
    data = pd.DataFrame({
        "": [SIGNS[sign_of(one)].mark for one in every],
        "Task": [text.plain(one.task, 100) for one in every],
        "Difference": [amount(one.difference, points(one)) for one in every],
        "95 % interval": [
            "–" if one.interval is None else f"{amount(one.interval[0], points(one)).removesuffix(' points')} to "
            f"{amount(one.interval[1], points(one))}" for one in every],
        "Items": [one.n for one in every],
        "Clusters": [one.clusters for one in every],
        "Standard error": [one.se_kind for one in every],
        "p after Holm": [one.p for one in every],
        "Why": [text.plain(one.reason, 300) for one in every],
    })  # fmt: skip
    st.dataframe(data, hide_index=True, key="compared-all", row_height=28, height=min(36 + 28 * len(data), 420),
                 column_config={"p after Holm": st.column_config.NumberColumn(format="%.2g"),
                                "": st.column_config.TextColumn(width=40)},
                 alt="All tasks of the comparison")  # fmt: skip
