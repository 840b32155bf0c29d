"""A finding as the viewer opens it: what was observed, the slice of the signal that shows it, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from checks import Finding, Report, all_checks
from checks.certificates import certificate
from checks.handbook import body
from dashboard.charts import text
from dashboard.charts.levels import level_of
from dashboard.charts.live import Area, Line, Panel, live_chart
from dashboard.server import reads
from dashboard.sidebar import View
from trainvitals.catalogue import SIGNALS

MOST_PANELS, PANEL_HEIGHT = 2, 120


def key_of(finding: Finding) -> str:
    """A name for the URL that stays while the finding lasts: check, onset and label."""
    label = next((e.label for e in finding.evidence if e.label is not None), None)
    onset = finding.steps[0] if finding.steps else "all"
    return "~".join([finding.check, str(onset), *([label] if label else [])])


def keys_of(report: Report) -> dict[str, Finding]:
    """Every finding under its own key, in the report's order."""
    found: dict[str, Finding] = {}
    for finding in report.findings:
        key = key_of(finding)
        while key in found:
            key += "+"
        found[key] = finding
    return found


def title(finding: Finding) -> str:
    """A label for a list, as markdown: the level in a word, then one sentence."""
    level = level_of(finding.level)
    return f":{level.color}[{level.icon} **{level.word}**] {text.md(finding.summary, 170)}"


def where(finding: Finding) -> str:
    """The finding's steps in words."""
    if finding.steps is None:
        return "whole run"
    first, last = finding.steps
    return f"since step {first:,}" if finding.ongoing else text.steps(first, last)


def draw(view: View, finding: Finding) -> None:
    """Draw everything there is to know about a finding into the current container."""
    _observed(finding)
    _chart(view, finding)
    if finding.what_it_means:
        st.markdown(f"**What it means.** {text.md(finding.what_it_means, 900)}")
    if finding.what_to_do:
        st.markdown(f"**What to do.** {text.md(finding.what_to_do, 900)}")
    foot = [f"check `{finding.check}`", where(finding), f"{finding.n:,} points" if finding.n else ""]
    if finding.threshold:
        foot.append(f"threshold from {text.source(finding.threshold.source)}")
    foot += [f"masked: {text.md(m.kind, 40)} at step {m.step:,}" for m in finding.masked[:3]]
    st.caption(" · ".join(part for part in foot if part))
    _handbook(finding)


def _handbook(finding: Finding) -> None:
    """The check's section of docs/checks.md: what it watches, why, its threshold, and how often it was wrong."""
    check = next((check for check in all_checks() if check.name == finding.check), None)
    if check is not None:
        with st.popover(f"About {check.name}", icon=":material/menu_book:", type="tertiary"):
            st.markdown(body(check))
            if finding.certificate not in ("", certificate(check.name).words):
                st.markdown(f"This finding: {text.md(finding.certificate, 300)}")


def _observed(finding: Finding) -> None:
    statistic, threshold = finding.statistic, finding.threshold
    if statistic is None:
        return
    words = [f"**{text.md(statistic.name, 80)}: {text.md(text.quantity(statistic.value, statistic.unit))}**"]
    if statistic.low is not None and statistic.high is not None:
        words.append(f"interval {text.md(text.number(statistic.low))} to {text.md(text.number(statistic.high))}")
    if threshold is not None:
        words += [
            f"{name} at {text.md(text.quantity(limit, threshold.unit))}"
            for name, limit in (("warns", threshold.warn), ("fails", threshold.fail))
            if limit is not None
        ]
    st.markdown(" · ".join(words))


def _chart(view: View, finding: Finding) -> None:
    """The slices of signals that show the finding, one above the other, with its steps shaded."""
    steps = next((e.steps for e in finding.evidence if e.steps), None) or finding.steps
    window = _around(steps, view)
    panels, absent = [], []
    for shown in finding.evidence[:MOST_PANELS]:
        lines = _lines(reads.series(view.path, shown.signal, window, 400), shown.label)
        if not lines:
            absent.append(shown.signal)
            continue
        name = f"{shown.signal} · {shown.place}" if shown.place else shown.signal
        unit = SIGNALS[shown.signal].unit if shown.signal in SIGNALS else ""
        panels.append(Panel(text.plain(name, 60), unit, lines))
    if panels:
        areas = [Area(*steps, finding.level)] if steps else []
        height = 55 + PANEL_HEIGHT * len(panels)
        names = " and ".join(panel.title for panel in panels)
        covers = text.steps(*steps) if steps else "the whole run"
        option = live_chart(panels, (), areas, steps=window, height=height, zoom=False)
        st.echarts_chart(
            option, height=height, key="evidence", alt=text.plain(f"{names}; the finding covers {covers}", 200)
        )
    if absent:
        signals = ", ".join(text.md(signal, 60) for signal in absent)
        st.caption(f":material/visibility_off: No rows of {signals} in {text.steps(*window)}.")


def _lines(table: pd.DataFrame, label: str | None) -> tuple[Line, ...]:
    if label is not None and (table["label"] == label).any():
        table = table[table["label"] == label]
    names: Sequence[str] = list(dict.fromkeys(table["label"]))
    if len(names) == 1:
        return (Line(names[0] or "value", table),)
    hues = ("#3f7fd0", "#d08a3f", "#3f9f7f", "#9a6fc4", "#c25566", "#4fa3bf", "#a98f35", "#7f8c9c")
    return tuple(
        Line(name, table[table["label"] == name].assign(lo=float("nan"), hi=float("nan")), hues[i % len(hues)])
        for i, name in enumerate(names[:8])
    )


def _around(steps: tuple[int, int] | None, view: View) -> tuple[int, int]:
    """The finding's steps with as many again on both sides, at least 5 % of the run."""
    oldest, newest = view.run.first_step or 0, view.run.last_step or 1
    if steps is None:
        return view.axis
    margin = max(steps[1] - steps[0], (newest - oldest) // 20, 20)
    return max(steps[0] - margin, 0), min(steps[1] + margin, max(newest, steps[1]))
