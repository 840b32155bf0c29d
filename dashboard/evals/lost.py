"""Clusters of lost items as cards, and the work list."""

from __future__ import annotations

import io

import altair as alt
import pandas as pd
import streamlit as st

from checks.evals.clusters import LEAST_LOST, Cluster, Found
from checks.evals.clusters_command import COLUMNS, work_list
from dashboard.charts import text
from dashboard.charts.layers import sized
from dashboard.charts.levels import LEVELS
from dashboard.evals.charts import AXIS, PLAIN_HUE, ROW
from dashboard.page import card, show
from dashboard.release.banner import banner
from trainvitals.spreadsheet import write_csv

MOST_CARDS, MOST_EXEMPLARS, MOST_LISTED, CUT = 12, 3, 200, 160
FACETS = {
    "task": "a whole task", "group": "a group that the harness names", "cluster": "items that share a source",
    "tool": "a tool", "length": "how long the prompt is", "opening": "how the prompt begins",
    "text": "prompts that are alike; named by their terms",
}  # fmt: skip


def head(found: Found) -> None:
    """What was found, and what it rests on."""
    counted = (f"Of {found.items:,} items {found.lost:,} went from right to wrong and {found.won:,} from wrong to "
               f"right; {text.plural(found.slices, 'slice')} looked at, near-duplicates merged ({found.copies:,}).")
    if not found.items:
        banner(LEVELS["unknown"], "Nothing could be compared", "No task has the same items at both checkpoints.",
               found.notes[:3])
    elif found.clusters:
        first = found.clusters[0]
        verb = "was" if len(found.clusters) == 1 else "were"
        banner(LEVELS["warn"], f"{text.plural(len(found.clusters), 'kind')} of items {verb} lost", counted,
               [f"{first.name}: {first.look_at}"])
    elif found.lost < LEAST_LOST:
        banner(LEVELS["unknown"], "Too few lost items to sort", counted, [f"A kind needs {LEAST_LOST} at the least."])
    else:
        banner(LEVELS["pass"], "No kind of item stands out", counted,
               ["In no slice that was looked at are they more than chance puts there."])


def draw(found: Found) -> None:
    """The gains in one chart, then a card for each cluster, and what was not looked at."""
    if found.clusters:
        left, right = st.columns([4, 1], gap="small", vertical_alignment="bottom")
        left.caption("A cluster holds more of the lost items than chance puts there, and lost more than it won, both "
                     "at 5 % after Benjamini and Hochberg over all slices. They rank findings; they prove no cause.")
        right.download_button("Work list", lambda: as_csv(found), "work_list.csv", "text/csv", key="work-list",
                              icon=":material/download:", width="stretch", on_click="ignore",
                              help="A row for each lost item, the most valuable first, as `trainvitals evals clusters "
                                   "--out` writes it.")  # fmt: skip
        with card("What mending would give", "points of the mean over all tasks, were a cluster's net loss mended"):
            show(_gains(found), "gains", "Gain of every cluster if it were mended")
    for rank, one in enumerate(found.clusters[:MOST_CARDS], 1):
        _card(rank, one)
    if len(found.clusters) > MOST_CARDS:
        st.caption(f"The first {MOST_CARDS} of {len(found.clusters):,}; the work list has them all.")
    if found.notes and found.items:
        with st.expander(f"Left out: {text.plural(len(found.notes), 'note')}"):
            for note in found.notes[:MOST_LISTED]:
                st.caption(text.md(note, 300))


def _gains(found: Found) -> alt.LayerChart:
    shown = found.clusters[: 2 * MOST_CARDS]
    data = pd.DataFrame({
        "name": [f"{i}. {text.plain(c.name, 60)}" for i, c in enumerate(shown, 1)],
        "gain": [100 * c.gain for c in shown], "lost": [c.lost for c in shown], "lift": [c.lift for c in shown],
    })  # fmt: skip
    axis = alt.Axis(labelLimit=240, ticks=False, domain=False, labelPadding=8, labelOverlap=False)
    bars = alt.Chart(data).mark_bar(color=PLAIN_HUE, height=12, cornerRadiusEnd=2).encode(
        y=alt.Y("name:N", sort=list(data["name"]), title=None, axis=axis),
        x=alt.X("gain:Q", title="points", axis=alt.Axis(format=".4~g", tickCount=6)),
        tooltip=[alt.Tooltip("name:N", title="cluster"), alt.Tooltip("gain:Q", title="gain, points", format=".3~g"),
                 alt.Tooltip("lost:Q", title="lost items", format=","), alt.Tooltip("lift:Q", format=".3~g")],
    )  # fmt: skip
    return sized(alt.layer(bars), AXIS + ROW * len(data))


def _card(rank: int, one: Cluster) -> None:
    with card(f"{rank}. {text.md(one.value, 100)}", text.md(FACETS.get(one.facet, one.facet), 60)):
        with st.container(horizontal=True, gap="medium"):
            for name, value, what in (
                ("Lost", f"{one.lost:,} of {one.right:,}", "Items that were right, and are wrong now."),
                ("Against the rest", f"× {one.lift:.3g}", "Share lost, over the share of the rest."),
                ("If mended", f"+{100 * one.gain:.2g} points", "Of the mean over all tasks."),
                ("q", f"{one.q:.2g}", "p after Benjamini and Hochberg over all slices."),
            ):
                st.metric(name, value, help=what, width="content")
        st.markdown(text.md(one.look_at, 500))
        gains = ", ".join(f"{task} {100 * gain:+.2g}" for task, gain in list(one.task_gain.items())[:6])
        st.caption(f"Won back in the same slice: {one.won:,}. Points by task: {text.md(gains, 300)}.")
        _items(one, MOST_EXEMPLARS, f"exemplars-{rank}")
        if one.lost > MOST_EXEMPLARS:
            box = st.expander(f"All {one.lost:,} lost items", key=f"lost-{rank}", on_change="rerun")
            if box.open:
                with box:
                    _items(one, MOST_LISTED, f"all-{rank}")


def _items(one: Cluster, most: int, key: str) -> None:
    shown = one.lost_items[:most]
    data = pd.DataFrame({
        "Task": [text.plain(i.task, 60) for i in shown], "Item": [text.plain(i.item, 60) for i in shown],
        "Prompt": [text.plain(i.text, CUT) for i in shown], "Answer before": [text.plain(i.before, CUT) for i in shown],
        "Answer now": [text.plain(i.after, CUT) for i in shown],
    })  # fmt: skip
    st.dataframe(data, hide_index=True, key=key, row_height=28, height=min(36 + 28 * len(data), 316),
                 alt="Lost items with their prompts and answers")
    if len(one.lost_items) > most > MOST_EXEMPLARS:
        st.caption(f"The first {most} of {len(one.lost_items):,}; the work list has them all.")


def as_csv(found: Found) -> bytes:
    """The work list for a spreadsheet, which runs none of its texts."""
    out = io.StringIO(newline="")
    write_csv(out, COLUMNS, work_list(found))
    return out.getvalue().encode("utf-8", "replace")
