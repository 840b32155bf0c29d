"""Charts of the contamination page: verdicts, scores with their intervals, and the sweep over thresholds.

As in `plots`, columns have fixed names and strings of an audit appear as data only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from checks.contamination.records import VERDICTS
from dashboard.charts.layers import AXIS_WIDTH, MARK_HUE, label_color, sized
from dashboard.charts.levels import LEVELS
from dashboard.charts.text import plain

HUES = dict(zip(VERDICTS, (LEVELS[level].hue for level in ("fail", "warn", "pass", "unknown")), strict=True))
"""Colour of each verdict, in the order of `VERDICTS`."""
SUBSETS = {"whole": "all items", "clean": "clean items", "dirty": "contaminated items"}
_SUBSET_HUES = [MARK_HUE, LEVELS["pass"].hue, LEVELS["fail"].hue]
_LEAST = 0.006
"""Width of the thinnest slice: one item among thousands must be seen."""
ROW, WIDE_ROW, FEW = 26, 44, 4
"""Height of a bar with its gap, px: of many, and of a few."""


def verdict_bars(rows: Sequence[tuple[str, Mapping[str, int]]]) -> alt.LayerChart:
    """One bar per row, split by verdict, worst first, each bar as long as the others. rows: name, verdict counts."""
    names = _named([name for name, _ in rows])
    data = pd.DataFrame([part for name, (_, counts) in zip(names, rows, strict=True) for part in _slices(name, counts)])
    color = alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=list(VERDICTS), range=list(HUES.values())),
        legend=alt.Legend(title=None, orient="bottom", symbolType="square", columns=2, offset=2, padding=0),
    )
    tips = [
        alt.Tooltip("label:N", title="benchmark"),
        alt.Tooltip("verdict:N"),
        alt.Tooltip("items:Q", format=",d"),
        alt.Tooltip("share:Q", title="share of all items", format=".2%"),
    ]
    bars = (
        alt.Chart(data)
        .mark_bar(height={"band": 0.62}, stroke=None)
        .encode(
            x=alt.X("from:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False)),
            x2="to:Q",
            y=_rows(names),
            color=color,
            tooltip=tips,
        )
    )
    return sized(alt.layer(bars), (WIDE_ROW if len(names) <= FEW else ROW) * len(names) + 48)


def _slices(name: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    total = sum(counts.values()) or 1
    widths = {v: max(_LEAST, counts[v] / total) if counts[v] else 0.0 for v in VERDICTS}
    scale, at, parts = 1 / (sum(widths.values()) or 1), 0.0, []
    for verdict, width in widths.items():
        if width:
            share = counts[verdict] / total
            row = {"label": name, "verdict": verdict, "items": counts[verdict], "share": share}
            parts.append(row | {"from": at, "to": at + width * scale})
        at += width * scale
    return parts or [{"label": name, "verdict": VERDICTS[2], "items": 0, "share": 0.0, "from": 0.0, "to": 0.0}]


@dataclass(frozen=True, slots=True)
class Scored:
    """One row of `score_intervals`."""

    name: str
    subsets: Mapping[str, Mapping[str, Any]]
    """Of one model, as in audit.json."""
    trusted: str = ""
    """The subset that is marked; "" for none."""
    level: str = "pass"
    """Of the answer: suspects must be looked at before the score is trusted."""


def score_intervals(rows: Sequence[Scored]) -> alt.LayerChart:
    """Scores of all, clean and contaminated items with their 95 % intervals; the trusted one has its value in bold."""
    names = _named([row.name for row in rows])
    found = [
        {"label": name, "subset": SUBSETS[key], **_mark(row, key), **row.subsets[key]}
        for name, row in zip(names, rows, strict=True)
        for key in SUBSETS
        if row.subsets[key]["n"]
    ]
    data = pd.DataFrame(found, columns=["label", "subset", "mark", "hue", "n", "value", "low", "high"])
    data["words"] = [f"{v:.3f}  {mark}".rstrip() for v, mark in zip(data["value"], data["mark"], strict=True)]
    shown = [words for words in SUBSETS.values() if words in set(data["subset"])]
    hues = [hue for words, hue in zip(SUBSETS.values(), _SUBSET_HUES, strict=True) if words in shown]
    low, high = float(data["low"].min()), float(data["high"].max())
    # Room for the words behind the highest interval.
    ends = alt.Scale(zero=False, nice=False, domain=[low - 0.03 * (high - low), high + 0.22 * (high - low)])
    within = alt.condition("datum.value > 1", alt.value(0), alt.value(1))
    ticks = alt.Axis(format=".2f", tickCount=6, labelExpr="datum.value > 1 ? '' : datum.label", gridOpacity=within)
    x = alt.X("value:Q", title=None, scale=ends, axis=ticks)
    base = alt.Chart(data).encode(
        y=_rows(names),
        yOffset=alt.YOffset("subset:N", sort=shown, scale=alt.Scale(domain=shown, paddingOuter=0.35)),
        tooltip=[
            alt.Tooltip("label:N", title="benchmark"),
            alt.Tooltip("subset:N", title="score of"),
            alt.Tooltip("value:Q", title="score", format=".4f"),
            alt.Tooltip("low:Q", title="95 % interval from", format=".4f"),
            alt.Tooltip("high:Q", title="to", format=".4f"),
            alt.Tooltip("n:Q", title="items", format=",d"),
        ],
    )
    color = alt.Color(
        "subset:N",
        scale=alt.Scale(domain=shown, range=hues),
        legend=alt.Legend(title=None, orient="bottom", columns=3, offset=2, padding=0, symbolType="circle"),
    )
    intervals = base.mark_rule(strokeWidth=3, opacity=0.5, strokeCap="round").encode(
        x="low:Q", x2="high:Q", color=color
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, color=color)
    words = base.encode(x="high:Q", text="words:N")
    layers = [
        intervals,
        points,
        words.transform_filter("datum.mark == ''").mark_text(align="left", dx=8, fontSize=11, color=MARK_HUE),
        words.transform_filter("datum.mark != ''")
        .mark_text(align="left", dx=8, fontSize=12, fontWeight=700)
        .encode(color=alt.Color("hue:N", scale=None)),
    ]
    return sized(alt.layer(*layers), (14 + 19 * len(shown)) * len(names) + 48)


def _mark(row: Scored, subset: str) -> dict[str, str]:
    """What stands beside a value, and in which colour."""
    if subset != row.trusted:
        return {"mark": "", "hue": MARK_HUE}
    if row.level == "warn":
        return {"mark": "look at the suspects first", "hue": LEVELS["warn"].hue}
    return {"mark": "trust this", "hue": LEVELS["pass"].hue}


def sweep_gain(table: pd.DataFrame, model: str, controls: Sequence[str], threshold: float) -> alt.LayerChart:
    """Gain in points over the threshold: a line per model, control models dashed, the interval of `model` shaded.

    table: rows of sweep.parquet of one benchmark that have a model.
    """
    names = list(dict.fromkeys(table["model"]))
    data = pd.DataFrame(
        {
            "threshold": table["threshold"],
            "label": [plain(name) for name in table["model"]],
            "run": ["control" if name in set(controls) else "" for name in table["model"]],
            "chosen": table["model"] == model,
            **{name: 100 * table[name].astype(float) for name in ("gain", "gain_low", "gain_high")},
        }
    )
    x = _threshold_axis()
    y = alt.Y("gain:Q", title=None, axis=alt.Axis(format="+.3~g", tickCount=4, minExtent=AXIS_WIDTH))
    color = label_color(names, True)
    tips = [
        alt.Tooltip("label:N", title="model"),
        alt.Tooltip("threshold:Q", format=".2f"),
        alt.Tooltip("gain:Q", title="gain, points", format="+.2f"),
        alt.Tooltip("gain_low:Q", title="95 % interval from", format="+.2f"),
        alt.Tooltip("gain_high:Q", title="to", format="+.2f"),
    ]
    dash = alt.StrokeDash("run:N", legend=None, scale=alt.Scale(domain=["", "control"], range=[[1, 0], [5, 3]]))
    base = alt.Chart(data)
    band = base.transform_filter(alt.datum.chosen).mark_area(opacity=0.16)
    line = base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=color, strokeDash=dash, tooltip=tips)
    layers = [
        alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=MARK_HUE, opacity=0.6).encode(y="zero:Q"),
        band.encode(x=x, y=alt.Y("gain_low:Q", title=""), y2="gain_high:Q", color=color),
        line,
        _threshold_mark(threshold),
    ]
    return sized(alt.layer(*layers), 210)


def sweep_flagged(table: pd.DataFrame, threshold: float) -> alt.LayerChart:
    """How many items are flagged at each threshold. table: rows of sweep.parquet of one benchmark without a model."""
    y = alt.Y("flagged:Q", title=None, axis=alt.Axis(format=",d", tickCount=3, minExtent=AXIS_WIDTH))
    tips = [alt.Tooltip("threshold:Q", format=".2f"), alt.Tooltip("flagged:Q", title="items flagged", format=",d")]
    area = alt.Chart(table[["threshold", "flagged"]]).mark_area(
        interpolate="step-after", color=HUES["suspect"], opacity=0.5, line={"color": HUES["suspect"]}
    )
    layers = [area.encode(x=_threshold_axis(), y=y, tooltip=tips), _threshold_mark(threshold)]
    return sized(alt.layer(*layers), 110)


def _threshold_axis() -> alt.X:
    return alt.X(
        "threshold:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(grid=False, format=".2f")
    )


def _threshold_mark(threshold: float) -> alt.Chart:
    mark: alt.Chart = (
        alt.Chart(pd.DataFrame({"threshold": [threshold]}))
        .mark_rule(color=MARK_HUE, strokeWidth=1.5, strokeDash=[3, 2])
        .encode(x=_threshold_axis())
    )
    return mark


def _rows(names: Sequence[str]) -> alt.Y:
    axis = alt.Axis(labelLimit=150, ticks=False, domain=False, labelPadding=8)
    return alt.Y("label:N", sort=list(names), title=None, axis=axis)


def _named(names: Sequence[str]) -> list[str]:
    """Names as charts write them, equal ones numbered so that each keeps its row."""
    shown = [plain(name, 40) for name in names]
    return [f"{name} ({i + 1})" if shown.count(name) > 1 else name for i, name in enumerate(shown)]
