"""Runs: every run of the folder, how each one is, and up to ten of them side by side."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard import sidebar
from dashboard.charts import text
from dashboard.runs import overlay, table
from dashboard.server import reads
from dashboard.server.shelf import Row, shelf

ICON, PLACE, RUN = ":material/table_rows:", 0, "never"

EVERY_SECONDS = 4.0


def page() -> None:
    """Draw the page, again every few seconds."""
    folder = sidebar.runs_folder()
    if not reads.runs_below(folder):
        sidebar.no_runs(folder)
        return
    st.fragment(_body, run_every=EVERY_SECONDS, key="runs-live")(folder)


def _body(folder: str) -> None:
    runs = reads.runs_below(folder)
    rows = shelf().look(runs)
    left, middle, right = st.columns([3, 2, 2], vertical_alignment="bottom", gap="small")
    words = left.text_input("Search", key="find_run", bind="query-params", icon=":material/search:",
                            placeholder="name, model, group, tag, status or finding", label_visibility="collapsed")
    levels = middle.pills("Level", list(table.SIGNS), key="levels", selection_mode="multi", bind="query-params",
                          label_visibility="collapsed")
    names = table.ordered(table.matching(rows, words, levels))
    baseline = right.selectbox("Baseline", ["", *sorted(rows)], key="baseline", bind="query-params",
                               format_func=lambda name: text.plain(name, 80) or "no baseline",
                               label_visibility="collapsed") or ""
    st.caption(_counts(runs, rows, names))
    if not names:
        return
    chosen = table.draw(rows, names, baseline, f"{words}-{levels}")
    _open(chosen)
    overlay.draw(runs, chosen or names[:1], baseline)


def _counts(runs: Mapping[str, str], rows: Mapping[str, Row], names: list[str]) -> str:
    of_level = {level: sum(rows[name].level == level for name in names) for level in table.SIGNS}
    told = ", ".join(f"{n:,} {level}" for level, n in of_level.items() if n)
    left = len(runs) - len(rows)
    return (f"{text.plural(len(names), 'run')}{f': {told}' if told else ''}."
            + (f" {left:,} more are being read." if left else "")
            + " Choose rows to see them in one chart; one is opened, two are compared.")


def _open(chosen: list[str]) -> None:
    if not chosen:
        return
    words = f"Open {text.md(chosen[0], 60)}" if len(chosen) == 1 else "Compare the first two"
    if st.button(words, key="open-run", icon=":material/monitor_heart:"):
        query = {"run": chosen[0]} | ({"compare": chosen[1]} if len(chosen) > 1 else {})
        st.switch_page("app_pages/health.py", query_params=query)


if __name__ == "__main__":
    page()
