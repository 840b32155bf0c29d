"""The items of a task at two checkpoints side by side, those first that went from right to wrong."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainvitals.evals import Sheet
from trainvitals.spreadsheet import safe_cell

FLIPS = {
    "lost": "▼ lost", "no score": "? no score", "only before": "only before", "only now": "only now",
    "won": "▲ won", "same": "= same",
}  # fmt: skip
"""In the order in which they are shown."""
TEXTS = ("text", "answer", "cluster", "group", "tool", "error")
COLUMNS = ("flip", "item", "before", "now", "answer_before", "answer_now", "text", "cluster", "group", "tool",
           "error_before", "error_now", "latency_before_s", "latency_now_s")  # fmt: skip
MOST_CSV = 100_000
"""Rows of a download."""


def paired(before: Sheet | None, after: Sheet | None) -> pd.DataFrame:
    """`COLUMNS`, a row for each item: scores are means over samples, texts those of the first sample.

    In the order of `FLIPS`, the largest loss first.
    """
    both = _side(before).add_suffix("_before").join(_side(after).add_suffix("_now"), how="outer")
    lower = any(one is not None and not one.higher_is_better for one in (before, after))
    change = (both["score_now"] - both["score_before"]) * (-1 if lower else 1)
    there = [both[f"there_{name}"].notna() for name in ("before", "now")]
    flip = np.select(
        [there[0] & ~there[1], ~there[0] & there[1], change.isna(), change < 0, change > 0],
        ["only before", "only now", "no score", "lost", "won"], "same")  # fmt: skip
    found = pd.DataFrame({
        "flip": flip, "item": both.index, "before": both["score_before"], "now": both["score_now"],
        "answer_before": both["answer_before"], "answer_now": both["answer_now"],
        "text": both["text_now"].fillna(both["text_before"]),
        "cluster": both["cluster_now"].fillna(both["cluster_before"]),
        "group": both["group_now"].fillna(both["group_before"]), "tool": both["tool_now"].fillna(both["tool_before"]),
        "error_before": both["error_before"], "error_now": both["error_now"],
        "latency_before_s": both["latency_s_before"], "latency_now_s": both["latency_s_now"],
    })  # fmt: skip
    rank = pd.Series(flip).map({name: i for i, name in enumerate(FLIPS)})
    order = np.lexsort((found["item"].astype(str), change.fillna(0).to_numpy(), rank))
    return found.iloc[order].reset_index(drop=True)


def _side(one: Sheet | None) -> pd.DataFrame:
    if one is None or not len(one.items):
        return pd.DataFrame(columns=["score", "latency_s", "there", *TEXTS], index=pd.Index([], name="item"))
    items = one.items.assign(item=one.items["item"].fillna("").astype(str))
    by_item = items.groupby("item", sort=False)
    return by_item[["score", "latency_s"]].mean().join(by_item[list(TEXTS)].first()).assign(there=True)


def matching(table: pd.DataFrame, flips: list[str], words: str) -> NDArray[np.int64]:
    """Rows of these flips (all where none is named) that hold every word in any of their texts."""
    keep = np.ones(len(table), bool) if not flips else table["flip"].isin(flips).to_numpy()
    for word in words.lower().split():
        hit = np.zeros(len(table), bool)
        for name in ("item", "answer_before", "answer_now", "text", "cluster", "group", "tool", "error_now"):
            hit |= table[name].fillna("").astype(str).str.lower().str.contains(word, regex=False).to_numpy(bool)
        keep = keep & hit
    return np.flatnonzero(keep)


def as_csv(table: pd.DataFrame) -> bytes:
    """The rows for a spreadsheet, which runs none of their texts."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in table.head(MOST_CSV)[list(COLUMNS)].itertuples(index=False):
        writer.writerow([safe_cell(value) for value in row])
    return out.getvalue().encode("utf-8", "replace")
