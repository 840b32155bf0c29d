"""Texts, tables, histograms and images that the script logged, at a chosen step."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.charts import text
from dashboard.charts.layers import sized
from dashboard.page import card, show
from dashboard.server.reads import shared
from dashboard.sidebar import View
from trainvitals.store.samples import Sample

MOST_AT_ONCE, MOST_TEXT = 12, 20_000


def draw(view: View) -> None:
    """The samples of the run, by name; the newest step unless another is chosen."""
    samples = shared(view.path).read(("samples", view.steps), lambda run: run.samples(steps=view.steps))
    if not samples:
        st.caption(":material/visibility_off: **No samples.** Log some with tap.log_text, tap.log_table, "
                   "tap.log_histogram or tap.log_image.")
        return
    names = sorted({s.name for s in samples})
    name = st.selectbox("Name", names, key="sample", bind="query-params", format_func=lambda n: text.plain(n, 120))
    of_name = [s for s in samples if s.name == name]
    steps = sorted({s.step for s in of_name if s.step is not None})
    if len(steps) > 1:
        step = st.select_slider("Step", steps, value=steps[-1], key="sample_step", bind="query-params")
        of_name = [s for s in of_name if s.step == step]
    with st.grid(2, min_column_width=360, gap="small"):
        for i, sample in enumerate(of_name[:MOST_AT_ONCE]):
            with st.container():
                _one(sample, i)
    if len(of_name) > MOST_AT_ONCE:
        st.caption(f"The first {MOST_AT_ONCE} of {len(of_name):,} at this step.")


def _one(sample: Sample, number: int) -> None:
    at = "no step" if sample.step is None else f"step {sample.step:,}"
    note = ", ".join(filter(None, [at, f"rank {sample.rank}" if sample.rank else "", _left_out(sample.data)]))
    with card(text.md(sample.name, 80), text.md(note, 200)):
        what = sample.read()
        if what is None:
            st.caption(":material/broken_image: This sample is damaged.")
        elif sample.kind == "text":
            st.text(_readable(what))
        elif sample.kind == "table":
            st.dataframe(_harmless(what), hide_index=True, width="stretch", key=f"table-{number}")
        elif sample.kind == "histogram":
            show(_bars(*what), f"histogram-{number}", f"Histogram {sample.name} at {at}")
        elif sample.kind == "image":
            st.image(what, caption=text.md(sample.data.get("caption", ""), 300) or None)
        else:
            st.caption(f"A sample of a kind that this version does not draw: {text.md(sample.kind, 40)}.")


def _left_out(data: dict[str, object]) -> str:
    if "cut_from" in data:
        return f"cut from {text.plain(data['cut_from'], 40)}"
    if "scaled_from" in data:
        return f"scaled from {text.plain(data['scaled_from'], 40)}"
    return ""


def _readable(words: object) -> str:
    lines = str(words)[:MOST_TEXT].splitlines()
    return "\n".join(text.plain(line.replace("\t", "    "), 2_000) for line in lines)


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.copy()
    shown.columns = pd.Index([text.plain(name, 80) for name in table.columns])
    for place, column in enumerate(table.columns):
        if table[column].dtype == object or str(table[column].dtype) in ("str", "string"):
            shown.isetitem(place, [text.plain(v, 1_000) for v in table[column]])
    return shown


def _bars(counts: Sequence[float], edges: Sequence[float]) -> alt.LayerChart:
    data = pd.DataFrame({"low": list(edges)[:-1], "high": list(edges)[1:], "count": list(counts)})
    bars = alt.Chart(data).mark_bar().encode(
        x=alt.X("low:Q", title="value", scale=alt.Scale(nice=False, zero=False)), x2="high:Q",
        y=alt.Y("count:Q", title="count"),
        tooltip=[alt.Tooltip("low:Q", title="from", format=".4~g"), alt.Tooltip("high:Q", title="to", format=".4~g"),
                 alt.Tooltip("count:Q", title="count", format=",")],
    )
    return sized(alt.layer(bars), 200)
