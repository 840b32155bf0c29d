"""Recall and reach of an audit: what became of planted items, and what was searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from checks.contamination import reach
from checks.contamination.report import paragraphs as words
from checks.contamination.report.text import percent, percents, plural, size
from dashboard.charts import text
from dashboard.contamination.audits import Audit
from dashboard.contamination.parts import frame, problems_card
from dashboard.page import card

MOST_SHARDS = 1_000
RECALL = (
    "Known items were planted in a copy of a sample of this corpus, each edited in one way, and the audit was run on "
    "it. The interval is that of any detector."
)


def recall(audit: Audit) -> None:
    """What became of the items planted by --inject."""
    inject = audit.summary["inject"]
    if not inject or "table" not in inject:
        unmeasured = (
            "Recall on your data was not measured. Run the audit with `--inject` to plant known items in a copy of "
            "your own text and see how many are found."
        )
        st.markdown(text.md(inject["reason"], 400) if inject else unmeasured)
        return
    rows = inject["table"]
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    lines = []
    for edit in dict.fromkeys(row["edit"] for row in rows):
        own = {row["detector"]: row for row in rows if row["edit"] == edit}
        line: dict[str, object] = {
            "Edit": text.plain(edit, 60), "Planted items": max(row["planted"] for row in own.values())
        }  # fmt: skip
        for detector in detectors:
            line[text.plain(detector, 20)] = own[detector]["recall"] if detector in own else None
        best = own.get("any") or max(own.values(), key=lambda row: row["recall"] or 0.0)
        line["95 % interval"] = percents(best["low"], best["high"]) if best["recall"] is not None else "–"
        lines.append(line)
    form: dict[str, Any] = {
        text.plain(name, 20): st.column_config.ProgressColumn(
            _heading(name), format="percent", min_value=0.0, max_value=1.0
        )
        for name in detectors
    }
    form["95 % interval"] = st.column_config.TextColumn(help="Of any detector.")
    with card("How much this audit finds", "share of planted copies that each detector found"):
        st.caption(RECALL)
        frame(pd.DataFrame(lines), "audit-recall", "Recall by kind of edit and detector", form)
        alarms = inject["false_alarms"]
        st.markdown(
            f"**False alarms.** Of {plural(alarms['items'], 'item')} that were planted nowhere, "
            f"{alarms['contaminated']:,} were called contaminated and {alarms['suspect']:,} suspect: "
            f"{percent(alarms['value'])}, interval {percents(alarms['low'], alarms['high'])}."
        )


def _heading(detector: str) -> str:
    return "Any detector" if detector == "any" else f"{text.plain(detector, 20).capitalize()} detector"


def searched(audit: Audit) -> None:
    """Corpus, shards, benchmarks, every problem with its place, rules, settings."""
    summary, corpus = audit.summary, audit.summary["corpus"]
    st.markdown(text.md(summary["searched"], 600))
    tiles = st.columns(7)
    values = ("records", "documents", "skipped", "bytes_read", "text_bytes", "unsearched_bytes")
    titles = ("Records", "Documents searched", "Skipped", "Bytes read", "Text searched", "Text not searched")
    for tile, title, name in zip(tiles, titles, values, strict=False):
        value = corpus.get(name) or 0
        tile.metric(title, size(value) if "bytes" in name else f"{value:,}")
    tiles[6].metric("Shards", f"{len(corpus['shards']):,}")
    for said in corpus.get("left_out") or ():
        st.caption(text.md(said, 600))
    for benchmark in summary["benchmarks"]:
        if told := reach.itself(benchmark):
            st.markdown(text.md(told, 600))
    st.caption(f"Corpus SHA-256 {text.md(corpus['sha256'], 80)}")
    if cut := corpus.get("matches_cut"):
        st.caption(f"Further matches that were counted but are not listed: {cut:,}.")
    problems = [*corpus["problems"], *(p for b in summary["benchmarks"] for p in b["problems"])]
    problems_card(problems, "Problems while reading", "audit-problems")
    if not problems:
        st.caption(":material/check: No problem was met while reading.")
    _inputs(summary)
    with st.expander("Beside the rules of the literature", key="audit-rules"):
        frame(pd.DataFrame([_rule_row(b) for b in summary["benchmarks"]]), "audit-rule-table", "Counts of other rules")
        st.caption(text.md(words.RULES, 2000))
    with st.expander("How a verdict comes about", key="audit-method"):
        for name, said in words.METHOD:
            st.markdown(f"**{name}.** {text.md(said, 1000)}")
    with st.expander("Settings and versions", key="audit-settings"):
        st.json({name: summary[name] for name in ("seed", "thresholds", "detectors", "versions")} | dict(audit.made))


def _inputs(summary: Mapping[str, Any]) -> None:
    shards = summary["corpus"]["shards"]
    note = f"the first {MOST_SHARDS:,} of {len(shards):,}" if len(shards) > MOST_SHARDS else ""
    with card("Shards", note):
        rows = [
            {
                "Shard": text.plain(s["shard"], 400), "Kind": text.plain(s["kind"], 20), "Bytes": s["bytes"],
                "Records": s["records"], "Documents": s["documents"], "Skipped": s["skipped"],
                "Text searched, bytes": s["text_bytes"], "Text not searched, bytes": s.get("unsearched_bytes") or 0,
                "Not searched": _by_column(s.get("unsearched")), "No text": _by_column(s.get("no_text")),
                "SHA-256": text.plain(s["sha256"], 80),
            }
            for s in shards[:MOST_SHARDS]
        ]  # fmt: skip
        frame(pd.DataFrame(rows), "audit-shards", "Shards with their counts and hashes", _numbers(rows))
    with card("Benchmarks"):
        rows = [
            {
                "Benchmark": text.plain(b["name"], 80), "Read from": text.plain(b["source"], 400), "Items": b["items"],
                "Roles": text.plain(", ".join(f"{c} as {r}" for c, r in b["roles"].items()), 300),
                "Revision (SHA-256)": text.plain(b["sha256"], 80),
            }
            for b in summary["benchmarks"]
        ]  # fmt: skip
        frame(pd.DataFrame(rows), "audit-inputs", "Benchmarks with their sources and hashes", _numbers(rows))


def _by_column(counted: Mapping[str, int] | None) -> str:
    """Bytes by column and reason, the most first."""
    return text.plain(", ".join(f"{name} {size(n)}" for name, n in list((counted or {}).items())[:6]), 300)


def _rule_row(b: Mapping[str, Any]) -> dict[str, object]:
    return {
        "Benchmark": text.plain(b["name"], 80),
        "Contaminated here": b["verdicts"]["contaminated"],
        "Suspect here": b["verdicts"]["suspect"],
        **{f"Any {n}-gram": f"{b['any_hit'][n]:,} of {b['eligible_n'][n]:,}" for n in ("3", "5", "8", "13")},
        "70 % of 8-grams": b["covered8"],
    }


def _numbers(rows: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    numbers = [name for name, value in rows[0].items() if isinstance(value, int)] if rows else []
    return {name: st.column_config.NumberColumn(format="localized") for name in numbers}
