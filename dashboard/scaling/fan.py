"""The forecast of a run as a chart: the loss so far, where it goes, and what was said of its end before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from checks.scaling.forecast_log import Scored
from dashboard.charts.layers import AXIS_WIDTH, MARK_HUE, sized
from dashboard.charts.levels import LEVELS
from dashboard.scaling.axes import HUE, RUN_HUE
from trainvitals.untrusted import misfit

_FORECAST = {
    "last_step": int, "total_steps": int, "trained_share": (int, float), "final_loss": (int, float, type(None)),
    "interval": ([(int, float)], type(None)),
}  # fmt: skip


def fan(
    curve: pd.DataFrame, path: Sequence[Sequence[float]], told: dict[str, Any] | None, past: Sequence[Scored],
    total: int, *, log: bool = False,
) -> alt.LayerChart:
    """Training loss so far, the forecast to the end with its band, and what earlier forecasts said of the end.

    curve: step, value. path: step and loss of the law. told: `Forecast.to_json`, None where there is none.
    """
    data = curve[["step", "value"]].replace([np.inf, -np.inf], np.nan).dropna()
    last = int(told["last_step"]) if told else int(data["step"].max()) if len(data) else 0
    low, high = _limits(data, told, past)
    end = 1.02 * max(total, last, 1)
    begin = int(data["step"].min()) if len(data) else 0
    begin = begin if end / 2 < begin < end else 0
    x = alt.X("step:Q", title=None, scale=alt.Scale(domain=[begin, end], nice=False), axis=alt.Axis(
        format=",d", grid=False, tickCount=6, labelFlush=True, tickMinStep=1,
        labelExpr="datum.index == 0 ? 'step ' + datum.label : datum.label"))
    scale = alt.Scale(domain=[low, high], nice=False, clamp=False, type="log" if log else "linear")
    y = alt.Y("value:Q", title="Loss, nats/token", scale=scale, axis=alt.Axis(minExtent=AXIS_WIDTH, tickCount=6))
    layers = [alt.Chart(data).mark_line(strokeWidth=1.2, color=HUE, opacity=0.7, clip=True).encode(
        x=x, y=y, tooltip=[alt.Tooltip("step:Q", format=",d"), alt.Tooltip("value:Q", title="loss", format=".4f")])]
    if told and told["final_loss"] is not None and told["interval"]:
        layers += _ahead(told, path, last, x, y, scale)
    if past:
        layers += _said(past, x, y, scale)
    return sized(alt.layer(*layers), 390)


def forecast_of(details: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[list[float]]]:
    """The forecast of a finding and the path of its law; None and [] where they are not as `fan` draws them."""
    told, path = details.get("forecast"), details.get("path", [])
    if not isinstance(told, dict) or misfit(told, _FORECAST) or len(told["interval"] or (0, 0)) != 2:
        return None, []
    sound = not misfit(path, [[(int, float)]]) and all(len(point) == 2 for point in path)
    return told, path if sound else []


def _ahead(told: dict[str, Any], path: Sequence[Sequence[float]], last: int, x: alt.X, y: alt.Y, scale: alt.Scale
           ) -> list[alt.Chart]:
    """The law over the rest of the run; the band is stated for the end and widens towards it evenly."""
    low, high = told["interval"]
    end, final = int(told["total_steps"]), float(told["final_loss"])
    steps = np.array([p[0] for p in path], dtype=float)
    values = np.array([p[1] for p in path], dtype=float)
    law = pd.DataFrame({"step": steps, "value": values})
    rest = law[law["step"] >= last]
    if len(rest) >= 2 and end > last:
        share = (rest["step"] - last) / (end - last)
        shift = share * (final - float(rest["value"].iloc[-1]))
        rest = rest.assign(lo=rest["value"] + shift - share * (final - low), hi=rest["value"] + shift
                           + share * (high - final))
    mark = pd.DataFrame({"step": [end], "value": [final], "lo": [low], "hi": [high],
                         "text": [f"{final:.3f}"]})
    tips = [alt.Tooltip("step:Q", title="at step", format=",d"), alt.Tooltip("value:Q", title="forecast", format=".4f"),
            alt.Tooltip("lo:Q", title="90 % from", format=".4f"), alt.Tooltip("hi:Q", title="to", format=".4f")]
    layers = []
    if "lo" in rest:
        layers.append(alt.Chart(rest).mark_area(color=RUN_HUE, opacity=0.3, clip=True).encode(
            x=x, y=alt.Y("lo:Q", scale=scale, title="Loss, nats/token"), y2="hi:Q"))
    layers.append(alt.Chart(rest).mark_line(color=RUN_HUE, strokeWidth=2, clip=True).encode(x=x, y=y))
    layers += _whiskers(mark, x, y, scale, tips, RUN_HUE, 2.5, 60)
    layers.append(alt.Chart(mark).mark_text(align="right", dx=-8, dy=-12, fontSize=12, fontWeight=700, color=RUN_HUE
                                            ).encode(x=x, y=y, text="text:N"))
    return layers


def _said(past: Sequence[Scored], x: alt.X, y: alt.Y, scale: alt.Scale) -> list[alt.Chart]:
    """Earlier forecasts at the step that they were made at; green where the end lay in the band, red where not."""
    hue = {None: MARK_HUE, True: LEVELS["pass"].hue, False: LEVELS["fail"].hue}
    data = pd.DataFrame(
        {"step": [s.made_at_step for s in past], "value": [s.final_loss for s in past], "lo": [s.low for s in past],
         "hi": [s.high for s in past], "hue": [hue[s.inside] for s in past],
         "error": ["not known yet" if s.error is None else f"{s.error:+.4f}" for s in past]}
    )
    tips = [
        alt.Tooltip("step:Q", title="said at step", format=",d"),
        alt.Tooltip("value:Q", title="final loss", format=".4f"),
        alt.Tooltip("lo:Q", title="90 % from", format=".4f"),
        alt.Tooltip("hi:Q", title="to", format=".4f"),
        alt.Tooltip("error:N", title="error, nats/token"),
    ]
    layers = _whiskers(data, x, y, scale, tips, alt.Color("hue:N", scale=None), 1.4, 26)
    seen = next((s.final_loss - s.error for s in past if s.error is not None), None)
    if seen is not None:
        truth = alt.Chart(pd.DataFrame({"value": [seen], "text": [f"ended at {seen:.4f}"]})).encode(y=y)
        layers += [
            truth.mark_rule(color=MARK_HUE, strokeDash=[4, 3]),
            truth.mark_text(align="left", baseline="top", dx=6, dy=4, fontSize=11, color=MARK_HUE).encode(
                x=alt.value(0), text="text:N"),
        ]
    return layers


def _whiskers(data: pd.DataFrame, x: alt.X, y: alt.Y, scale: alt.Scale, tips: list[alt.Tooltip], hue: Any,
              width: float, size: int) -> list[alt.Chart]:
    color = alt.value(hue) if isinstance(hue, str) else hue
    base = alt.Chart(data).encode(x=x, tooltip=tips, color=color)
    return [
        base.mark_rule(strokeWidth=width, opacity=0.9, clip=True).encode(
            y=alt.Y("lo:Q", scale=scale, title="Loss, nats/token"), y2="hi:Q"),
        base.mark_point(filled=True, size=size, opacity=1, clip=True).encode(y=y),
    ]


def _limits(data: pd.DataFrame, told: dict[str, Any] | None, past: Sequence[Scored]) -> tuple[float, float]:
    """A loss axis for the part of the run that matters: the first steps would flatten everything else."""
    ends = [v for s in past for v in (s.low, s.high)]
    if told and told["interval"]:
        ends += told["interval"]
    if len(data):
        ends += [float(data["value"].min()), float(data["value"].iloc[len(data) // 5 :].quantile(0.98))]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.06 * max(high - low, 1e-3)
    return low - room, high + room
