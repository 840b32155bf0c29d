"""Checkpoints by tasks: every score, and whether it is worse than that of the checkpoint before beyond chance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.charts import text
from dashboard.evals.signs import SIGNS, TINT, sign_of
from dashboard.evals.stored import Pair, Stored

MOST_CHECKPOINTS, MOST_TASKS = 12, 60
"""Columns and rows that are drawn at once: about 40 kB."""
TASK, METRIC, FAMILY = "Task", "Metric", "Family"


@dataclass(frozen=True, slots=True)
class Grid:
    """What a matrix shows."""

    checkpoints: tuple[str, ...]
    tasks: tuple[str, ...]
    means: pd.DataFrame
    """Task down, checkpoint across; NaN where a task was not asked."""
    signs: pd.DataFrame
    """The same shape: a name of `SIGNS`, "" where there is nothing to compare with."""
    metrics: pd.Series
    families: pd.Series


def pair_of(stored: Stored, checkpoint: str, against: str) -> Pair | None:
    """What a checkpoint is compared with: `against`, or the one before it where that is ""; None where nothing is."""
    order = stored.evals.checkpoints
    if against:
        return (against, checkpoint) if against != checkpoint and against in order else None
    at = order.index(checkpoint)
    return (order[at - 1], checkpoint) if at else None


def shown_checkpoints(stored: Stored, kind: str, steps: tuple[int, int] | None) -> list[str]:
    """Checkpoints with results of this kind in a step range, oldest first; those without a step are in every range."""
    own = stored.summaries[stored.summaries["kind"] == kind]
    if steps is not None:
        own = own[own["step"].isna() | own["step"].between(*steps)]
    there = set(own["checkpoint"])
    return [name for name in stored.evals.checkpoints if name in there]


def grid(stored: Stored, kind: str, checkpoints: Sequence[str], against: str) -> Grid:
    """All tasks of a kind for these checkpoints, newest first; those tasks first that are worst at the newest."""
    own = stored.summaries[stored.summaries["kind"] == kind].drop_duplicates(["task", "checkpoint"])
    means = own.pivot(index="task", columns="checkpoint", values="mean").reindex(columns=list(checkpoints))
    asked = own.assign(asked=True).pivot(index="task", columns="checkpoint", values="asked")
    asked = asked.reindex(columns=list(checkpoints)).fillna(False).astype(bool)
    means, asked = means[asked.any(axis=1)], asked[asked.any(axis=1)]
    signs = pd.DataFrame("", index=means.index, columns=means.columns)
    for checkpoint in checkpoints:
        pair = pair_of(stored, checkpoint, against)
        known = stored.known(pair) if pair else None
        signs[checkpoint] = [
            "none" if not there else "" if pair is None else
            "pending" if known is None else sign_of(known[task]) if task in known else "unknown"
            for task, there in asked[checkpoint].items()
        ]  # fmt: skip
    facts = own.drop_duplicates("task").set_index("task")
    order = sorted(means.index, key=_worst_first(signs, facts["family"]))
    return Grid(tuple(checkpoints), tuple(order), means.loc[order], signs.loc[order], facts["metric"].loc[order],
                facts["family"].loc[order])  # fmt: skip


def _worst_first(signs: pd.DataFrame, families: pd.Series) -> Callable[[str], tuple[int, int, str, str]]:
    """Worst at the newest checkpoint that was asked, then most losses, then by family and name."""

    def key(task: str) -> tuple[int, int, str, str]:
        row = [SIGNS[name] for name in signs.loc[task] if name not in ("", "none")]
        rank = min(row[0].rank, SIGNS["pending"].rank) if row else 9
        return rank, -sum(sign.rank < 2 for sign in row), families.get(task, ""), task

    return key


def family_words(name: str) -> str:
    """A family as the page calls it."""
    return name or "other"


def draw(stored: Stored, shown: Grid, labels: dict[str, str], page: int) -> tuple[str, str] | None:
    """The matrix; the task and checkpoint of the cell that was clicked, None where none is."""
    rows = list(shown.tasks)[page * MOST_TASKS : (page + 1) * MOST_TASKS]
    table = pd.DataFrame({
        TASK: [text.plain(task, 80) for task in rows],
        **{labels[c]: [_cell(shown, task, c) for task in rows] for c in shown.checkpoints},
        FAMILY: [family_words(text.plain(shown.families[task], 40)) for task in rows],
        METRIC: [text.plain(shown.metrics[task], 30) for task in rows],
    })  # fmt: skip
    styles = pd.DataFrame("", index=table.index, columns=table.columns)
    for checkpoint in shown.checkpoints:
        styles[labels[checkpoint]] = [_style(shown.signs.at[task, checkpoint]) for task in rows]
    form: dict[str, Any] = {
        TASK: st.column_config.TextColumn(width=160, pinned=True), FAMILY: st.column_config.TextColumn(width=90),
        METRIC: st.column_config.TextColumn(width=80, help="As the harness calls it; a score is shown as it has it."),
    }  # fmt: skip
    form |= {labels[c]: st.column_config.TextColumn(width=92, help=text.md(_help(stored, c), 200))
             for c in shown.checkpoints}  # fmt: skip
    # A table of other rows is another table: a selection by position would point at another task.
    key = hashlib.sha256("\0".join([*rows, "", *shown.checkpoints]).encode("utf-8", "replace")).hexdigest()[:12]
    found = st.dataframe(
        table.style.apply(lambda _: styles, axis=None), hide_index=True, column_config=form, key=f"matrix-{key}",
        height=min(36 + 28 * len(table), 456), row_height=28, on_select="rerun", selection_mode="single-cell",
        alt="Score of every task and checkpoint, with a sign for what changed since the checkpoint before",
    )  # fmt: skip
    return cell_of(found["selection"]["cells"], rows, {labels[c]: c for c in shown.checkpoints})


def cell_of(cells: Sequence[Sequence[Any]], rows: Sequence[str], columns: dict[str, str]) -> tuple[str, str] | None:
    """Task and checkpoint of a selected cell; None where none is, or a column about no checkpoint."""
    for row, column in cells[:1]:
        if column in columns and 0 <= row < len(rows):
            return rows[row], columns[column]
    return None


def _cell(shown: Grid, task: str, checkpoint: str) -> str:
    name, mean = shown.signs.at[task, checkpoint], shown.means.at[task, checkpoint]
    if name == "none":
        return "–"
    score = "no score" if pd.isna(mean) else f"{mean:.3f}" if abs(mean) < 100 else text.number(mean, 4)
    return f"{score} {SIGNS[name].mark}" if name else score


def _style(name: str) -> str:
    hue = SIGNS[name].hue if name else ""
    if not hue:
        return ""
    return f"background-color: {hue}{TINT}" + ("; font-weight: 600" if name in ("fail", "warn") else "")


def _help(stored: Stored, checkpoint: str) -> str:
    step = stored.steps(checkpoint)
    own = stored.summaries[stored.summaries["checkpoint"] == checkpoint]
    return f"{checkpoint}" + (f", step {step:,}" if step is not None else "") + \
        f": {len(own):,} results, {int(own['items'].sum()):,} items"


def legend() -> str:
    """The signs in words, as markdown."""
    return " · ".join(f"{s.mark} {s.word}" for name, s in SIGNS.items() if name not in ("none",))
