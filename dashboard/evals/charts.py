"""Charts of results: differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from checks.evals.compare import Compared
from checks.evals.latency import Estimate
from dashboard.charts.layers import MARK_HUE, sized
from dashboard.charts.levels import LEVELS
from dashboard.charts.text import plain
from dashboard.evals.gates import Gate
from dashboard.evals.signs import SIGNS, points, sign_of
from dashboard.evals.speed import Speed

SHAPES = {"fail": "triangle-down", "warn": "triangle-down", "unknown": "cross", "gain": "triangle-up", "pass": "circle"}
ROW, MOST_ROWS, AXIS = 20, 30, 46
"""Pixels of a row, rows of a chart, pixels below it for the axis and its title."""
PLAIN_HUE = "#5b7fb5"


def forest(found: Sequence[Compared], chosen: str) -> alt.LayerChart | None:
    """Differences in points with 95 % intervals, in the order that they come in; None where there is none to draw.

    `chosen` is drawn whatever its place. Scores that are no shares have no common axis and are left out.
    """
    drawable = [one for one in found if one.difference is not None and one.interval is not None and points(one)]
    rows = drawable[:MOST_ROWS]
    rows += [one for one in drawable[MOST_ROWS:] if one.task == chosen]
    if not rows:
        return None
    data = pd.DataFrame([
        {"task": plain(one.task, 60), "value": 100 * (one.difference or 0.0), "low": 100 * one.interval[0],
         "high": 100 * one.interval[1], "hue": SIGNS[sign_of(one)].hue or PLAIN_HUE, "shape": SHAPES[sign_of(one)],
         "what": SIGNS[sign_of(one)].word, "n": one.n, "own": one.task == chosen}
        for one in rows if one.interval is not None
    ])  # fmt: skip
    names = list(data["task"])
    y = alt.Y("task:N", sort=names, title=None,
              axis=alt.Axis(labelLimit=190, labelOverlap=False, ticks=False, domain=False, labelPadding=8))
    x = alt.X("value:Q", title="points", scale=alt.Scale(nice=True), axis=alt.Axis(format="+.4~g", tickCount=7))
    tips = [alt.Tooltip("task:N"), alt.Tooltip("value:Q", title="difference, points", format="+.3~f"),
            alt.Tooltip("low:Q", title="95 % from", format="+.3~f"), alt.Tooltip("high:Q", title="to", format="+.3~f"),
            alt.Tooltip("n:Q", title="items", format=","), alt.Tooltip("what:N", title="verdict")]  # fmt: skip
    base = alt.Chart(data)
    color, shape = alt.Color("hue:N", scale=None), alt.Shape("shape:N", scale=None)
    width = alt.condition("datum.own", alt.value(3.5), alt.value(1.8))
    layers = [
        alt.Chart(pd.DataFrame({"value": [0.0]})).mark_rule(color=MARK_HUE, strokeDash=[3, 3]).encode(x=x),
        base.mark_rule().encode(y=y, x=alt.X("low:Q", title="points"), x2="high:Q", color=color, size=width,
                                tooltip=tips),
        base.mark_point(filled=True, opacity=1, size=80).encode(y=y, x=x, color=color, shape=shape, tooltip=tips),
    ]  # fmt: skip
    return sized(alt.layer(*layers), AXIS + ROW * len(names))


def bounds(found: Sequence[tuple[str, Gate]], limits: Sequence[float | None]) -> alt.LayerChart:
    """Share of violations per row: a dot for what was seen, a bar to the one-sided bound, a tick for the limit."""
    data = pd.DataFrame([
        {"task": plain(name, 60), "share": gate.share, "high": gate.high, "limit": limit, "n": gate.n,
         "zero": gate.share,
         "hue": PLAIN_HUE if limit is None else SIGNS["gain"].hue if (gate.high or 0) <= limit else
         SIGNS["fail"].hue if (gate.share or 0) > limit else LEVELS["unknown"].hue}
        for (name, gate), limit in zip(found, limits, strict=True)
    ])  # fmt: skip
    y = alt.Y("task:N", sort=list(data["task"]), title=None,
              axis=alt.Axis(labelLimit=190, ticks=False, domain=False, labelPadding=8, labelOverlap=False))
    x = alt.X("share:Q", title="share of prompts", axis=alt.Axis(format=".3~p", tickCount=6),
              scale=alt.Scale(domainMin=0))
    tips = [alt.Tooltip("task:N"), alt.Tooltip("share:Q", title="seen", format=".2%"),
            alt.Tooltip("high:Q", title="at most, 95 %", format=".2%"),
            alt.Tooltip("limit:Q", title="limit", format=".2%"), alt.Tooltip("n:Q", title="prompts", format=",")]
    base, color = alt.Chart(data), alt.Color("hue:N", scale=None)
    layers = [
        base.mark_rule(strokeWidth=2.5).encode(y=y, x=x, x2="high:Q", color=color, tooltip=tips),
        base.mark_point(filled=True, size=60, opacity=1).encode(y=y, x=x, color=color, tooltip=tips),
        base.mark_tick(thickness=2.5, height=14, color=MARK_HUE).encode(
            y=y, x=alt.X("limit:Q", title="share of prompts"), tooltip=tips),
    ]  # fmt: skip
    return sized(alt.layer(*layers), AXIS + ROW * len(data))


def latencies(found: Sequence[Speed], now: str, before: str) -> alt.LayerChart | None:
    """Quantiles per name on one logarithmic axis of seconds, the checkpoint before behind; None where none is known.

    A quantile or bound that is a timeout has no place on the axis and is left to the table.
    """
    rows = [
        {"name": plain(s.name, 50), "q": f"p{100 * q:g}", "value": e.value, "low": e.low, "high": e.high, "when": when,
         "n": e.n, "hue": SIGNS["warn"].hue if when == now and q == 0.95 and s.slower else PLAIN_HUE}
        for s in found for when, told in ((before, s.before), (now, s.seconds)) for q, e in told.items()
        if isinstance(e, Estimate) and 0 < e.low and math.isfinite(e.high)
    ]  # fmt: skip
    if not rows:
        return None
    data = pd.DataFrame(rows)
    names = list(dict.fromkeys(data["name"]))
    y = alt.Y("name:N", sort=names, title=None,
              axis=alt.Axis(labelLimit=160, ticks=False, domain=False, labelPadding=8, labelOverlap=False))
    offset = alt.YOffset("when:N", sort=[before, now], scale=alt.Scale(domain=[before, now]))
    x = alt.X("value:Q", title="seconds", scale=alt.Scale(type="log", nice=False, padding=12),
              axis=alt.Axis(format=".4~g", tickCount=6, grid=False))
    tips = [alt.Tooltip("name:N"), alt.Tooltip("q:N", title="quantile"), alt.Tooltip("when:N", title="checkpoint"),
            alt.Tooltip("value:Q", title="seconds", format=".3~g"), alt.Tooltip("low:Q", title="from", format=".3~g"),
            alt.Tooltip("high:Q", title="to", format=".3~g"), alt.Tooltip("n:Q", title="requests", format=",")]
    base = alt.Chart(data)
    color = alt.Color("hue:N", scale=None)
    faint = alt.condition(alt.datum.when == now, alt.value(1.0), alt.value(0.45))
    shape = alt.Shape("q:N", scale=alt.Scale(domain=["p50", "p95", "p99"], range=["circle", "square", "diamond"]),
                      legend=alt.Legend(title=None, orient="top", offset=2, symbolFillColor=MARK_HUE,
                                        symbolStrokeColor=MARK_HUE))
    layers = [
        base.mark_rule(strokeWidth=2).encode(y=y, yOffset=offset, x=alt.X("low:Q", title="seconds"), x2="high:Q",
                                             color=color, opacity=faint, tooltip=tips),
        base.transform_filter(alt.datum.when == now).mark_point(filled=True, size=62, opacity=1).encode(
            y=y, yOffset=offset, x=x, shape=shape, color=color, tooltip=tips),
        base.transform_filter(alt.datum.when != now).mark_point(filled=False, size=46, opacity=0.7).encode(
            y=y, yOffset=offset, x=x, shape=shape, color=color, tooltip=tips),
    ]  # fmt: skip
    return sized(alt.layer(*layers), AXIS + 24 + 40 * len(names))
