"""What the parts of the contamination page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.charts import text
from dashboard.contamination.audits import Trust
from dashboard.contamination.charts import Scored
from dashboard.page import card

MOST_PROBLEMS = 500


def scored(name: str, answer: Trust) -> Scored:
    """A benchmark's row of the chart of scores; the answer has scores."""
    return Scored(name, answer.model["subsets"] if answer.model else {}, answer.subset, answer.level)


def broken(error: Exception) -> None:
    """Say which file of an audit cannot be used, and what to do."""
    st.error(text.md(error, 600), icon=":material/broken_image:")


def no_scores() -> None:
    """Say what is missing without scores, and how to add them."""
    st.markdown(
        "No scores were given, so the audit cannot say what the contamination is worth. Run the same command again "
        "with your model's answers, and with those of a model that never saw this corpus:"
    )
    st.code("--scores MODEL=answers.jsonl --control OTHER=answers.jsonl", language="bash")


def problems_card(problems: Sequence[Mapping[str, Any]], title: str, key: str) -> None:
    """Problems met while reading, those that lost most first; nothing where there is none."""
    if not problems:
        return
    worst = sorted(problems, key=lambda p: -p["records"])[:MOST_PROBLEMS]
    note = f"the worst {MOST_PROBLEMS:,} of {len(problems):,}" if len(problems) > MOST_PROBLEMS else ""
    with card(title, note):
        rows = [
            {
                "File": text.plain(p["source"], 300), "Place": text.plain(p["place"], 200),
                "What, and what was done": text.plain(p["what"], 400), "Records lost": p["records"],
            }
            for p in worst
        ]  # fmt: skip
        frame(pd.DataFrame(rows), key, "Problems with their place and what was done")


def frame(table: pd.DataFrame, key: str, alt_text: str, form: Mapping[str, Any] | None = None) -> None:
    """Draw a table: all of it where it is short, scrolling where it is long."""
    st.dataframe(
        table,
        hide_index=True,
        column_config=form,
        key=key,
        height="content" if len(table) <= 14 else 420,
        row_height=28,
        alt=alt_text,
    )
