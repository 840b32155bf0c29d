"""Latency: how long do tools and workflows take, did they get slower, and what does a solved task cost?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from checks.evals.latency import Estimate
from dashboard.charts import text
from dashboard.evals import charts
from dashboard.evals.frame import checkpoint_of, results_page
from dashboard.evals.gates import FAMILIES
from dashboard.evals.matrix import pair_of
from dashboard.evals.speed import MOST_NAMES, QUANTILES, Speed, costs, sheets_of, speeds
from dashboard.evals.stored import Stored
from dashboard.failing import guarded
from dashboard.page import card, show
from dashboard.release import beside
from dashboard.sidebar import Choice

ICON, PLACE, RUN, SECTION = ":material/timer:", 23, "always", "Release"

KINDS = ("latency", "cost")
WHAT = {"tool": "tool", "workflow": "workflow", "model": "model alone"}
MOST_COSTS = 60


def body(choice: Choice, stored: Stored) -> None:
    """Draw the page."""
    with guarded("What the review says"):
        beside.draw(choice, KINDS, "Latency and cost", "[latency.TOOL] p95_s = 2.0")
    names = list(reversed(stored.evals.checkpoints))
    left, right = st.columns([1, 3], gap="small", vertical_alignment="bottom")
    with left:
        checkpoint = checkpoint_of(names)
    pair = pair_of(stored, checkpoint, "")
    before = pair[0] if pair else ""
    right.caption(f"Held against {text.md(before, 80)}, the checkpoint before." if before else
                  "It is the first checkpoint: there is none to hold it against.")
    around = stored.summaries["kind"] == "workflow"
    model = st.toggle("Tasks of the model alone, too", key="model_alone", bind="query-params", value=not around.any(),
                      help="Half a second of computing for each task.")
    with st.spinner("Resampling requests by session"):
        found, spent = stored.read(("speed", checkpoint, model),
                                   lambda: _measured(stored, checkpoint, before, model))
    if not found:
        st.caption(":material/visibility_off: **No latencies.** The results of this checkpoint do not say how long an "
                   "answer took. Import Inspect logs, or a table with the column latency_s (seconds).")
    else:
        with guarded("Latency"):
            _latencies(found, checkpoint, before)
    with guarded("Cost"):
        _costs(spent)


def _measured(stored: Stored, checkpoint: str, before: str, model: bool) -> tuple[list[Speed], pd.DataFrame]:
    after = sheets_of(stored.evals, checkpoint)
    then = sheets_of(stored.evals, before) if before else {}
    tasks = [t for t, sheet in after.items() if sheet.kind == "workflow" or model and sheet.family not in FAMILIES]
    return speeds(after, then, model), pd.DataFrame([
        {"Task": text.plain(row.name.removeprefix("cost.").rpartition(".")[0], 80),
         "Unit": "dollars" if row.name.endswith("usd_per_solved") else "tokens", "Per solved task": row.value,
         "95 % from": row.low, "to": row.high, "Tasks": row.n or None,
         "Why unknown": "" if row.value is not None else text.plain(row.sentence, 200)}
        for row in costs(after, tasks[:MOST_COSTS])
    ])  # fmt: skip


def _latencies(found: Sequence[Speed], checkpoint: str, before: str) -> None:
    slow = [s for s in found if s.slower]
    with card("Latency", "p50, p95, p99 in seconds, 95 % bounds on each side; hollow: the checkpoint before"):
        if slow:
            worst = max(slow, key=lambda s: s.change.value if isinstance(s.change, Estimate) else 0.0)
            st.markdown(f":orange[:material/trending_up: **{text.plural(len(slow), 'slower p95', 'slower p95')}**] "
                        "beyond chance, each by itself; most "
                        f"{text.md(worst.name, 60)}: {text.md(_change(worst.change), 60)}.")
        chart = charts.latencies(found, text.plain(checkpoint, 40), text.plain(before, 40))
        if chart is not None:
            show(chart, "latencies", "Quantiles of latency per tool and workflow with bounds")
        data = pd.DataFrame([
            {"Name": text.plain(s.name, 80), "Of": WHAT.get(s.what, s.what), "Requests": s.n, "Sessions": s.sessions,
             **{f"p{100 * q:g}, s": _seconds(s.seconds[q]) for q in QUANTILES},
             "p95 against before": ("▼ slower: " if s.slower else "") + _change(s.change)} for s in found
        ])  # fmt: skip
        whole = st.column_config.NumberColumn(format="localized")
        st.dataframe(data, hide_index=True, key="latency", row_height=28, height=min(36 + 28 * len(data), 400),
                     column_config={"Requests": whole, "Sessions": whole},
                     alt="Quantiles of latency per tool and workflow")  # fmt: skip
        if len(found) >= MOST_NAMES:
            st.caption(f"The first {MOST_NAMES} names, tools and workflows before tasks of the model alone.")


def _seconds(one: Estimate | str) -> str:
    if isinstance(one, str):
        return f"unknown: {one}"
    return f"{_s(one.value)} [{_s(one.low)}, {_s(one.high)}]"


def _s(value: float) -> str:
    return "timed out" if math.isinf(value) else text.number(value)


def _change(one: Estimate | str) -> str:
    if isinstance(one, str):
        return f"unknown: {one}"
    return " ".join([_percent(one.value), f"[{_percent(one.low)}, {_percent(one.high)}]"])


def _percent(value: float) -> str:
    return "timed out" if math.isinf(value) else f"{value:+.0%}"


def _costs(spent: pd.DataFrame) -> None:
    with card("Cost of a solved task", "all that was spent over the tasks that were solved"):
        known = spent[spent["Per solved task"].notna()] if len(spent) else spent
        if known.empty:
            st.caption(":material/visibility_off: **No cost.** The results tell no dollars and no tokens for every "
                       "item, or no task is solved. Import results with tokens_in, tokens_out or cost_usd.")
            return
        if (spent["Why unknown"] == "").all():
            spent = spent.drop(columns="Why unknown")
        number = st.column_config.NumberColumn(format="%.4g")
        st.dataframe(spent, hide_index=True, key="cost", row_height=28, height=min(36 + 28 * len(spent), 400),
                     column_config={"Per solved task": number, "95 % from": number, "to": number},
                     alt="Dollars and tokens per solved task")


if __name__ == "__main__":
    results_page(body)
