"""The rows of a review as a table for people: what was asked, what was seen, and on what it rests."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from checks.contamination.report.text import Html, join, table, tag, text
from checks.review.report import GROUPS, ORDER, WORDS
from checks.review.row import Row, figure
from dashboard.charts.levels import LEVELS

MOST_SHOWN = 60
"""Rows of a group that are drawn; those that hold come last."""
HUES = {**{name: level.hue for name, level in LEVELS.items()}, "waived": LEVELS["warn"].hue}
SHAPES = {"pass": "✓", "warn": "!", "fail": "✕", "unknown": "?", "waived": "W"}
STYLE = Html(
    "<style>.tv-rows{overflow-x:auto}.tv-rows table{border-collapse:collapse;width:100%;font-size:13px;margin:0}"
    ".tv-rows th{font-weight:600;text-align:left;opacity:.7;font-size:12px;padding:2px 10px 4px;border:0;"
    "border-bottom:1px solid #8592a355;white-space:nowrap}"
    ".tv-rows td{vertical-align:top;padding:6px 10px;border:0;border-bottom:1px solid #8592a333;unicode-bidi:isolate;"
    "overflow-wrap:anywhere}.tv-rows td.num,.tv-rows th.num{text-align:right;white-space:nowrap;"
    "overflow-wrap:normal;font-variant-numeric:tabular-nums}.tv-rows td:nth-child(2){min-width:260px}"
    ".tv-rows small{display:block;opacity:.65;font-size:11.5px}.tv-rows .quiet{opacity:.85}"
    ".tv-rows .sign{font-weight:700;white-space:nowrap}.tv-rows .ctl{font-size:10px;border:1px solid;padding:0 2px;"
    "border-radius:3px;opacity:.75}</style>"
)


def groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The groups of the report that have rows, in its order; the worst row first. Other kinds come last."""
    known = {kind for _, kinds in GROUPS for kind in kinds}
    named = [(name, [r for r in rows if r.kind in kinds]) for name, kinds in GROUPS]
    named.append(("Others", [r for r in rows if r.kind not in known]))
    return [(name, sorted(own, key=lambda r: ORDER.index(r.verdict))) for name, own in named if own]


def draw(rows: Sequence[Row]) -> None:
    """A table of rows that wraps and never parses what they say."""
    cells = [
        (
            tag("td", tag("span", f"{SHAPES[r.verdict]} {WORDS[r.verdict]}", class_="sign",
                          style=f"color:{HUES[r.verdict]}")),
            tag("td", tag("b", text(r.name, 120)), tag("div", text(r.sentence, 900), class_="quiet"), _small(r)),
            tag("td", figure(r, r.value), class_="num"),
            tag("td", _bounds(r), class_="num"),
            tag("td", figure(r, r.threshold), class_="num"),
            tag("td", f"{r.n:,}" if r.n else "–", class_="num"),
        )
        for r in rows[:MOST_SHOWN]
    ]  # fmt: skip
    whole = table(("Answer", "Requirement", "Seen", "95 % bounds, each side", "Limit", "n"), cells)
    st.html(join([STYLE, tag("div", whole, class_="tv-rows")]))
    if len(rows) > MOST_SHOWN:
        st.caption(f"The worst {MOST_SHOWN} of {len(rows):,}; the report has them all.")


def _bounds(row: Row) -> str:
    if row.low is None and row.high is None:
        return "–"
    low, high = figure(row, row.low), figure(row, row.high)
    unit = high[len(high.rstrip("abcdefghijklmnopqrstuvwxyz% ")) :]
    return f"{low.removesuffix(unit) if unit.strip() else low} to {high}"


def _small(row: Row) -> Html | None:
    parts = [
        f"{row.clusters:,} clusters" if row.clusters and row.clusters != row.n else "",
        row.statistic,
        row.se_kind,
        f"p {row.p_holm:.2g} after Holm" if row.p_holm is not None else "",
        row.source and f"from {row.source}",
        f"alarms kept quiet by {', '.join(row.masked[:5])}" if row.masked else "",
    ]
    words = " · ".join(part for part in parts if part)
    return tag("small", text(words, 400)) if words else None
