"""Charts of the scaling page that look into a fit: the loss, its residuals, IsoFLOP valleys, the price of another size.

As in `plots`, columns have fixed names and strings of a file appear as data only.
"""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from checks.scaling.isoflop import IsoFlop, budgets
from checks.scaling.plan import deviations
from checks.scaling.table import Ladder
from dashboard.charts.layers import AXIS_WIDTH, MARK_HUE, sized
from dashboard.charts.text import plain
from dashboard.scaling.axes import (
    GRID,
    HUE,
    RUN_HUE,
    Reached,
    flops_axis,
    log_x,
    loss_y,
    planned,
    size_color,
    star,
    tip,
)
from dashboard.scaling.ladders import Chosen


def losses(chosen: Chosen, run: Reached | None, budget: float, span: tuple[float, float]) -> alt.LayerChart:
    """Loss against compute: the ladder, the frontier with the 90 % band of a prediction, the run."""
    flops = np.geomspace(*span, GRID)
    data = pd.DataFrame({"flops": flops, "value": chosen.law.optimum(flops).loss})
    half = [chosen.band_at(float(c)) for c in flops]
    x, y = flops_axis(span), loss_y("value:Q")
    layers: list[alt.Chart] = []
    if all(h is not None for h in half):
        wide = np.exp(np.array(half, dtype=float))
        band = data.assign(lo=data["value"] / wide, hi=data["value"] * wide)
        layers.append(alt.Chart(band).mark_area(color=HUE, opacity=0.2, clip=True).encode(
            x=x, y=loss_y("lo:Q"), y2="hi:Q"))
    layers.append(alt.Chart(data).mark_line(color=HUE, strokeWidth=2.2, clip=True).encode(
        x=x, y=y, tooltip=[tip("flops", "compute, FLOPs"), alt.Tooltip("value:Q", title="best loss", format=".4f")]))
    if chosen.fit is not None:
        layers.insert(1 if len(layers) > 1 else 0, _runs(chosen.fit.ladder, x, y))
    best = pd.DataFrame({"flops": [budget], "value": [float(chosen.law.optimum(budget).loss)]})
    layers += planned(best, x, y)
    if run is not None and run.loss is not None:
        at = pd.DataFrame({"flops": [run.size.flops], "value": [run.loss], "label": [plain(run.name, 60)],
                           "lo": [run.low or run.loss], "hi": [run.high or run.loss]})
        layers.append(alt.Chart(at).mark_rule(color=RUN_HUE, strokeWidth=2, clip=True).encode(
            x=x, y=loss_y("lo:Q"), y2="hi:Q"))
        layers.append(star(at, x, y, run.what))
    return sized(alt.layer(*layers), 230)


def _runs(ladder: Ladder, x: alt.X, y: alt.Y) -> alt.Chart:
    data = pd.DataFrame({"flops": ladder.flops, "value": ladder.loss, "n": ladder.n, "d": ladder.d,
                         "label": [plain(name, 60) for name in ladder.names]})
    tips = [alt.Tooltip("label:N", title="ladder run"), tip("n", "parameters"), tip("d", "tokens"),
            alt.Tooltip("value:Q", title="loss, nats/token", format=".4f")]
    chart: alt.Chart = alt.Chart(data).mark_circle(size=26, opacity=0.75, clip=True).encode(
        x=x, y=y, color=size_color("n:Q", "parameters"), tooltip=tips)
    return chart


def residuals(chosen: Chosen, span: tuple[float, float]) -> alt.LayerChart:
    """What the fit leaves of every ladder run, in per cent of its loss; the chosen law is a fit."""
    assert chosen.fit is not None
    ladder = chosen.fit.ladder
    data = pd.DataFrame({"flops": ladder.flops, "value": chosen.fit.residual, "n": ladder.n, "d": ladder.d,
                         "label": [plain(name, 60) for name in ladder.names]})
    x = flops_axis(span)
    y = alt.Y("value:Q", title="Observed over law", axis=alt.Axis(format="+.1%", tickCount=4, minExtent=AXIS_WIDTH))
    tips = [alt.Tooltip("label:N", title="ladder run"), tip("n", "parameters"), tip("d", "tokens"),
            alt.Tooltip("value:Q", title="log loss over the law's", format="+.2%")]
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=MARK_HUE, opacity=0.8).encode(y="zero:Q")
    points = alt.Chart(data).mark_circle(size=26, opacity=0.75, clip=True).encode(
        x=x, y=y, color=size_color("n:Q", "parameters", legend=False), tooltip=tips)
    return sized(alt.layer(zero, points), 130)


def valleys(found: IsoFlop, ladder: Ladder) -> alt.LayerChart:
    """Loss against size at equal compute: the runs of each budget, their parabola and its minimum."""
    groups = budgets(ladder)
    points, curves, lows = [], [], []
    for valley, group in zip(found.valleys, groups, strict=True):
        sizes = np.geomspace(ladder.n[group].min(), ladder.n[group].max(), 30)
        heights = np.polynomial.Polynomial(valley.coefficients)(np.log(sizes))
        curves += [{"n": n, "value": v, "flops": valley.flops} for n, v in zip(sizes, heights, strict=True)]
        points += [{"n": ladder.n[i], "value": ladder.loss[i], "flops": valley.flops,
                    "label": plain(ladder.names[i], 60)} for i in group]
        if valley.inside:
            lows.append({"n": valley.n, "value": valley.loss, "flops": valley.flops})
    everything = pd.DataFrame([*points, *curves])
    x = log_x("n:Q", "Parameters", (everything["n"].min() / 1.2, everything["n"].max() * 1.2))
    y, color = loss_y("value:Q"), size_color("flops:Q", "", legend=False)
    tips = [tip("flops", "budget, FLOPs"), tip("n", "parameters"), alt.Tooltip("value:Q", title="loss", format=".4f")]
    layers = [
        alt.Chart(pd.DataFrame(points)).mark_circle(size=26, opacity=0.7).encode(
            x=x, y=y, color=size_color("flops:Q", "budget, FLOPs"), tooltip=tips),
        alt.Chart(pd.DataFrame(curves)).mark_line(strokeWidth=1.6).encode(x=x, y=y, color=color, detail="flops:Q"),
    ]
    if lows:
        layers.append(alt.Chart(pd.DataFrame(lows)).mark_point(
            shape="triangle-down", filled=True, size=60, yOffset=-8, opacity=1).encode(
            x=x, y=y, color=color, tooltip=tips))
    return sized(alt.layer(*layers), 330)


def deviating(chosen: Chosen, budget: float, run: Reached | None) -> alt.LayerChart:
    """Loss over the optimum's for other sizes at equal compute."""
    found = deviations(chosen.law, budget, np.geomspace(1 / 10, 10, 41).tolist())
    data = pd.DataFrame({"n": [x.n for x in found], "value": [x.penalty for x in found], "d": [x.d for x in found],
                         "loss": [x.loss for x in found], "wasted": [x.wasted for x in found]})
    x = log_x("n:Q", "Parameters, at this compute", (float(data["n"].min()), float(data["n"].max())))
    y = alt.Y("value:Q", title="Extra loss", axis=alt.Axis(format="+.1%", tickCount=4, minExtent=AXIS_WIDTH))
    tips = [tip("n", "parameters"), tip("d", "tokens"), alt.Tooltip("loss:Q", title="loss, nats/token", format=".4f"),
            alt.Tooltip("value:Q", title="over the best", format="+.2%"),
            alt.Tooltip("wasted:Q", title="compute wasted", format=".0%")]
    base = alt.Chart(data).encode(x=x, y=y, tooltip=tips)
    layers = [
        base.mark_line(color=HUE, strokeWidth=2.2),
        base.mark_point(size=200, opacity=0),
        alt.Chart(data.iloc[[20]]).mark_point(size=80, color=HUE, strokeWidth=2, fill="white", opacity=1).encode(
            x=x, y=y, tooltip=tips),
    ]
    if run is not None and data["n"].min() < run.size.n < data["n"].max():
        at = pd.DataFrame({"n": [run.size.n], "text": ["this run's size"]})
        rule = alt.Chart(at).encode(x=x)
        layers += [
            rule.mark_rule(color=RUN_HUE, strokeDash=[4, 3]),
            rule.mark_text(align="left", baseline="top", dx=4, dy=2, fontSize=10, color=RUN_HUE).encode(
                y=alt.value(0), text="text:N"),
        ]
    return sized(alt.layer(*layers), 112)
