"""The live chart: panels over one step axis, as an ECharts option.

ECharts because a Vega view keeps 20 to 40 kB for every redraw, which a wall screen would gather for days; an ECharts
chart stays flat. Tables go to the browser as Arrow; every string in an option is plain text to ECharts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dashboard.charts.levels import level_of
from dashboard.charts.text import plain

LINE_HUES = ("#3f7fd0", "#8a94a3")
"""This run, and the run it is compared with."""

BRANCH_HUE = "#b08ad0"
EVENT_HUE = "#8592a3"
LEFT, RIGHT = 62, 14


@dataclass(frozen=True, slots=True)
class Line:
    """A decimated table of one series: step, last_step, value, lo, hi, nonfinite."""

    name: str
    table: pd.DataFrame
    hue: str = LINE_HUES[0]
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One strip of the chart; `weight` is its share of the height."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    weight: float = 1.0
    log: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """An event on the step axis."""

    step: int
    text: str
    """Written beside the mark; "" for none."""
    name: str = ""
    """What hovering says, where that is more."""


@dataclass(frozen=True, slots=True)
class Area:
    """A step range that a finding or an incident covers."""

    first: int
    last: int
    level: str
    text: str = ""


def live_chart(
    panels: Sequence[Panel],
    marks: Sequence[Mark] = (),
    areas: Sequence[Area] = (),
    *,
    steps: tuple[int, int],
    height: int,
    zoom: bool = True,
) -> dict[str, Any]:
    """The option of a chart `height` pixels high whose panels share the step axis `steps`.

    Marks carry their text in the first panel only; areas shade every panel. Buckets with a NaN or an infinity are
    triangles on the step axis.
    """
    option: dict[str, Any] = {
        "animation": False,
        "title": [],
        "grid": [],
        "xAxis": [],
        "yAxis": [],
        "series": [],
        "dataset": [],
        "tooltip": {"trigger": "axis", "valueFormatter": "%.4g", "confine": True, "transitionDuration": 0},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
    }
    bottom = 46 if zoom else 26
    gap, top = 34, 26
    free = height - top - bottom - gap * (len(panels) - 1)
    total = sum(panel.weight for panel in panels)
    for index, panel in enumerate(panels):
        size = round(free * panel.weight / total)
        last = index == len(panels) - 1
        unit = f" ({panel.unit})" if panel.unit not in ("", "1") else ""
        option["title"].append(
            {
                "text": plain(panel.title) + unit,
                "left": 4,
                "top": top - 24,
                "padding": 0,
                "textStyle": {"fontSize": 12, "fontWeight": 600},
            }
        )
        option["grid"].append({"left": LEFT, "right": RIGHT, "top": top, "height": size, "containLabel": False})
        option["xAxis"].append(
            {
                "type": "value",
                "gridIndex": index,
                "min": steps[0],
                "max": max(steps[1], steps[0] + 1),
                "axisLabel": {"show": last, "hideOverlap": True},
                "axisTick": {"show": last},
                "splitLine": {"show": False},
                "name": "step" if last else "",
                "nameLocation": "start",
                "nameGap": 14,
                "nameTextStyle": {"verticalAlign": "top", "padding": [9, 0, 0, 0]},
                "axisPointer": {"label": {"show": last, "precision": 0}},
            }
        )
        option["yAxis"].append(
            {
                "type": "log" if panel.log else "value",
                "logBase": 10 if _spans_decades(panel) else 2,
                "gridIndex": index,
                "scale": True,
                "splitNumber": 4 if panel.weight > 1 else 2,
                "axisLabel": {"hideOverlap": True},
                "axisPointer": {"show": False},
            }
        )
        _add_lines(option, index, panel)
        if option["series"]:
            _add_marks(option, index, marks if index == 0 else _untexted(marks), areas)
        top += size + gap
    if zoom:
        option["dataZoom"] = [
            {
                "type": "slider",
                "xAxisIndex": "all",
                "height": 14,
                "bottom": 4,
                "filterMode": "none",
                "showDetail": False,
                "brushSelect": False,
                "left": LEFT,
                "right": RIGHT,
            }
        ]
    return option


def _spans_decades(panel: Panel) -> bool:
    """Whether powers of ten are fine enough as ticks."""
    values = pd.concat([line.table[end] for line in panel.lines for end in ("lo", "hi")])
    positive = values[(values > 0) & (values < float("inf"))]
    return bool(len(positive) and positive.max() > 30 * positive.min())


def _add_lines(option: dict[str, Any], axis: int, panel: Panel) -> None:
    for line in panel.lines:
        if line.table.empty:
            continue
        source = _source(line.table)
        option["dataset"].append({"source": source})
        common = {
            "xAxisIndex": axis,
            "yAxisIndex": axis,
            "datasetIndex": len(option["dataset"]) - 1,
            "showSymbol": False,
            "type": "line",
        }
        if not line.faint and not panel.log:
            option["series"] += _band(common, line, f"{axis}:{line.name}")
        option["series"].append(
            common
            | {
                "name": plain(line.name, 60),
                "encode": {"x": "step", "y": "value", "tooltip": ["value", "lowest", "highest"]},
                "lineStyle": {
                    "width": 1 if line.faint else 1.6,
                    "type": "dashed" if line.dashed else "solid",
                    "opacity": 0.55 if line.faint else 1,
                },
                "itemStyle": {"color": line.hue},
                "showSymbol": len(source) < 3,
                "symbolSize": 5,
            }
        )
        if source["not finite"].notna().any():
            option["series"].append(
                common
                | {
                    "type": "scatter",
                    "name": "not finite",
                    "symbol": "triangle",
                    "symbolSize": 9,
                    "encode": {"x": "step", "y": "not finite", "tooltip": []},
                    "itemStyle": {"color": level_of("fail").hue},
                    "tooltip": {"show": False},
                    "z": 5,
                }
            )


def _band(common: dict[str, Any], line: Line, stack: str) -> list[dict[str, Any]]:
    """Two thin stacked lines whose filled difference spans lowest to highest of each bucket."""
    silent = common | {
        "stack": stack,
        "stackStrategy": "all",
        "silent": True,
        "lineStyle": {"width": 0.8, "opacity": 0.45},
        "tooltip": {"show": False},
        "itemStyle": {"color": line.hue},
        "name": f"{stack} band",
    }
    return [
        silent | {"encode": {"x": "step", "y": "lowest", "tooltip": []}},
        silent | {"encode": {"x": "step", "y": "span", "tooltip": []}, "areaStyle": {"opacity": 0.2}},
    ]


def _source(table: pd.DataFrame) -> pd.DataFrame:
    finite = table["lo"].dropna()
    floor = float(finite.min()) if len(finite) else 0.0
    return pd.DataFrame(
        {
            "step": table["step"].to_numpy(),
            "value": table["value"].replace([float("inf"), float("-inf")], float("nan")).to_numpy(),
            "lowest": table["lo"].to_numpy(),
            "highest": table["hi"].to_numpy(),
            "span": (table["hi"] - table["lo"]).to_numpy(),
            "not finite": table["nonfinite"].gt(0).map({True: floor, False: None}).astype("float64").to_numpy(),
        }
    )


def _untexted(marks: Sequence[Mark]) -> list[Mark]:
    return [Mark(mark.step, "") for mark in marks]


def _add_marks(option: dict[str, Any], axis: int, marks: Sequence[Mark], areas: Sequence[Area]) -> None:
    """Hang marks and areas on a series of their own, so that they stay when a panel's lines come and go."""
    carrier: dict[str, Any] = {
        "type": "line",
        "data": [],
        "xAxisIndex": axis,
        "yAxisIndex": axis,
        "silent": True,
        "name": f"marks {axis}",
        "tooltip": {"show": False},
    }
    if marks:
        carrier["markLine"] = {
            "symbol": "none",
            "silent": True,
            "animation": False,
            "lineStyle": {"color": EVENT_HUE, "type": "dotted", "width": 1},
            "data": [
                {
                    "xAxis": mark.step,
                    "label": {
                        "show": bool(mark.text),
                        "formatter": _template(mark.text),
                        "position": "insideEndTop",
                        "fontSize": 10,
                        "color": EVENT_HUE,
                    },
                }
                for mark in marks
            ],
        }
    if areas:
        carrier["markArea"] = {
            "silent": True,
            "animation": False,
            "data": [
                [
                    {
                        "xAxis": area.first,
                        "itemStyle": {"color": level_of(area.level).hue, "opacity": 0.16},
                        "label": {"show": False},
                    },
                    {"xAxis": max(area.last, area.first + 1)},
                ]
                for area in areas
            ],
        }
    if marks or areas:
        option["series"].append(carrier)


def _template(text: str) -> str:
    """ECharts expands {a} and {@x} in label templates; without braces there is nothing to expand."""
    return plain(text, 24).replace("{", "(").replace("}", ")")
