"""The report's drawings: inline SVG, coloured by the page's style sheet so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from checks.contamination.records import VERDICTS
from checks.contamination.report.text import Html, figure, tag

_LEAST = 6.0
"""Width of the thinnest slice, of 1000: one item among thousands must be seen."""


def verdict_bar(verdicts: Mapping[str, int]) -> Html:
    """A bar of the verdict counts, worst first."""
    total = sum(verdicts.values()) or 1
    widths = [max(_LEAST, 1000 * verdicts[v] / total) if verdicts[v] else 0.0 for v in VERDICTS]
    scale = 1000 / (sum(widths) or 1)
    at, parts = 0.0, []
    for verdict, width in zip(VERDICTS, widths, strict=True):
        if width:
            drawn = max(width * scale - 2, 1)
            parts.append(tag("rect", x=f"{at:.1f}", y=0, width=f"{drawn:.1f}", height=12, class_=f"fill-{verdict}"))
        at += width * scale
    said = ", ".join(f"{verdicts[v]:,} {v}" for v in VERDICTS)
    return tag(
        "svg", tag("title", said), *parts, viewBox="0 0 1000 12", preserveAspectRatio="none", class_="bar", role="img"
    )


def score_plot(subsets: Mapping[str, Mapping[str, Any]]) -> Html:
    """Score of all, clean and contaminated items with their intervals, on one axis that holds them."""
    rows = [
        (label, css, subsets[name])
        for name, label, css in (
            ("whole", "all", "whole"),
            ("clean", "clean", "clean"),
            ("dirty", "contaminated", "dirty"),
        )
        if subsets[name]["n"]
    ]
    low = max(0.0, math.floor(20 * min(row["low"] for *_, row in rows)) / 20)
    high = min(1.0, math.ceil(20 * max(row["high"] for *_, row in rows)) / 20)
    left, right, step = 98, 284, 20

    def x(value: float) -> str:
        return f"{left + (right - left) * (value - low) / max(high - low, 1e-9):.1f}"

    parts = []
    for number, (label, css, row) in enumerate(rows):
        y = 12 + step * number
        parts += [
            tag("text", label, x=88, y=y + 4, class_=f"label end {css}"),
            tag("line", x1=left, x2=right, y1=y, y2=y, class_="rail"),
            tag("line", x1=x(row["low"]), x2=x(row["high"]), y1=y, y2=y, class_=f"interval {css}"),
            tag("circle", cx=x(row["value"]), cy=y, r=4.5, class_=f"dot {css}"),
            tag("text", figure(row["value"]), x=290, y=y + 4, class_=f"label {css}"),
        ]
    bottom = 12 + step * len(rows)
    for value in (low, high):
        parts.append(tag("text", f"{value:.2f}", x=x(value), y=bottom + 3, class_="tick middle"))
    said = "; ".join(
        f"{label} {figure(r['value'])} from {figure(r['low'])} to {figure(r['high'])}" for label, _, r in rows
    )
    return tag("svg", tag("title", said), *parts, viewBox=f"0 0 330 {bottom + 8}", class_="scores", role="img")


def sweep_plot(rows: pd.DataFrame, controls: Sequence[str]) -> Html:
    """Estimated performance gain (points) over the threshold, one line per model, interval of the first; flagged below.

    rows: sweep.parquet of one benchmark. Control models are dashed.
    """
    models = list(dict.fromkeys(rows["model"].dropna()))
    lines = [(model, rows[(rows["model"] == model) & rows["gain"].notna()]) for model in models]
    shown = pd.concat([part for _, part in lines]) if lines else rows.head(0)
    counts = rows[rows["model"].isna()].sort_values("threshold")
    top = _nice(100 * max(shown["gain"].max(), shown["gain_high"].quantile(0.95), 0.005)) if len(shown) else 1.0
    bottom = -_nice(100 * max(-shown["gain"].min(), -shown["gain_low"].quantile(0.05), 0.005)) if len(shown) else -1.0

    def x(threshold: float) -> float:
        return 56 + 604 * (threshold - 0.05) / 0.95

    def y(points: float) -> float:
        return 14 + 156 * (top - min(max(points, bottom), top)) / (top - bottom)

    parts = []
    for points in (bottom, 0.0, top):
        parts += [
            tag("line", x1=56, x2=660, y1=f"{y(points):.1f}", y2=f"{y(points):.1f}", class_="rail"),
            tag("text", f"{points:+g}" if points else "0", x=48, y=f"{y(points) + 4:.1f}", class_="tick end"),
        ]
    for number, (model, part) in enumerate(lines):
        steps = part.sort_values("threshold")
        band = steps.dropna(subset=["gain_low", "gain_high"])
        if number == 0 and len(band):
            edge = [(x(t), y(100 * g)) for t, g in zip(band["threshold"], band["gain_low"], strict=True)]
            back = [(x(t), y(100 * g)) for t, g in zip(band["threshold"], band["gain_high"], strict=True)]
            parts.append(tag("polygon", points=_points(edge + back[::-1]), class_="band series0"))
        path = [(x(t), y(100 * g)) for t, g in zip(steps["threshold"], steps["gain"], strict=True)]
        dashed = " dashed" if model in controls else ""
        parts.append(
            tag("polyline", tag("title", model), points=_points(path), class_=f"line series{number % 6}{dashed}")
        )
    most = max(int(counts["flagged"].max()), 1) if len(counts) else 1
    stairs = [(x(t), 246 - 50 * n / most) for t, n in zip(counts["threshold"], counts["flagged"], strict=True)]
    if stairs:
        parts.append(tag("polygon", points=_points([(56, 246), *stairs, (660, 246)]), class_="flagged"))
    parts += [
        tag("text", f"{most:,}", x=48, y=204, class_="tick end"),
        tag("text", "0", x=48, y=248, class_="tick end"),
    ]
    for threshold in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(tag("text", f"{threshold:g}", x=f"{x(threshold):.1f}", y=264, class_="tick middle"))
    parts += [
        tag("text", "gain, points", x=660, y=10, class_="tick end"),
        tag("text", "items flagged", x=660, y=192, class_="tick end"),
        tag("text", "containment from which an item is flagged", x=358, y=282, class_="tick middle"),
    ]
    return tag("svg", *parts, viewBox="0 0 680 288", class_="sweep", role="img", aria_label="threshold sweep")


def legend(models: Sequence[str], controls: Sequence[str]) -> Html:
    """The models of a sweep plot with their lines."""
    keys = []
    for number, model in enumerate(models):
        dashed = " dashed" if model in controls else ""
        line = tag("line", x1=0, x2=22, y1=5, y2=5, class_=f"line series{number % 6}{dashed}")
        name = f"{model[:80]} (control)" if model in controls else model[:80]
        keys.append(tag("span", tag("svg", line, viewBox="0 0 22 10", class_="key"), name))
    return tag("p", *keys, class_="legend")


def _nice(value: float) -> float:
    """The next round number: one of a few times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 6, 8, 10) if m * power >= value - 1e-12)


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)
