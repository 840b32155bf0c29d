"""The rows of all runs as a table that is sorted, searched and filtered."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from dashboard.charts import text
from dashboard.charts.levels import level_of
from dashboard.server.shelf import Row

SIGNS = {"fail": "■ fail", "warn": "▲ warn", "unknown": "? unknown", "pass": "● pass"}
"""A shape beside the word, so that no level is known by its colour alone."""


def matching(rows: Mapping[str, Row], words: str, levels: Sequence[str]) -> dict[str, Row]:
    """The runs whose name, model, group, tags, status or headline hold every word, of these levels (of all if none)."""
    wanted = words.lower().split()

    def kept(name: str, row: Row) -> bool:
        told = " ".join((name, row.model, row.group, *row.tags, row.status, row.headline)).lower()
        return (not levels or row.level in levels) and all(word in told for word in wanted)

    return {name: row for name, row in rows.items() if kept(name, row)}


def ordered(rows: Mapping[str, Row]) -> list[str]:
    """Names, the worst level first and of those the newest data."""
    return sorted(rows, key=lambda name: (level_of(rows[name].level).rank, -(rows[name].last_time or 0.0), name))


def frame(rows: Mapping[str, Row], names: Sequence[str], baseline: str = "") -> pd.DataFrame:
    """The table as it is shown. With a baseline, each loss also as its difference to that run's."""
    base = rows[baseline].loss if baseline in rows else None
    now = time.time()
    of = [rows[name] for name in names]
    columns = {
        "level": [SIGNS.get(r.level, SIGNS["unknown"]) for r in of],
        "run": [text.plain(name, 120) for name in names],
        "what": [text.plain(r.error or r.headline or ("not judged yet" if r.judged_step is None else ""), 160)
                 for r in of],
        "status": [r.status for r in of],
        "step": [r.step for r in of],
        "done": [100 * r.step / r.total_steps if r.step and r.total_steps else None for r in of],
        "course": [list(r.course) for r in of],
        "loss": [r.loss for r in of],
        "change": [None if r.change is None else 100 * r.change for r in of],
        **({"to baseline": [None if base is None or r.loss is None else r.loss - base for r in of]} if base else {}),
        "tokens": [r.tokens for r in of],
        "tokens/s": [r.tokens_per_s for r in of],
        "newest data": [text.ago(None if r.last_time is None else max(now - r.last_time, 0.0)) for r in of],
        "started": [None if not r.created else pd.Timestamp(r.created, unit="s", tz="UTC") for r in of],
        "twins": [r.twins or None for r in of],
        "model": [text.plain(r.model, 60) for r in of],
        "parameters": [r.params for r in of],
        "group": [text.plain(r.group, 60) for r in of],
        "tags": [[text.plain(tag, 40) for tag in r.tags] for r in of],
    }  # fmt: skip
    table = pd.DataFrame(columns)
    # A column that no run fills says nothing.
    empty = [name for name in ("done", "to baseline", "tokens", "tokens/s", "twins", "model", "parameters", "group")
             if name in table and (table[name].isna() | (table[name] == "")).all()]
    return table.drop(columns=[*empty, *([] if any(r.tags for r in of) else ["tags"])])


def steady(names: Sequence[str], key: str) -> list[str]:
    """The order in which the rows are drawn: as they were, while some are chosen, for a choice is kept by position."""
    before = [name for name in st.session_state.get("_runs_order", []) if name in set(names)]
    held = st.session_state.get(key, {}).get("selection", {}).get("rows")
    order = [*before, *[name for name in names if name not in set(before)]] if held else list(names)
    st.session_state["_runs_order"] = order
    return order


def draw(rows: Mapping[str, Row], names: Sequence[str], baseline: str, of: str) -> list[str]:
    """The table; returns the names of the rows that the viewer has chosen, in their order.

    `of` tells one search and filter from another: a choice does not outlive them.
    """
    number = st.column_config.NumberColumn
    key = f"runs-{of}"
    names = steady(names, key)
    shown = st.dataframe(
        frame(rows, names, baseline).style.map(_hue, subset=["level"]), hide_index=True, width="stretch", key=key,
        on_select="rerun",
        selection_mode="multi-row", column_config={
            "run": st.column_config.TextColumn("run", pinned=True, width="medium"),
            "level": st.column_config.TextColumn("level", pinned=True, width="small",
                                                 help="Of the findings that are stored in the run."),
            "what": st.column_config.TextColumn("what", width="large", help="The worst finding."),
            "step": number("step", format="localized"),
            "done": st.column_config.ProgressColumn("done, %", format="%.0f", min_value=0, max_value=100,
                                                    help="Steps of those that are planned."),
            "course": st.column_config.LineChartColumn("loss so far"),
            "loss": number("loss, nats/token", format="%.4g", help="Mean of the newest thirtieth of the run."),
            "change": number("change, %", format="%+.2f", help="Of the loss over the newest tenth of the run."),
            "to baseline": number("to baseline, nats", format="%+.4g", help="Loss less that of the baseline run."),
            "tokens": number("tokens", format="compact", help="Input tokens: the mean of a step times the steps."),
            "tokens/s": number("tokens/s", format="compact"),
            "started": st.column_config.DatetimeColumn("started", format="YYYY-MM-DD HH:mm"),
            "twins": number("twins", help="Runs on the same data that are noted beside it (`trainvitals twins`)."),
            "parameters": number("parameters", format="compact"),
            "tags": st.column_config.ListColumn("tags"),
        })  # fmt: skip
    chosen = shown["selection"]["rows"]
    return [names[i] for i in chosen if i < len(names)]


def _hue(level: str) -> str:
    return f"color: {level_of(level.rpartition(' ')[2]).hue}"
