"""Up to ten runs in one chart, each with a colour and a dash of its own, against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.charts import plots, text
from dashboard.charts.layers import WIDE
from dashboard.page import POINTS, card, show
from dashboard.server import reads

MOST_RUNS = 10
SIGNALS = {
    "loss": ("loss/train", "nats/token"), "validation loss": ("loss/val", "nats/token"),
    "gradient norm": ("grad/norm", "1"), "learning rate": ("lr/used", "1"),
    "tokens/s": ("throughput/tokens_per_s", "tokens/s"),
}  # fmt: skip


def draw(runs: Mapping[str, str], names: Sequence[str], baseline: str) -> None:
    """One signal of the chosen runs over steps, or less the baseline's."""
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    what = left.segmented_control("Signal", list(SIGNALS), default="loss", key="overlaid", bind="query-params",
                                  required=True, label_visibility="collapsed")
    less = right.toggle("Less the baseline", key="less", bind="query-params", disabled=baseline not in names)
    signal, unit = SIGNALS[what]
    tables = {name: reads.series(runs[name], signal, None, POINTS) for name in names[:MOST_RUNS]}
    have = {name: table[table["label"] == table["label"].iloc[0]] for name, table in tables.items() if len(table)}
    lacking = [name for name in names[:MOST_RUNS] if name not in have]
    if less and baseline in have:
        have = {name: minus(table, have[baseline]) for name, table in have.items() if name != baseline}
    with card(f"{what[0].upper()}{what[1:]} of {text.plural(len(have), 'run')}",
              "less the baseline's" if less else "", "" if unit == "1" else unit):
        if have:
            data = plots.joined([table.assign(label=text.plain(name, 60), run="") for name, table in have.items()])
            show(plots.lines(data, unit, order=[text.plain(name, 60) for name in have], height=320, room=WIDE,
                             band=False), "overlay", f"{what} of several runs over steps, {unit}")
        for name in lacking:
            st.caption(f":material/visibility_off: {text.md(name, 80)} holds no `{signal}`.")
    if len(names) > MOST_RUNS:
        st.caption(f"The first {MOST_RUNS} of {len(names):,} chosen runs.")


def minus(table: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """A run less another, where both have rows: the other is read off between its own points."""
    known = base.dropna(subset=["value"])
    inside = table["step"].between(known["step"].min(), known["last_step"].max()) if len(known) else table["step"] < 0
    kept = table[inside].copy()
    middle = (kept["step"] + kept["last_step"]) / 2
    other = np.interp(middle, (known["step"] + known["last_step"]) / 2, known["value"]) if len(known) else middle
    for column in ("value", "lo", "hi"):
        kept[column] = kept[column] - other
    return kept
