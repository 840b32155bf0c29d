"""Routing: how a mixture-of-experts model spreads tokens over its experts."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard.charts import plots, text
from dashboard.page import card, dark, labels, missing, page, plain_marks, show, table
from dashboard.server import reads
from dashboard.sidebar import View
from trainvitals.formulas import Array

ICON, PLACE = ":material/hub:", 4

ROWS = 100  # newest rows whose counts the two maps add up
MOST_LINES = 10


def body(view: View) -> None:
    """Draw the page."""
    if not reads.has(view.path, "router/tokens"):
        with card("Expert load"):
            missing(view, "router/tokens", "expert load")
        return
    _load(view)
    left, right = st.columns(2, gap="small")
    with left:
        _by_layer(view, "router/entropy", "Load entropy", "over ln(experts): 1 is balanced, 0 is one expert for all")
    with right:
        _by_layer(view, "router/max_vio", "MaxVio", "(largest − mean) / mean expert load: 0 is balanced")
    _one_layer(view)


def _load(view: View) -> None:
    span = reads.newest_steps(view.path, "router/tokens", ROWS, view.choice.last)
    counts, (layers, experts), first, last = reads.added_up(view.path, "router/tokens", span)
    with card("Expert load per layer", f"times the balanced load; tokens of {text.steps(first, last)}"):
        relative = reads.shares(counts) * len(experts)
        data = _cells(relative, layers, experts)
        chart = plots.grid(
            data,
            dark=dark(),
            rows=layers,
            columns=experts,
            row_title="layer",
            column_title="expert",
            value_title="× balanced",
            center=1.0,
            format=".2f",
        )
        show(chart, "expert-load", "Load of every expert in every layer, relative to a balanced one")


def _cells(values: Array, rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"row": [row for row in rows for _ in columns], "column": list(columns) * len(rows), "value": values.ravel()}
    )


def _by_layer(view: View, signal: str, title: str, note: str) -> None:
    with card(title, note):
        if missing(view, signal, title):
            return
        data = table(view, signal, points=300)
        found = labels(view, data)
        if len(found) <= MOST_LINES:
            chart = plots.lines(
                data, "1", order=found, height=200, steps=view.axis, marks=plain_marks(view), band=False
            )
        else:
            chart = plots.heatmap(
                data[data["run"] == ""],
                "1",
                order=found,
                row_title="layer",
                steps=view.axis,
                height=260,
                value_title=title,
            )
        show(chart, f"layers-{signal}", f"{title} of every layer over steps")


def _one_layer(view: View) -> None:
    layers, experts = reads.added_up(view.path, "router/tokens", reads.newest_steps(view.path, "router/tokens", 1))[1]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**One layer**", width="content")
        layer = st.selectbox("Layer", layers, key="layer", bind="query-params", width=240, label_visibility="collapsed")
    left, right = st.columns(2, gap="small")
    with left, card("Which domain loads which expert", f"times the balanced load, layer {text.md(layer, 40)}"):
        if not missing(view, "router/domain_tokens", "load per domain"):
            _domain_map(view, layer)
    with right, card("Load over time", f"share of tokens per expert, layer {text.md(layer, 40)}"):
        data = table(view, "router/load", points=120, overlay=False)
        names = {f"{layer}.{expert}": expert for expert in experts}
        own = data[data["label"].isin(list(names))]
        own = own.assign(label=own["label"].map(names))
        chart = plots.heatmap(
            own,
            "1",
            order=experts,
            row_title="expert",
            steps=view.axis,
            percent=True,
            height=260,
            center=1 / max(len(experts), 1),
            value_title="share",
        )
        show(chart, "layer-load", f"Share of tokens per expert of layer {layer} over steps")


def _domain_map(view: View, layer: str) -> None:
    span = reads.newest_steps(view.path, "router/domain_tokens", ROWS, view.choice.last)
    counts, (domains, layers, experts), _, _ = reads.added_up(view.path, "router/domain_tokens", span)
    cut = counts[:, layers.index(layer)]
    seen = [i for i, row in enumerate(cut) if row.sum() > 0]
    values = reads.shares(cut[seen]) * len(experts)
    rows = [domains[i] for i in seen]
    chart = plots.grid(
        _cells(values, rows, experts),
        dark=dark(),
        rows=rows,
        columns=experts,
        row_title="domain",
        column_title="expert",
        value_title="× balanced",
        center=1.0,
        format=".2f",
        height=260,
    )
    show(chart, "domain-expert", f"Load of every expert of layer {layer} by data domain, relative to a balanced one")


if __name__ == "__main__":
    page(body)
