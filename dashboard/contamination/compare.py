"""Several audits side by side: verdicts and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from checks.contamination.records import VERDICTS
from checks.contamination.report.text import figure, percent
from checks.contamination.report.top import BADGES
from dashboard.charts import text
from dashboard.charts.levels import LEVELS
from dashboard.contamination.audits import Audit, open_audit, trust
from dashboard.contamination.charts import score_intervals, verdict_bars
from dashboard.contamination.parts import broken, frame, scored
from dashboard.page import card, show
from trainvitals.errors import RunDamaged


def compare(audit: Audit, name: str, found: Mapping[str, str]) -> None:
    """Several audits side by side."""
    if len(found) < 2:
        st.markdown(
            "There is only this audit. Write another one beside it, of another corpus or another revision, and both "
            "can be compared here."
        )
        return
    others = st.multiselect(
        f"Compare {text.md(name, 60)} with",
        [other for other in found if other != name],
        default=next(other for other in found if other != name),
        format_func=lambda other: text.plain(other, 80),
        key="with",
        bind="query-params",
    )
    opened = [(name, audit)]
    for other in others:
        try:
            opened.append((other, open_audit(found[other])))
        except RunDamaged as error:
            broken(error)
    bars, intervals, rows = [], [], []
    for title, one in opened:
        for b in one.benchmarks:
            answer = trust(b, one.summary["corpus"])
            subsets = answer.model["subsets"] if answer.model else None
            bars.append((f"{b['name']} · {title}", b["verdicts"]))
            if answer.has_scores:
                intervals.append(scored(f"{b['name']} · {title}", answer))
            rows.append(_compared(title, one, b, answer.level, subsets, answer.subset))
    bars.sort(key=lambda bar: bar[0])
    intervals.sort(key=lambda row: row.name)
    left, right = st.columns(2, gap="small")
    with left, card("Verdicts", "share of all items"):
        show(verdict_bars(bars[:40]), "compare-verdicts", "Verdicts of every benchmark and audit")
    with right, card("Scores", "95 % intervals, first model"):
        if intervals:
            show(score_intervals(intervals[:12]), "compare-scores", "Scores of every benchmark and audit")
        else:
            st.caption("None of these audits was given scores.")
    table = pd.DataFrame(rows).sort_values(["Benchmark", "Audit"], kind="stable")
    form = {"Documents searched": st.column_config.NumberColumn(format="localized")}
    frame(table, "compare-table", "Verdict counts and scores of every benchmark and audit", form)


def _compared(
    title: str, audit: Audit, b: Mapping[str, Any], level: str, subsets: Mapping[str, Any] | None, trusted: str
) -> dict[str, object]:
    def score(subset: str) -> str:
        e = subsets[subset] if subsets else None
        return f"{figure(e['value'])} [{figure(e['low'])}, {figure(e['high'])}]" if e and e["n"] else "–"

    return {
        "Benchmark": text.plain(b["name"], 80),
        "Audit": text.plain(title, 80),
        "Answer": BADGES[LEVELS[level].word][1],
        **{verdict.capitalize(): b["verdicts"][verdict] for verdict in VERDICTS},
        "Share contaminated": percent(b["share"]["value"]),
        "Score, all": score("whole"),
        "Score, clean": score("clean"),
        "Trust the score of": {"clean": "clean items", "whole": "all items"}.get(trusted, "none"),
        "Documents searched": audit.summary["corpus"]["documents"],
        "Corpus SHA-256": text.plain(audit.summary["corpus"]["sha256"][:12], 12),
    }
