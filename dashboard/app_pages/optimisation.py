"""Optimisation: gradient norms, learning rate against its plan, update ratios, clipping."""

import streamlit as st

from dashboard.charts import plots
from dashboard.page import card, labels, line_card, missing, page, plain_marks, show, table
from dashboard.server import reads
from dashboard.sidebar import View

ICON, PLACE = ":material/tune:", 3

HEAT_COLUMNS = 160


def body(view: View) -> None:
    """Draw the page."""
    _by_layer(view, "grad/norm_by_layer", "Gradient norm", "L2 norm before clipping", "heat-grad", "norm")
    left, right = st.columns(2, gap="small")
    with left:
        _gradient(view)
    with right:
        _rate(view)
    left, right = st.columns(2, gap="small")
    with left:
        line_card(
            view,
            "update/ratio",
            "Update ratio",
            "1",
            note="norm of the weight change over that of the weights",
            log=True,
        )
    with right:
        line_card(
            view,
            "grad/clipped",
            "Clip rate",
            "share of steps",
            note="in which clipping shrank the gradient",
            percent=True,
            log=False,
            points=80,
            band=False,
        )
    _by_layer(
        view, "update/ratio_by_layer", "Update ratio", "norm of the weight change over that of the weights",
        "heat-update", "ratio",
    )  # fmt: skip


def _gradient(view: View) -> None:
    with card("Global gradient norm", "before clipping; after clipping dashed"):
        if missing(view, "grad/norm", "gradient norm"):
            return
        parts = [table(view, "grad/norm")]
        if reads.has(view.path, "grad/norm_clipped"):
            parts.append(table(view, "grad/norm_clipped", overlay=False).assign(run="after clipping"))
        chart = plots.lines(
            plots.joined(parts), "1", height=190, log=view.choice.log, steps=view.axis, marks=plain_marks(view)
        )
        show(chart, "grad-norm", "Global gradient norm before and after clipping over steps")


def _rate(view: View) -> None:
    with card("Learning rate", "used by the optimizer; planned dashed"):
        if missing(view, "lr/used", "learning rate"):
            return
        parts = [table(view, "lr/used")]
        if reads.has(view.path, "lr/planned"):
            parts.append(table(view, "lr/planned", overlay=False).assign(run="planned"))
        data = plots.joined(parts)
        chart = plots.lines(
            data,
            "1",
            height=190,
            log=view.choice.log,
            steps=view.axis,
            order=labels(view, data),
            marks=plain_marks(view),
        )
        show(chart, "lr", "Learning rate used and planned over steps")


def _by_layer(view: View, signal: str, name: str, definition: str, key: str, value_title: str) -> None:
    """Heat map of a per-layer signal, layers down and steps across."""
    with card(f"{name} per layer", f"{definition}, logarithmic colour"):
        if not missing(view, signal, f"{name.lower()} per layer"):
            data = table(view, signal, points=HEAT_COLUMNS, overlay=False)
            chart = plots.heatmap(
                data,
                "1",
                order=labels(view, data),
                row_title="layer",
                log=True,
                steps=view.axis,
                value_title=value_title,
            )
            show(chart, key, f"{name} of every layer over steps")


if __name__ == "__main__":
    page(body)
