"""Optimisation: gradient norms, learning rate against its plan, update ratios, clipping."""

import streamlit as st

from dashboard import plots, reads
from dashboard.pages import card, labels, line_card, missing, page, plain_marks, show, table
from dashboard.sidebar import View

HEAT_COLUMNS = 160


def body(view: View) -> None:
    """Draw the page."""
    with card("Gradient norm per layer", "L2 norm before clipping, logarithmic colour"):
        if not missing(view, "grad/norm_by_layer", "gradient norm per layer"):
            data = table(view, "grad/norm_by_layer", points=HEAT_COLUMNS, overlay=False)
            chart = plots.heatmap(
                data,
                "1",
                order=labels(view, data),
                row_title="layer",
                log=True,
                steps=view.axis,
                value_title="norm",
            )
            show(chart, "heat-grad", "Gradient norm of every layer over steps")
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
    with card("Update ratio per layer", "norm of the weight change over that of the weights, logarithmic colour"):
        if not missing(view, "update/ratio_by_layer", "update ratio per layer"):
            data = table(view, "update/ratio_by_layer", points=HEAT_COLUMNS, overlay=False)
            chart = plots.heatmap(
                data,
                "1",
                order=labels(view, data),
                row_title="layer",
                log=True,
                steps=view.axis,
                value_title="ratio",
            )
            show(chart, "heat-update", "Update ratio of every layer over steps")


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


page(body)
