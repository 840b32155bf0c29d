"""Throughput: tokens per second, step time, data wait, utilisation, memory."""

import streamlit as st

from dashboard.charts import plots, text
from dashboard.page import card, labels, line_card, mfu, missing, page, plain_marks, show, table
from dashboard.server import reads
from dashboard.sidebar import View

ICON, PLACE = ":material/speed:", 6

MEMORY = {
    "system/rss_bytes": "process, resident",
    "system/device_peak_bytes": "device, peak allocated",
    "system/device_reserved_bytes": "device, reserved",
}


def body(view: View) -> None:
    """Draw the page."""
    left, right = st.columns(2, gap="small")
    with left:
        line_card(
            view,
            "throughput/tokens_per_s",
            "Throughput",
            "tokens/s",
            log=False,
            note="all ranks, in the slowest rank's time",
        )
    with right:
        line_card(view, "throughput/step_time", "Step time", "s", log=False, note="wall time, slowest rank")
    left, right = st.columns(2, gap="small")
    with left:
        line_card(
            view,
            "throughput/data_wait_share",
            "Data wait",
            "share of the step",
            percent=True,
            log=False,
            note="until the batch was there, worst rank",
        )
    with right:
        _mfu(view)
    left, right = st.columns(2, gap="small")
    with left:
        _ranks(view)
    with right:
        _memory(view)


def _mfu(view: View) -> None:
    value, why = mfu(view)
    with card("Model FLOP utilisation", text.md(view.run.card.mfu_convention, 90)):
        if value == "unknown":
            st.markdown(f"**unknown** :gray[{text.md(why, 300)}]")
            return
        chart = plots.lines(
            table(view, "throughput/mfu"), "1", height=180, percent=True, steps=view.axis, marks=plain_marks(view)
        )
        show(chart, "mfu", "Model FLOP utilisation over steps")


def _ranks(view: View) -> None:
    signal = "throughput/step_time_by_rank"
    with card("Step time per rank", "a slow rank holds up all others", "s"):
        if missing(view, signal, "step time per rank"):
            return
        data = table(view, signal, points=300, overlay=False)
        ranks = labels(view, data)
        if len(ranks) <= 4:
            chart = plots.lines(
                data,
                "s",
                order=ranks,
                height=180,
                steps=view.axis,
                marks=plain_marks(view),
            )
        else:
            chart = plots.heatmap(
                data,
                "s",
                order=ranks,
                row_title="rank",
                steps=view.axis,
                value_title="s",
            )
        show(chart, "ranks", "Step time of every rank over steps")


def _memory(view: View) -> None:
    with card("Memory", "worst rank", "GiB"):
        found = [name for name in MEMORY if reads.has(view.path, name)]
        if not found:
            missing(view, "system/rss_bytes", "memory")
            return
        parts = [plots.scaled(table(view, name, overlay=False).assign(label=MEMORY[name]), 1 / 2**30) for name in found]
        chart = plots.lines(
            plots.joined(parts),
            "GiB",
            order=[MEMORY[name] for name in found],
            height=180,
            steps=view.axis,
            marks=plain_marks(view),
        )
        show(chart, "memory", "Memory over steps")


if __name__ == "__main__":
    page(body)
