"""The analytical charts: tables in, Altair charts out. Nothing else but `chart_parts` knows Altair.

Columns have fixed names and strings from a run appear as data only, so no label can become part of a specification.
Colours come from the theme (`.streamlit/config.toml`) in the order of the labels, so a domain keeps its colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts.layers import (
    AXIS_WIDTH,
    MARK_HUE,
    NARROW,
    area_layer,
    cadence,
    color_scale,
    harmless,
    heading_layer,
    label_color,
    labels,
    large,
    limits,
    mark_layers,
    nonfinite_layer,
    runs,
    sized,
    step_axis,
    tooltip,
    value_scale,
    with_columns,
)
from dashboard.charts.levels import LEVELS
from dashboard.charts.live import Area, Mark
from dashboard.charts.text import plain

WARM, COOL = "#dd6b4d", "#4a86cf"
INK, INK_ON_DARK = "#1b2430", "#e4e9f0"


def lines(
    table: pd.DataFrame,
    unit: str,
    *,
    order: Sequence[str] = (),
    height: int = 220,
    log: bool = False,
    steps: tuple[int, int] | None = None,
    marks: Sequence[Mark] = (),
    areas: Sequence[Area] = (),
    band: bool = True,
    legend: bool = True,
    hue: str | None = None,
    percent: bool = False,
    span: tuple[float, float] | None = None,
    heading: str = "",
    room: int = NARROW,
) -> alt.LayerChart:
    """One line per label with its min/max band; other runs are dashed.

    The table has step, last_step, value, lo, hi, nonfinite and, optionally, label and run ("" is the run itself).
    `order` decides the colours; `span` sets both ends of the value axis; `heading` is a title inside the chart;
    `room` is the width of the legend in pixels.
    """
    data = with_columns(table, log)
    x = step_axis(steps)
    y = alt.Y(
        "value:Q",
        title=None,
        scale=value_scale(log, span),
        axis=alt.Axis(
            minExtent=AXIS_WIDTH,
            format=".3~p" if percent else "~s" if large(data) else "~g",
            tickCount=max(height // 45, 2),
        ),
    )
    color = alt.value(hue) if hue else label_color(order or labels(data), legend and labels(data), room)
    named = runs(data)
    styles = [[1, 0], [5, 3], [2, 2], [1, 3]]
    dash = alt.StrokeDash("run:N", legend=None, scale=alt.Scale(domain=named, range=styles[: max(len(named), 1)]))
    base = alt.Chart(data)
    layers: list[alt.Chart] = []
    if areas:
        layers.append(area_layer(areas, steps))
    if band and len(data):
        layers.append(
            base.transform_filter("datum.run == ''")
            .mark_area(opacity=0.2, clip=True, line=alt.OverlayMarkDef(strokeWidth=0.8, opacity=0.5))
            .encode(
                x=x, y=alt.Y("lo:Q", scale=value_scale(log, span), title=""), y2="hi:Q", color=color, detail="run:N"
            )
        )
    layers.append(
        base.mark_line(strokeWidth=1.5, clip=True, point=len(data) < 12 and alt.OverlayMarkDef(size=20)).encode(
            x=x, y=y, color=color, strokeDash=dash, detail=["label:N", "run:N"], tooltip=tooltip(unit, percent)
        )
    )
    layers += nonfinite_layer(data, x, height)
    if marks:
        layers += mark_layers(marks, x)
    if heading:
        layers.append(heading_layer(heading))
    return sized(alt.layer(*layers), height)


def heatmap(
    table: pd.DataFrame,
    unit: str,
    *,
    order: Sequence[str],
    row_title: str,
    height: int | None = None,
    log: bool = False,
    steps: tuple[int, int] | None = None,
    percent: bool = False,
    center: float | None = None,
    value_title: str = "",
) -> alt.LayerChart:
    """Labels down, steps across, colour for the value; buckets without a finite value are red.

    The table has step, last_step, value, label, nonfinite.
    `center` is the value that a diverging scale puts in the middle.
    """
    data = with_columns(table, log)
    rows = alt.Y(
        "label:N",
        sort=[plain(name) for name in order],
        title=row_title,
        axis=alt.Axis(labelLimit=150, minExtent=AXIS_WIDTH, ticks=False, domain=False),
    )
    x, x2 = step_axis(steps), alt.X2("end:Q")
    data["end"] = data["last_step"] + cadence(data)
    color = alt.Color(
        "value:Q",
        title=value_title or (unit if unit != "1" else None),
        scale=color_scale(data["value"], log, center),
        legend=alt.Legend(format=".0%" if percent else ".2~g", gradientLength=120, gradientThickness=10),
    )
    cells = alt.Chart(data).mark_rect(clip=True).encode(x=x, x2=x2, y=rows, color=color, tooltip=tooltip(unit, percent))
    layers = [cells]
    if data["nonfinite"].gt(0).any():
        layers.append(
            alt.Chart(data)
            .transform_filter("datum.nonfinite > 0")
            .mark_rect(color=LEVELS["fail"].hue)
            .encode(x=x, x2=x2, y=rows, tooltip=tooltip(unit, percent))
        )
    count = max(data["label"].nunique(), 1)
    return sized(alt.layer(*layers), height or min(max(24 * count + 34, 110), 460))


def grid(
    table: pd.DataFrame,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    value_title: str,
    dark: bool,
    center: float | None = None,
    format: str = ".1%",
    height: int | None = None,
) -> alt.LayerChart:
    """A table of cells coloured by value; small ones show the number inside, large ones a legend.

    The table has row, column, value.
    Cells above `center` are warm, below it cool. `dark` is the page: a text mark does not follow the theme by itself.
    """
    table = table.assign(row=harmless(table["row"]), column=harmless(table["column"]))
    y = alt.Y(
        "row:N",
        sort=[plain(name) for name in rows],
        title=row_title,
        axis=alt.Axis(labelLimit=110, ticks=False, domain=False, minExtent=AXIS_WIDTH),
    )
    x = alt.X(
        "column:N",
        sort=[plain(name) for name in columns],
        title=column_title,
        axis=alt.Axis(labelAngle=0, ticks=False, domain=False, labelOverlap=True, titlePadding=4),
    )
    tips = [
        alt.Tooltip("row:N", title=row_title),
        alt.Tooltip("column:N", title=column_title),
        alt.Tooltip("value:Q", title=value_title, format=format),
    ]
    cells = alt.Chart(table).mark_rect(cornerRadius=2).encode(x=x, y=y, tooltip=tips)
    if len(columns) > 16 or len(rows) > 24:
        legend = alt.Legend(format=format, gradientLength=120, gradientThickness=10)
        color = alt.Color("value:Q", scale=color_scale(table["value"], False, center), title=value_title, legend=legend)
        return sized(alt.layer(cells.encode(color=color)), height or min(max(20 * len(rows) + 60, 130), 520))
    layers = [
        cells.encode(color=_hue(center), opacity=_strength(table, center)),
        alt.Chart(table)
        .mark_text(fontSize=11, color=INK_ON_DARK if dark else INK)
        .encode(x=x, y=y, text=alt.Text("value:Q", format=format), tooltip=tips),
    ]
    return sized(alt.layer(*layers), height or min(max(28 * len(rows) + 48, 120), 460))


def _hue(center: float | None) -> Any:
    if center is None:
        return alt.value(COOL)
    return alt.condition(f"datum.value > {float(center)}", alt.value(WARM), alt.value(COOL))


def _strength(table: pd.DataFrame, center: float | None) -> alt.Opacity:
    """Colour by opacity lets the page shine through, so that the numbers read in the light and in the dark."""
    low, high = limits(table["value"], center)
    if center is None:
        return alt.Opacity("value:Q", scale=alt.Scale(domain=[low, high], range=[0.06, 0.6]), legend=None)
    scale = alt.Scale(domain=[low, center, high], range=[0.65, 0.03, 0.65], clamp=True)
    return alt.Opacity("value:Q", scale=scale, legend=None)


def shares(
    table: pd.DataFrame,
    *,
    order: Sequence[str],
    palette: Sequence[str],
    height: int | None = None,
) -> alt.LayerChart:
    """Bars of actual shares with a tick at the planned one.

    The table has label, share, planned (NaN where unknown).
    `palette` lists the labels in the order that decides their colours.
    """
    y = _bar_axis(order)
    data = table.assign(
        label=harmless(table["label"]),
        edge=table[["share", "planned"]].max(axis=1),
        note=[_against(row.share, row.planned) for row in table.itertuples()],
    )
    tips = [
        alt.Tooltip("label:N", title="domain"),
        alt.Tooltip("share:Q", title="share", format=".2%"),
        alt.Tooltip("planned:Q", title="planned", format=".2%"),
    ]
    base = alt.Chart(data)
    reach = float(data["edge"].max()) * 1.32 if len(data) else 1.0
    x = alt.X("share:Q", title=None, axis=alt.Axis(format=".0%", tickCount=5), scale=alt.Scale(domain=[0, reach]))
    bars = base.mark_bar(height={"band": 0.6}, cornerRadiusEnd=2).encode(
        x=x, y=y, color=label_color(palette, False), tooltip=tips
    )
    ticks = base.mark_tick(thickness=2.5, height={"band": 0.9}, color=MARK_HUE).encode(x="planned:Q", y=y, tooltip=tips)
    words = base.mark_text(align="left", dx=6, fontSize=11, color=MARK_HUE).encode(x="edge:Q", y=y, text="note:N")
    return sized(alt.layer(bars, ticks, words), height or min(max(30 * len(table) + 46, 120), 420))


def _bar_axis(order: Sequence[str]) -> alt.Y:
    names = [plain(name) for name in order]
    return alt.Y("label:N", sort=names, title=None, axis=alt.Axis(labelLimit=110, ticks=False, domain=False))


def _against(share: float, planned: float) -> str:
    return f"{share:.1%}" if np.isnan(planned) else f"{share:.1%} of {planned:.1%}"


def bars(
    table: pd.DataFrame,
    *,
    order: Sequence[str],
    palette: Sequence[str],
    value_title: str,
    height: int | None = None,
) -> alt.LayerChart:
    """Horizontal bars with their value.

    The table has label, value.
    """
    y = _bar_axis(order)
    reach = float(table["value"].max()) * 1.15 if len(table) else 1.0
    x = alt.X("value:Q", title=None, axis=alt.Axis(tickCount=5), scale=alt.Scale(domain=[0, max(reach, 1e-9)]))
    base = alt.Chart(table.assign(label=harmless(table["label"]))).encode(x=x, y=y)
    marks = base.mark_bar(height={"band": 0.6}, cornerRadiusEnd=2).encode(
        color=label_color(palette, False),
        tooltip=[alt.Tooltip("label:N", title="label"), alt.Tooltip("value:Q", title=value_title)],
    )
    words = base.mark_text(align="left", dx=6, fontSize=11, color=MARK_HUE).encode(
        text=alt.Text("value:Q", format=".3~g")
    )
    return sized(alt.layer(marks, words), height or min(max(26 * len(table) + 46, 110), 420))


def stacked(
    table: pd.DataFrame,
    *,
    order: Sequence[str],
    steps: tuple[int, int] | None = None,
    height: int = 200,
) -> alt.LayerChart:
    """Shares over steps, stacked to one.

    The table has step, value, label.
    """
    data = with_columns(table, False)
    chart = (
        alt.Chart(data)
        .mark_area(opacity=0.85)
        .encode(
            x=step_axis(steps),
            y=alt.Y(
                "value:Q", stack="normalize", title=None, axis=alt.Axis(format=".0%", tickCount=4, minExtent=AXIS_WIDTH)
            ),
            color=label_color(order, False),
            order=alt.Order("rank:Q"),
            tooltip=tooltip("", True),
        )
    )
    ranks = {plain(label): rank for rank, label in enumerate(order)}
    chart.data = data.assign(rank=data["label"].map(ranks).fillna(len(ranks)))
    return sized(chart, height)


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several series as one, empty ones left out."""
    return pd.concat(
        [part.astype({"label": "object"}) for part in parts if len(part)] or list(parts[:1]), ignore_index=True
    )


def scaled(table: pd.DataFrame, factor: float) -> pd.DataFrame:
    """The table in another unit."""
    return table.assign(**{name: table[name] * factor for name in ("value", "lo", "hi")})


def span(table: pd.DataFrame) -> tuple[float, float] | None:
    """Lowest and highest finite value of a table."""
    values = pd.concat([table["lo"], table["hi"]])
    finite = values[np.isfinite(values)]
    return None if finite.empty else (float(finite.min()), float(finite.max()))
