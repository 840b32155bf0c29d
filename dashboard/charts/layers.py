"""What the analytical charts are made of: prepared tables, axes, scales, colours and the layers that several share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts.levels import LEVELS
from dashboard.charts.live import Area, Mark
from dashboard.charts.text import plain

AXIS_WIDTH = 46
"""Pixels kept for the labels of a value axis, so that charts above one another line up."""

MARK_HUE = "#8592a3"

COUNTERPARTS = ("validation", "planned", "after clipping")
"""Names of second lines that belong to the run itself."""


def with_columns(table: pd.DataFrame, log: bool) -> pd.DataFrame:
    """A copy with every column that the charts name, and values that a scale can place."""
    data = table.copy()
    for name, default in (("label", ""), ("run", ""), ("nonfinite", 0)):
        if name not in data:
            data[name] = default
    for name in ("lo", "hi", "last_step"):
        if name not in data:
            data[name] = data["step" if name == "last_step" else "value"]
    drawable = ["value", "lo", "hi"]
    data[drawable] = data[drawable].astype("float64").replace([np.inf, -np.inf], np.nan)
    data["label"] = harmless(data["label"])
    if log:
        data[drawable] = data[drawable].where(data[drawable] > 0)
    return data.reset_index(drop=True)


def harmless(names: pd.Series) -> pd.Series:
    """Labels as charts write them: without control or direction-changing characters."""
    return names.map({name: plain(name) for name in names.unique()})


def step_axis(steps: tuple[int, int] | None) -> alt.X:
    scale = alt.Scale(domain=list(steps), nice=False) if steps else alt.Scale(nice=False, zero=False)
    return alt.X(
        "step:Q",
        title=None,
        scale=scale,
        axis=alt.Axis(
            format=",d",
            grid=False,
            tickCount=6,
            labelFlush=True,
            tickMinStep=1,
            labelExpr="datum.index == 0 ? 'step ' + datum.label : datum.label",
        ),
    )


def value_scale(log: bool, span: tuple[float, float] | None) -> alt.Scale:
    ends = alt.Undefined if span is None else list(span)
    if log:
        return alt.Scale(type="log", nice=False, domain=ends)
    return alt.Scale(zero=False, nice=span is None, domain=ends)


def heading_layer(text: str) -> alt.Chart:
    """The label as a text mark: a chart title would be a part of the specification."""
    layer: alt.Chart = (
        alt.Chart(pd.DataFrame({"text": [plain(text, 42)]}))
        .mark_text(align="right", baseline="top", fontSize=12, fontWeight=600, color=MARK_HUE, dx=-4, dy=2, clip=True)
        .encode(x=alt.value("width"), y=alt.value(0), text="text:N")
    )
    return layer


NARROW, WIDE = 430, 880
"""Pixels that a row of a legend may take: beside another chart, and in one of a page's whole width."""
LEGEND_COLUMNS = 6


def label_color(order: Sequence[str], legend: bool | Sequence[str], room: int = NARROW) -> alt.Color:
    order = [plain(name) for name in order]
    named = order if legend is True else [] if legend is False else [name for name in order if name in set(legend)]
    shown = alt.Legend(
        title=None,
        orient="top",
        labelLimit=min(max(room // min(max(len(named), 1), LEGEND_COLUMNS) - 30, 40), room // 3),
        symbolType="stroke",
        symbolStrokeWidth=3,
        columns=LEGEND_COLUMNS,
        symbolOpacity=1,
        values=named,
        offset=4,
        padding=0,
    )
    return alt.Color(
        "label:N", sort=order, scale=alt.Scale(domain=order), legend=shown if len(named) > 1 else None
    )


def labels(data: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(data["label"]))


def runs(data: pd.DataFrame) -> list[str]:
    """What line styles tell apart: the run itself is solid, a counterpart on the same chart dashed, others dotted."""
    found = set(data["run"])
    fixed = [name for name in ("", *COUNTERPARTS) if name in found]
    return [*fixed, *sorted(found - set(fixed))]


def tooltip(unit: str, percent: bool) -> list[alt.Tooltip]:
    form = ".2%" if percent else ".4~g"
    suffix = f" ({unit})" if unit not in ("", "1") else ""
    return [
        alt.Tooltip("label:N", title="label"),
        alt.Tooltip("run:N", title="run"),
        alt.Tooltip("step:Q", title="step", format=",d"),
        alt.Tooltip("last_step:Q", title="to step", format=",d"),
        alt.Tooltip("value:Q", title="value" + suffix, format=form),
        alt.Tooltip("lo:Q", title="lowest", format=form),
        alt.Tooltip("hi:Q", title="highest", format=form),
        alt.Tooltip("nonfinite:Q", title="not finite"),
    ]


def nonfinite_layer(data: pd.DataFrame, x: alt.X, height: int) -> list[alt.Chart]:
    if not data["nonfinite"].gt(0).any():
        return []
    return [
        alt.Chart(data)
        .transform_filter("datum.nonfinite > 0")
        .mark_point(shape="triangle-up", filled=True, size=60, opacity=1, color=LEVELS["fail"].hue, yOffset=-5)
        .encode(
            x=x,
            y=alt.value("height"),
            tooltip=[
                alt.Tooltip("step:Q", title="not finite at step", format=",d"),
                alt.Tooltip("nonfinite:Q", title="values"),
            ],
        )
    ]


def mark_layers(marks: Sequence[Mark], x: alt.X) -> list[alt.Chart]:
    data = pd.DataFrame(
        {
            "step": [mark.step for mark in marks],
            "text": [mark.text for mark in marks],
            "event": [mark.name or mark.text for mark in marks],
        }
    )
    base = alt.Chart(data).encode(x=x, tooltip=[alt.Tooltip("event:N"), alt.Tooltip("step:Q", format=",d")])
    words = base.mark_text(
        angle=270, align="right", baseline="bottom", fontSize=10, dx=-2, dy=-3, color=MARK_HUE, limit=110
    )
    return [base.mark_rule(color=MARK_HUE, strokeDash=[2, 3], clip=True), words.encode(y=alt.value(0), text="text:N")]


def area_layer(areas: Sequence[Area], steps: tuple[int, int] | None) -> alt.Chart:
    data = pd.DataFrame(
        {
            "step": [area.first for area in areas],
            "end": [max(area.last, area.first + 1) for area in areas],
            "hue": [LEVELS[area.level].hue for area in areas],
            "text": [area.text for area in areas],
        }
    )
    layer: alt.Chart = (
        alt.Chart(data)
        .mark_rect(opacity=0.16, clip=True)
        .encode(
            x=step_axis(steps),
            x2="end:Q",
            color=alt.Color("hue:N", scale=None),
            tooltip=[alt.Tooltip("text:N", title="finding")],
        )
    )
    return layer


def cadence(data: pd.DataFrame) -> float:
    """Steps between neighbouring rows, so that cells meet."""
    gaps = np.diff(np.unique(data["step"].to_numpy())) - (data["last_step"] - data["step"]).max() if len(data) else []
    positive = [gap for gap in gaps if gap > 0]
    return float(min(positive)) if positive else 1.0


def limits(values: pd.Series, center: float | None) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.empty:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if center is None:
        return low, high
    reach = max(high - center, center - low, 1e-9)
    return center - reach, center + reach


def color_scale(values: pd.Series, log: bool, center: float | None) -> alt.Scale:
    if log:
        return alt.Scale(type="log")
    if center is None:
        return alt.Scale(zero=False)
    low, high = limits(values, center)
    return alt.Scale(domain=[max(low, 0.0), high], domainMid=center, reverse=True)


def large(data: pd.DataFrame) -> bool:
    return bool(data["value"].abs().max() >= 10_000)


def sized(chart: Any, height: int) -> alt.LayerChart:
    sized: alt.LayerChart = chart.properties(
        height=height, padding={"left": 0, "top": 4, "right": 4, "bottom": 0}
    ).configure_view(strokeWidth=0)
    return sized
