"""The first screen of the contamination page: the decision, and for each benchmark the score to trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from checks.contamination.records import VERDICTS
from checks.contamination.report.text import figure, percent, percents, plural, prose, tag
from checks.contamination.report.top import BADGES, facts
from checks.contamination.score.decision import coverage
from dashboard.charts import text
from dashboard.charts.levels import LEVELS, level_of
from dashboard.contamination import charts as audit_charts
from dashboard.contamination.audits import Audit, Trust, trust
from dashboard.contamination.parts import no_scores, scored
from dashboard.page import card, show

CARDS, MOST_BARS = 3, 12
"""Benchmarks with a card of their own, and with a bar: the worst. The table has them all."""
GO = {"fail": "No-go as reported", "unknown": "No decision", "warn": "Not yet", "pass": "Go"}


def overview(audit: Audit) -> None:
    """Draw it."""
    _decision(audit)
    benchmarks, corpus = audit.benchmarks, audit.summary["corpus"]
    if not benchmarks:
        return
    answers = [trust(b, corpus) for b in benchmarks]
    _cards(benchmarks, answers)
    left, right = st.columns([3, 4] if any(a.model for a in answers) else [2, 3], gap="small")
    note = f"the worst {MOST_BARS} of {len(benchmarks)}" if len(benchmarks) > MOST_BARS else "share of all items"
    with left, card("Benchmarks by verdict", note):
        show(
            audit_charts.verdict_bars([(str(b["name"]), b["verdicts"]) for b in benchmarks[:MOST_BARS]]),
            "audit-verdicts",
            "Items of every benchmark by verdict",
        )
    with right:
        _scores(benchmarks, answers)
    _table(benchmarks, answers)


def _decision(audit: Audit) -> None:
    decision = audit.summary["decision"]
    level = level_of(decision["level"])
    sign, word = BADGES[level.word]
    # Not an alert: a heading in one carries a link, and plain text in one is too small for the sentence that counts.
    style = (
        f"border:1px solid {level.hue}55;border-left:6px solid {level.hue};border-radius:8px;padding:12px 18px;"
        f"background:{level.hue}1c;unicode-bidi:isolate;overflow-wrap:anywhere"
    )
    head = tag("b", f"{sign} {GO[level.word]}: {word.lower()}", style=f"color:{level.hue}")
    told = prose(text.plain(decision["sentence"], 1200))
    sentence = tag("div", told, style="font-size:19px;font-weight:600;line-height:1.35")
    st.html(tag("div", head, sentence, style=style, role="status"))
    st.caption(text.md(facts(audit.summary), 600))


def _cards(benchmarks: Sequence[Mapping[str, Any]], answers: Sequence[Trust]) -> None:
    for column, benchmark, answer in zip(st.columns(min(len(benchmarks), CARDS)), benchmarks, answers, strict=False):
        level = LEVELS[answer.level]
        with column.container(border=True, gap="xxsmall", height="stretch"):
            st.markdown(
                f"**{text.md(benchmark['name'], 60)}** :{level.color}-badge[{level.icon} {BADGES[level.word][1]}]"
            )
            if answer.model is None or not answer.subset:
                st.markdown(f":gray[:small[Which score to trust]]\n\n{text.md(answer.sentence, 300)}")
            else:
                _score(benchmark, answer, answer.model)


def _score(benchmark: Mapping[str, Any], answer: Trust, model: Mapping[str, Any]) -> None:
    """The score to trust in large figures, and what it stands for."""
    whole, clean = model["subsets"]["whole"], model["subsets"]["clean"]
    score = model["subsets"][answer.subset]
    digits = 3 if answer.subset == "clean" and figure(score["value"], 2) == figure(whole["value"], 2) else 2
    suspects = plural(benchmark["verdicts"]["suspect"], "suspect")
    some = coverage(benchmark)
    on_all = f"on {some}" if some else f"on all {plural(score['n'], 'item')}"
    told = {
        "fail": f"on {plural(score['n'], 'clean item')}, not {figure(whole['value'], digits)} on {some or 'all'}",
        "warn": f"{on_all}, once the {suspects} are looked at; {figure(clean['value'], 2)} "
        "on clean items",
        "pass": on_all,
    }[answer.level if answer.subset == "clean" or answer.level != "fail" else "pass"]
    interval = f"[{figure(score['low'], digits)}, {figure(score['high'], digits)}]"
    hue = LEVELS["pass" if answer.level == "fail" else answer.level].hue
    st.html(
        tag(
            "div",
            tag("div", f"Score to trust, {text.plain(model['model'], 60)}", style="font-size:12px;opacity:.7"),
            tag("b", figure(score["value"], digits), style=f"font-size:30px;line-height:1.15;color:{hue}"),
            tag("span", f" {interval} {told}", style="font-size:13px"),
        )
    )


def _scores(benchmarks: Sequence[Mapping[str, Any]], answers: Sequence[Trust]) -> None:
    rows = [scored(str(b["name"]), a) for b, a in zip(benchmarks, answers, strict=True) if a.has_scores]
    with card("Score, all against clean", "95 % intervals, first model" if rows else ""):
        if rows:
            show(
                audit_charts.score_intervals(rows[:CARDS]),
                "audit-scores",
                "Score of all, clean and contaminated items of every benchmark with intervals",
            )
            return
        no_scores()


def _table(benchmarks: Sequence[Mapping[str, Any]], answers: Sequence[Trust]) -> None:
    rows = []
    for benchmark, answer in zip(benchmarks, answers, strict=True):
        share = benchmark["share"]
        rows.append(
            {
                "Benchmark": text.plain(benchmark["name"], 80),
                **{verdict.capitalize(): benchmark["verdicts"][verdict] for verdict in VERDICTS},
                "Testable": benchmark["eligible"],
                "Share contaminated": percent(share["value"]),
                "95 % interval": percents(share["low"], share["high"]) if share["value"] is not None else "–",
                "What to do": text.plain(answer.sentence, 400),
            }
        )
    form: dict[str, Any] = {
        verdict.capitalize(): st.column_config.NumberColumn(format="localized", width=88, help=f"Items, {verdict}")
        for verdict in VERDICTS
    }
    form["Testable"] = st.column_config.NumberColumn(format="localized", width=80, help="All items less the untestable")
    form["Share contaminated"] = st.column_config.TextColumn(width=124, help="Of the testable items")
    form["95 % interval"] = st.column_config.TextColumn(width=110, help="Of the share, Wilson's")
    form["Contaminated"] = st.column_config.NumberColumn("Contaminated items", format="localized", width=120)
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config=form,
        key="audit-benchmarks",
        height="content" if len(rows) <= MOST_BARS else 360,
        row_height=28,
        alt="Verdict counts, testable items and contaminated share of every benchmark",
    )
