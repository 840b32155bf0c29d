"""Charts of results: differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from checks.evals.compare import Compared
from dashboard.charts.layers import MARK_HUE, sized
from dashboard.charts.text import plain
from dashboard.evals.signs import SIGNS, points, sign_of

SHAPES = {"fail": "triangle-down", "warn": "triangle-down", "unknown": "cross", "gain": "triangle-up", "pass": "circle"}
ROW, MOST_ROWS = 20, 30
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
    x = alt.X("value:Q", title="points", scale=alt.Scale(nice=True), axis=alt.Axis(format="+~g", tickCount=7))
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
    return sized(alt.layer(*layers), max(ROW * len(names), 60))
