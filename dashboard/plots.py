"""The analytical charts: tables in, Altair charts out. Nothing else on the board knows Altair.

Columns have fixed names and strings from a run appear as data only, so no label can become part of a specification.
Colours come from the theme (`.streamlit/config.toml`) in the order of the labels, so a domain keeps its colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from dashboard.levels import LEVELS
from dashboard.panels import Area, Mark

AXIS_WIDTH = 46
"""Pixels kept for the labels of a value axis, so that charts above one another line up."""

MARK_HUE = "#8592a3"


def lines(
    table: pd.DataFrame, unit: str, *, order: Sequence[str] = (), height: int = 220, log: bool = False,
    steps: tuple[int, int] | None = None, marks: Sequence[Mark] = (), areas: Sequence[Area] = (),
    band: bool = True, legend: bool = True, title: str = "", hue: str | None = None, percent: bool = False,
    threshold: float | None = None,
) -> alt.LayerChart:
    """One line per label with its min/max band; other runs are dashed.

    Args:
        table: step, last_step, value, lo, hi, nonfinite and, optionally, label and run ("" is the run itself).
        order: labels in the order that decides their colours.
        threshold: a horizontal rule.
    """
    data = _with_columns(table, log)
    x = _step_axis(steps)
    y = alt.Y("value:Q", title=_axis_title(title, unit), scale=_value_scale(log),
              axis=alt.Axis(minExtent=AXIS_WIDTH, format=".0%" if percent else "~s" if _large(data) else "~g",
                            tickCount=max(height // 45, 2)))
    color = alt.value(hue) if hue else _label_color(order or _labels(data), legend)
    dash = alt.StrokeDash("run:N", legend=None, scale=alt.Scale(range=[[1, 0], [5, 3], [2, 2]]), sort=_runs(data))
    base = alt.Chart(data)
    layers: list[alt.Chart] = []
    if areas:
        layers.append(_area_layer(areas, steps))
    if band and len(data):
        layers.append(base.transform_filter("datum.run == ''").mark_area(opacity=0.2).encode(
            x=x, y=alt.Y("lo:Q", scale=_value_scale(log), title=""), y2="hi:Q", color=color, detail="run:N"))
    layers.append(base.mark_line(strokeWidth=1.5, clip=True, point=len(data) < 12 and alt.OverlayMarkDef(size=20)).encode(
        x=x, y=y, color=color, strokeDash=dash, detail=["label:N", "run:N"],
        tooltip=_tooltip(unit, percent)))
    layers += _nonfinite_layer(data, x, height)
    if marks:
        layers.append(_mark_layer(marks, x))
    if threshold is not None:
        rule = pd.DataFrame({"value": [threshold]})
        layers.append(alt.Chart(rule).mark_rule(strokeDash=[4, 3], color=LEVELS["fail"].hue).encode(y="value:Q"))
    return _sized(alt.layer(*layers), height)


def heatmap(
    table: pd.DataFrame, unit: str, *, order: Sequence[str], row_title: str, height: int | None = None,
    log: bool = False, steps: tuple[int, int] | None = None, percent: bool = False, center: float | None = None,
    value_title: str = "",
) -> alt.LayerChart:
    """Labels down, steps across, colour for the value; buckets without a finite value are red.

    Args:
        table: step, last_step, value, label, nonfinite.
        center: the value that a diverging scale puts in the middle.
    """
    data = _with_columns(table, log)
    rows = alt.Y("label:N", sort=list(order), title=row_title,
                 axis=alt.Axis(labelLimit=150, minExtent=AXIS_WIDTH, ticks=False, domain=False))
    x, x2 = _step_axis(steps), alt.X2("end:Q")
    data["end"] = data["last_step"] + _cadence(data)
    color = alt.Color("value:Q", title=value_title or (unit if unit != "1" else None),
                      scale=_color_scale(data["value"], log, center),
                      legend=alt.Legend(format=".0%" if percent else "~g", gradientLength=120, gradientThickness=10))
    cells = alt.Chart(data).mark_rect().encode(x=x, x2=x2, y=rows, color=color, tooltip=_tooltip(unit, percent))
    layers = [cells]
    if data["nonfinite"].gt(0).any():
        layers.append(alt.Chart(data).transform_filter("datum.nonfinite > 0").mark_rect(
            color=LEVELS["fail"].hue).encode(x=x, x2=x2, y=rows, tooltip=_tooltip(unit, percent)))
    count = max(data["label"].nunique(), 1)
    return _sized(alt.layer(*layers), height or min(max(22 * count + 40, 150), 460))


def grid(
    table: pd.DataFrame, *, rows: Sequence[str], columns: Sequence[str], row_title: str, column_title: str,
    value_title: str, center: float | None = None, format: str = ".1%", height: int | None = None,
) -> alt.LayerChart:
    """A table of cells coloured by value, with the number inside while there is room.

    Args:
        table: row, column, value.
    """
    y = alt.Y("row:N", sort=list(rows), title=row_title,
              axis=alt.Axis(labelLimit=150, ticks=False, domain=False, minExtent=AXIS_WIDTH))
    x = alt.X("column:N", sort=list(columns), title=column_title,
              axis=alt.Axis(labelAngle=0, ticks=False, domain=False, labelOverlap=True))
    scale = _color_scale(table["value"], False, center)
    cells = alt.Chart(table).mark_rect(cornerRadius=2).encode(
        x=x, y=y,
        color=alt.Color("value:Q", scale=scale, title=value_title,
                        legend=alt.Legend(format=format, gradientLength=120, gradientThickness=10)),
        tooltip=[alt.Tooltip("row:N", title=row_title), alt.Tooltip("column:N", title=column_title),
                 alt.Tooltip("value:Q", title=value_title, format=format)])
    layers = [cells]
    if len(columns) <= 16 and len(rows) <= 24:
        low, high = _limits(table["value"], center)
        strong = f"datum.value > {low + 0.72 * (high - low)}"
        if center is not None:
            strong = f"abs(datum.value - {center}) > {0.62 * (high - center)}"
        layers.append(alt.Chart(table).mark_text(fontSize=11).encode(
            x=x, y=y, text=alt.Text("value:Q", format=format), opacity=alt.value(0.95),
            color=alt.condition(strong, alt.value("#ffffff"), alt.value("#33404f"))))
    return _sized(alt.layer(*layers), height or min(max(26 * len(rows) + 50, 130), 460))


def shares(table: pd.DataFrame, *, order: Sequence[str], height: int | None = None) -> alt.LayerChart:
    """Bars of actual shares with a tick at the planned one.

    Args:
        table: label, share, planned (NaN where unknown).
    """
    y = alt.Y("label:N", sort=list(order), title=None, axis=alt.Axis(labelLimit=150, ticks=False, domain=False))
    tips = [alt.Tooltip("label:N", title="domain"), alt.Tooltip("share:Q", title="share", format=".2%"),
            alt.Tooltip("planned:Q", title="planned", format=".2%")]
    base = alt.Chart(table)
    bars = base.mark_bar(height={"band": 0.62}, cornerRadiusEnd=2).encode(
        x=alt.X("share:Q", title="share of input tokens", axis=alt.Axis(format=".0%", tickCount=6)), y=y,
        color=_label_color(order, False), tooltip=tips)
    ticks = base.mark_tick(thickness=2.5, height={"band": 0.95}, color=MARK_HUE).encode(x="planned:Q", y=y, tooltip=tips)
    text = base.mark_text(align="left", dx=5, fontSize=11, color=MARK_HUE).encode(
        x="edge:Q", y=y, text=alt.Text("note:N"))
    labelled = table.assign(edge=table[["share", "planned"]].max(axis=1))
    chart = alt.layer(bars, ticks, text, data=labelled)
    return _sized(chart, height or min(max(30 * len(table) + 46, 120), 420))


def bars(
    table: pd.DataFrame, *, order: Sequence[str], value_title: str, format: str = "~g", height: int | None = None,
    colored: bool = True,
) -> alt.Chart:
    """Horizontal bars.

    Args:
        table: label, value.
    """
    y = alt.Y("label:N", sort=list(order), title=None, axis=alt.Axis(labelLimit=150, ticks=False, domain=False))
    chart = alt.Chart(table).mark_bar(height={"band": 0.62}, cornerRadiusEnd=2).encode(
        x=alt.X("value:Q", title=value_title, axis=alt.Axis(format=format, tickCount=6)), y=y,
        color=_label_color(order, False) if colored else alt.value(MARK_HUE),
        tooltip=[alt.Tooltip("label:N", title="label"), alt.Tooltip("value:Q", title=value_title, format=format)])
    return _sized(chart, height or min(max(26 * len(table) + 46, 110), 420))


def stacked(
    table: pd.DataFrame, *, order: Sequence[str], steps: tuple[int, int] | None = None, height: int = 200,
    title: str = "share",
) -> alt.Chart:
    """Shares over steps, stacked to one.

    Args:
        table: step, value, label.
    """
    data = _with_columns(table, False)
    chart = alt.Chart(data).mark_area(opacity=0.85).encode(
        x=_step_axis(steps),
        y=alt.Y("value:Q", stack="normalize", title=title,
                axis=alt.Axis(format=".0%", tickCount=4, minExtent=AXIS_WIDTH)),
        color=_label_color(order, True), order=alt.Order("rank:Q"), tooltip=_tooltip("", True))
    ranks = {label: rank for rank, label in enumerate(order)}
    chart.data = data.assign(rank=data["label"].map(ranks).fillna(len(ranks)))
    return _sized(chart, height)


def _with_columns(table: pd.DataFrame, log: bool) -> pd.DataFrame:
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
    if log:
        data[drawable] = data[drawable].where(data[drawable] > 0)
    return data.reset_index(drop=True)


def _step_axis(steps: tuple[int, int] | None) -> alt.X:
    scale = alt.Scale(domain=list(steps), nice=False) if steps else alt.Scale(nice=False, zero=False)
    return alt.X("step:Q", title="step", scale=scale,
                 axis=alt.Axis(format=",d", grid=False, tickCount=6, labelFlush=True, tickMinStep=1))


def _value_scale(log: bool) -> alt.Scale:
    return alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False, nice=True)


def _label_color(order: Sequence[str], legend: bool) -> alt.Color:
    shown = alt.Legend(title=None, orient="top", labelLimit=140, symbolType="stroke", symbolStrokeWidth=3, columns=6)
    return alt.Color("label:N", sort=list(order), scale=alt.Scale(domain=list(order)),
                     legend=shown if legend and len(order) > 1 else None)


def _labels(data: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(data["label"]))


def _runs(data: pd.DataFrame) -> list[str]:
    return sorted(set(data["run"]))


def _tooltip(unit: str, percent: bool) -> list[alt.Tooltip]:
    form = ".2%" if percent else ".4~g"
    suffix = f" ({unit})" if unit not in ("", "1") else ""
    return [alt.Tooltip("label:N", title="label"), alt.Tooltip("run:N", title="run"),
            alt.Tooltip("step:Q", title="step", format=",d"), alt.Tooltip("last_step:Q", title="to step", format=",d"),
            alt.Tooltip("value:Q", title="value" + suffix, format=form),
            alt.Tooltip("lo:Q", title="lowest", format=form), alt.Tooltip("hi:Q", title="highest", format=form),
            alt.Tooltip("nonfinite:Q", title="not finite")]


def _nonfinite_layer(data: pd.DataFrame, x: alt.X, height: int) -> list[alt.Chart]:
    if not data["nonfinite"].gt(0).any():
        return []
    return [alt.Chart(data).transform_filter("datum.nonfinite > 0").mark_point(
        shape="triangle-up", filled=True, size=60, opacity=1, color=LEVELS["fail"].hue, yOffset=-5).encode(
        x=x, y=alt.value("height"), tooltip=[alt.Tooltip("step:Q", title="not finite at step", format=",d"),
                                             alt.Tooltip("nonfinite:Q", title="values")])]


def _mark_layer(marks: Sequence[Mark], x: alt.X) -> alt.Chart:
    data = pd.DataFrame({"step": [mark.step for mark in marks], "event": [mark.text for mark in marks]})
    return alt.Chart(data).mark_rule(color=MARK_HUE, strokeDash=[2, 3], clip=True).encode(
        x=x, tooltip=[alt.Tooltip("event:N"), alt.Tooltip("step:Q", format=",d")])


def _area_layer(areas: Sequence[Area], steps: tuple[int, int] | None) -> alt.Chart:
    data = pd.DataFrame({"step": [area.first for area in areas], "end": [max(area.last, area.first + 1) for area in areas],
                         "hue": [LEVELS[area.level].hue for area in areas], "text": [area.text for area in areas]})
    return alt.Chart(data).mark_rect(opacity=0.16, clip=True).encode(
        x=_step_axis(steps), x2="end:Q", color=alt.Color("hue:N", scale=None), tooltip=[alt.Tooltip("text:N", title="finding")])


def _cadence(data: pd.DataFrame) -> float:
    """Steps between neighbouring rows, so that cells meet."""
    gaps = np.diff(np.unique(data["step"].to_numpy())) - (data["last_step"] - data["step"]).max() if len(data) else []
    positive = [gap for gap in gaps if gap > 0]
    return float(min(positive)) if positive else 1.0


def _limits(values: pd.Series, center: float | None) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.empty:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if center is None:
        return low, high
    reach = max(high - center, center - low, 1e-9)
    return center - reach, center + reach


def _color_scale(values: pd.Series, log: bool, center: float | None) -> alt.Scale:
    if log:
        return alt.Scale(type="log")
    if center is None:
        return alt.Scale(zero=False)
    low, high = _limits(values, center)
    return alt.Scale(domain=[low, center, high], domainMid=center)


def _axis_title(title: str, unit: str) -> str | None:
    unit = "" if unit == "1" else unit
    return f"{title} ({unit})" if title and unit else title or unit or None


def _large(data: pd.DataFrame) -> bool:
    return bool(data["value"].abs().max() >= 10_000)


def _sized(chart: alt.Chart | alt.LayerChart, height: int) -> alt.LayerChart:
    return chart.properties(height=height).configure_view(strokeWidth=0)
