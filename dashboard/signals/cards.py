"""The run card, whole: what the script said of itself, searchable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.charts import text
from dashboard.sidebar import View

MOST_SETTINGS, MOST_DEPTH = 5_000, 12


def draw(view: View) -> None:
    """Tags and group first, then every fact and setting as one table."""
    card = view.run.card
    if card.tags or card.group:
        badges = [f":material/label: {text.md(tag, 60)}" for tag in card.tags]
        st.markdown("   ".join([*([f"**{text.md(card.group, 60)}**"] if card.group else []), *badges]))
    rows = pd.DataFrame(settings(view), columns=["of", "name", "value"])
    other = pd.DataFrame(columns=["of", "name", "value"])
    if view.compare is not None:
        other = pd.DataFrame(settings_of(view.compare.card), columns=["of", "name", "value"])
    wanted = st.text_input("Search", key="find_setting", bind="query-params", placeholder="a part of a name or value",
                           icon=":material/search:", label_visibility="collapsed")
    shown = rows if view.compare is None else _beside(rows, other)
    shown = shown[[all(word in " ".join(map(str, row)).lower() for word in wanted.lower().split())
                   for row in shown.itertuples(index=False)]]
    st.dataframe(shown, hide_index=True, width="stretch", key="card")
    if len(rows) >= MOST_SETTINGS:
        st.caption(f"The first {MOST_SETTINGS:,} settings.")


def settings(view: View) -> list[tuple[str, str, str]]:
    """Of this run's card: kind, dotted name, value."""
    return settings_of(view.run.card)


def settings_of(card: Any) -> list[tuple[str, str, str]]:
    """Every fact and setting of a card as harmless text: kind, dotted name, value."""
    found: list[tuple[str, str, str]] = []
    for part in fields(card):
        value = getattr(card, part.name)
        kind = part.name if part.name in ("config", "notes", "versions") else "card"
        inner = flat(value, "" if kind != "card" else part.name)
        found += [(kind, text.plain(name, 200), text.plain(said, 500)) for name, said in inner]
    return found[:MOST_SETTINGS]


def flat(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings and lists: dotted name, value."""
    if isinstance(value, Mapping) and value and depth < MOST_DEPTH:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list) and any(isinstance(v, Mapping | list) for v in value) and depth < MOST_DEPTH:
        for i, inner in enumerate(value):
            yield from flat(inner, f"{name}[{i}]", depth + 1)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif value not in ("", None, {}):
        yield name, str(value)


def _beside(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Both cards, what differs first."""
    both = rows.merge(other, on=["of", "name"], how="outer", suffixes=("", " of the other")).fillna("")
    differs = both["value"] != both["value of the other"]
    return both.assign(differs=differs.map({True: "differs", False: ""})).sort_values(
        "differs", ascending=False, kind="stable")
