"""Loss: training and validation, global and per data domain."""

import pandas as pd
import streamlit as st

from dashboard import page as pages
from dashboard.charts import plots, text
from dashboard.page import POINTS, card, domains, labels, marks, missing, page, plain_marks, show, table
from dashboard.server import reads
from dashboard.sidebar import View
from dashboard.twins import twins_of

ICON, PLACE = ":material/show_chart:", 2

UNIT = "nats/token"
MOST_PANELS, MOST_CULPRITS = 12, 5


def body(view: View) -> None:
    """Draw the page."""
    with card("Training and validation loss", "mean cross-entropy per target token; validation dashed", UNIT):
        if not missing(view, "loss/train", "training loss"):
            data = _with_sets(view, _with_validation(view, "loss/train", "loss/val"))
            chart = plots.lines(data, UNIT, height=250, log=view.choice.log, steps=view.axis, marks=marks(view))
            show(chart, "loss-train", "Training loss and validation loss over steps")
    _against_twins(view)
    _per_domain(view)
    left, right = st.columns(2, gap="small")
    with left:
        pages.line_card(view, "loss/aux", "Router load-balancing loss", "nats", note="auxiliary, mean over forwards")
    with right:
        pages.line_card(
            view,
            "loss/nonfinite_tokens",
            "Tokens without a finite loss",
            "tokens",
            log=False,
            note="cross-entropy was NaN or infinite",
        )


def _against_twins(view: View) -> None:
    """What is left of the loss when a run on the same data is taken off; nothing where none is known."""
    found = twins_of(view.path, view.steps, POINTS)
    if found is None:
        return
    with card("Loss less its twins'", "runs on the same data; what is left is this run's own", "% of the loss"):
        chart = plots.lines(found.table, "%", height=170, steps=view.axis, marks=plain_marks(view))
        show(chart, "loss-twins", "Loss less that of each twin over steps, per cent")
        named = [c for c in found.culprits if c.cause != "unknown"][:MOST_CULPRITS]
        if named:
            words = "; ".join(f"step {c.step:,} ({c.percent:+.3g} %): {c.words}" for c in named)
            st.caption(f"Rows that stand out most. {text.md(words, 600)}")


def _with_validation(view: View, train: str, validation: str) -> pd.DataFrame:
    parts = [table(view, train)]
    if reads.has(view.path, validation):
        parts.append(table(view, validation, overlay=False).assign(run="validation"))
    return plots.joined(parts)


def _with_sets(view: View, data: pd.DataFrame) -> pd.DataFrame:
    """The loss, and that of every evaluation set by name."""
    if not reads.has(view.path, "loss/val_set"):
        return data
    sets = table(view, "loss/val_set", overlay=False)
    return plots.joined([data, sets.assign(run="validation " + sets["label"].astype(str), label="")])


def _per_domain(view: View) -> None:
    with card("Loss per data domain", "training with its range per bucket; validation dashed", UNIT):
        if missing(view, "loss/domain", "loss per domain"):
            return
        data = _with_validation(view, "loss/domain", "loss/val_domain")
        found = labels(view, data)
        same = st.toggle("Same scale", key="same_scale", bind="query-params", help="One value axis for all domains.")
        span = plots.span(data) if same else None
        with st.grid(3, min_column_width=280, gap="small"):
            for name in found[:MOST_PANELS]:
                chart = plots.lines(
                    data[data["label"] == name],
                    UNIT,
                    order=domains(view),
                    height=150,
                    legend=False,
                    log=view.choice.log,
                    steps=view.axis,
                    span=span,
                    heading=name,
                    marks=plain_marks(view),
                )
                show(chart, f"loss-domain-{found.index(name)}", f"Loss of domain {name} over steps")
        if len(found) > MOST_PANELS:
            st.caption(f"The first {MOST_PANELS} of {len(found)} domains.")


if __name__ == "__main__":
    page(body)
