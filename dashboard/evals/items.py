"""The item explorer: which items flipped between two checkpoints, and what was asked and answered."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from checks.contamination.report.text import Html, join, marked, tag
from dashboard.charts import text
from dashboard.evals.pairing import FLIPS, MOST_CSV, as_csv, matching, paired
from dashboard.evals.stored import Pair, Stored

MOST_ROWS, CUT, SHOWN = 500, 160, 12_000
"""Items in the table, characters of a text in it, and of the text of one item."""
_STYLE = Html(
    "<style>.tv-item pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;font-size:12.5px;"
    "unicode-bidi:isolate;background:none;border:0;padding:0;color:inherit}.tv-item{max-height:300px;overflow:auto}"
    ".tv-item .ctl{font-size:10px;border:1px solid currentColor;border-radius:3px;padding:0 2px;margin:0 1px;"
    "opacity:.75;unicode-bidi:isolate}.tv-item .cut{font-style:italic;font-size:11px;opacity:.7;padding:0 4px}</style>"
)


def draw(stored: Stored, pair: Pair, task: str) -> None:
    """The table of items, and one of them whole."""
    table = stored.read(("items", pair, task), lambda: paired(*(stored.evals.sheet(task, name) for name in pair)))
    if table.empty:
        st.caption(":material/visibility_off: **No items.** Only the score of this task is known. Run the harness with "
                   "item logs (`--log_samples` of lm-evaluation-harness), and import again.")
        return
    shown = _filtered(table)
    rows = table.iloc[shown]
    found = _table(rows.head(MOST_ROWS), shown, pair)
    left, right = st.columns([4, 1], gap="small")
    more = f"The first {MOST_ROWS} of {len(rows):,} items; search to see others. " if len(rows) > MOST_ROWS else ""
    left.caption(f"{more}{text.plural(len(rows), 'item')} of {len(table):,}. Select a row to read it whole.")
    right.download_button(
        "CSV", lambda: as_csv(rows), f"{_file_name(task)}.csv", "text/csv", icon=":material/download:", key="items-csv",
        help=f"These items with whole texts, at most {MOST_CSV:,}.", width="stretch", on_click="ignore")
    if len(rows):
        _one(rows.iloc[found], pair)


def _filtered(table: pd.DataFrame) -> NDArray[np.int64]:
    counts = table["flip"].value_counts()
    there = [name for name in FLIPS if name in counts]
    left, right = st.columns([3, 2], gap="small", vertical_alignment="bottom")
    with left:
        flips = st.pills("Flip", there, selection_mode="multi", key="flip", bind="query-params",
                         label_visibility="collapsed", format_func=lambda name: f"{FLIPS[name]} {counts[name]:,}",
                         help="None chosen shows all.")
    words = right.text_input("Search", key="find_item", bind="query-params", max_chars=200, icon=":material/search:",
                             placeholder="words of a prompt, an answer, an id", label_visibility="collapsed")
    return matching(table, list(flips or []), words or "")


def _table(rows: pd.DataFrame, shown: NDArray[np.int64], pair: Pair) -> int:
    """Draw the rows; the position of the one that is selected, the first unless another is."""
    data = pd.DataFrame({
        "": [FLIPS[name] for name in rows["flip"]],
        "Item": [text.plain(v, 60) for v in rows["item"]],
        "Before": rows["before"].to_list(), "Now": rows["now"].to_list(),
        "Answer before": [_short(v) for v in rows["answer_before"]],
        "Answer now": [_short(v) for v in rows["answer_now"]],
        "Prompt": [_short(v) for v in rows["text"]],
        "Cluster": [_short(v, 40) for v in rows["cluster"]],
    })  # fmt: skip
    for name in ("Answer before", "Answer now", "Prompt", "Cluster"):
        if (data[name] == "").all():
            data = data.drop(columns=name)
    score = st.column_config.NumberColumn(format="%.3g", width=70)
    form: dict[str, Any] = {"": st.column_config.TextColumn(width=80), "Before": score, "Now": score}
    # A table of other rows is another table: a selection by position would point at another item.
    key = hashlib.sha256(shown[:MOST_ROWS].tobytes() + "\0".join(pair).encode()).hexdigest()[:12]
    chosen = st.dataframe(
        data, hide_index=True, column_config=form, key=f"items-{key}", height=min(36 + 28 * max(len(data), 1), 316),
        row_height=28, on_select="rerun", selection_mode="single-row",
        alt="Items with their scores and answers at both checkpoints")  # fmt: skip
    picked = chosen["selection"]["rows"]
    return int(picked[0]) if picked and picked[0] < len(rows) else 0


def _one(row: pd.Series, pair: Pair) -> None:
    with st.container(border=True, gap="xsmall", key="item-whole"):
        about = [f"{name} {text.plain(row[name], 60)}" for name in ("cluster", "group", "tool") if _told(row[name])]
        st.markdown(f"**{text.md(row['item'], 120)}** {FLIPS[row['flip']]}"
                    f" :gray[:small[{text.md(' · '.join(about), 200)}]]")
        if _told(row["text"]):
            st.caption("**Prompt**")
            _side(row["text"])
        for column, when, checkpoint in zip(st.columns(2, gap="medium"), ("before", "now"), pair, strict=True):
            with column:
                score = text.number(row[when], 4) if _told(row[when]) else "no score"
                seconds = row[f"latency_{when}_s"]
                st.caption(f"**{text.md(checkpoint, 60)}** scored {score}"
                           + (f" in {text.number(seconds)} s" if _told(seconds) else ""))
                if _told(row[f"error_{when}"]):
                    st.caption(f":material/report: {text.md(row[f'error_{when}'], 300)}")
                if _told(row[f"answer_{when}"]):
                    _side(row[f"answer_{when}"])
                else:
                    st.caption("No answer is stored.")


def _side(value: object) -> None:
    st.html(join([_STYLE, tag("div", tag("pre", marked(str(value), None, SHOWN), dir="auto"), class_="tv-item")]))


def _told(value: object) -> bool:
    return value is not None and value == value and value != ""


def _short(value: object, limit: int = CUT) -> str:
    return text.plain(value, limit) if _told(value) else ""


def _file_name(task: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in task)[:80] or "items"
