"""What the charts of the scaling page share: the run on them, logarithmic axes with units, marks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

from checks.scaling._ladder import Size
from checks.scaling.models import MODELS
from dashboard.charts.layers import AXIS_WIDTH, MARK_HUE
from dashboard.scaling.ladders import Chosen

HUE, RUN_HUE = "#3f7fd0", "#d9822b"
STAR = "M0,-1L.29,-.4L.95,-.31L.48,.15L.59,.81L0,.5L-.59,.81L-.48,.15L-.95,-.31L-.29,-.4Z"
RAMP = ("#6ca0e3", "#9068c0", "#d4552f")
"""From small to large, readable on light and on dark."""
GRID = 48
"""Points of a frontier and of its band."""
POWER = (
    "datum.value >= 1e14 ? replace(format(datum.value, '.0e'), '+', '') "
    ": replace(format(datum.value, '~s'), 'G', 'B')"
)


@dataclass(frozen=True, slots=True)
class Reached:
    """A run on the charts."""

    name: str
    size: Size
    loss: float | None = None
    """Final loss, or its forecast; None where neither is known."""
    low: float | None = None
    high: float | None = None
    what: str = "final loss"


def span_of(chosen: Chosen, run: Reached | None, budget: float, models: bool) -> tuple[float, float]:
    """Both ends of the compute axis."""
    seen = [budget]
    if chosen.whole is not None:
        seen += [float(chosen.whole.flops.min()), float(chosen.whole.flops.max())]
    elif chosen.reference is not None:
        seen += chosen.reference.flops
    if run is not None:
        seen.append(run.size.flops)
    if models:  # with room for a name beside the largest
        seen += [max(model.flops for model in MODELS) * 6]
    return outwards(min(seen) / 2, max(seen) * 2)


def outwards(low: float, high: float) -> tuple[float, float]:
    """Both ends moved out to quarters of a decade, so that an axis stands still while a slider moves."""
    return 10 ** (math.floor(4 * math.log10(low)) / 4), 10 ** (math.ceil(4 * math.log10(high)) / 4)


def tip(name: str, title: str) -> alt.Tooltip:
    """A number with its magnitude as a letter."""
    return alt.Tooltip(f"{name}:Q", title=title, format=".3~s")


def decades(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first < 2:  # 1, 2, 5 of each
        fine = [m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [value for value in fine if low <= value <= high]
    step = (last - first) // 7 + 1
    return [10.0**k for k in range(first, last + 1, step)]


def flops_axis(span: tuple[float, float]) -> alt.X:
    return log_x("flops:Q", "Compute, FLOPs", span)


def log_x(field: str, title: str, span: tuple[float, float]) -> alt.X:
    axis = alt.Axis(
        labelExpr=POWER, values=decades(*span), grid=False, labelFlush=True, titlePadding=3, labelOverlap=True
    )
    return alt.X(field, title=title, axis=axis, scale=alt.Scale(type="log", domain=list(span), nice=False))


def log_y(field: str, title: str, span: tuple[float, float]) -> alt.Y:
    axis = alt.Axis(labelExpr=POWER, minExtent=AXIS_WIDTH, values=decades(*span))
    return alt.Y(field, title=title, axis=axis, scale=alt.Scale(type="log", domain=list(span), nice=False))


def loss_y(field: str) -> alt.Y:
    return alt.Y(field, title="Loss, nats/token", scale=alt.Scale(zero=False),
                 axis=alt.Axis(minExtent=AXIS_WIDTH, tickCount=6))


def size_color(field: str, title: str, *, legend: bool = True) -> alt.Color:
    shown = alt.Legend(
        title=title, labelExpr=POWER, type="gradient", gradientLength=110, gradientThickness=9, titleFontSize=11
    )
    return alt.Color(field, scale=alt.Scale(type="log", range=list(RAMP)), legend=shown if legend else None)


def planned(data: pd.DataFrame | alt.NamedData, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The compute that is planned with, and the best use of it. data: flops, value."""
    base = alt.Chart(data).encode(x=x)
    return [
        base.mark_rule(color=MARK_HUE, strokeDash=[3, 3], opacity=0.8, clip=True),
        base.mark_point(shape="circle", size=80, color=HUE, strokeWidth=2, fill="white", opacity=1, clip=True).encode(
            y=y, tooltip=[tip("flops", "planned with, FLOPs"), tip("value", "best")]),
    ]


def star(data: pd.DataFrame | alt.NamedData, x: alt.X, y: alt.Y, title: str) -> alt.Chart:
    """The run. data: flops, value, label."""
    tips = [alt.Tooltip("label:N", title="this run"), tip("flops", "compute, FLOPs"), tip("value", title)]
    mark: alt.Chart = alt.Chart(data).mark_point(
        shape=STAR, size=210, filled=True, color=RUN_HUE, stroke="white", strokeWidth=0.8, opacity=1, clip=True
    ).encode(x=x, y=y, tooltip=tips)  # fmt: skip
    return mark
