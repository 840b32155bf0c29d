"""The head of the Evals page: what the newest checkpoint lost, and which tasks to look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import streamlit as st

from dashboard.charts import text
from dashboard.charts.levels import LEVELS
from dashboard.evals.matrix import MOST_TASKS, Grid, family_words
from dashboard.evals.signs import SIGNS, sign_of
from dashboard.evals.stored import Pair, Stored
from dashboard.release.banner import banner

MOST_SENTENCES = 3


def draw(stored: Stored, shown: Grid, pairs: list[Pair]) -> None:
    """One sentence about the newest checkpoint, and its worst tasks."""
    if not pairs:
        return
    before, after = pairs[0]
    known = stored.known(pairs[0])
    if known is None:
        st.caption(f":material/hourglass_top: {text.md(after, 80)} is being compared with {text.md(before, 80)}.")
        return
    own = [known[task] for task in known if task in set(shown.tasks)]
    counts = {name: sum(sign_of(one) == name for one in own) for name in SIGNS}
    level = "fail" if counts["fail"] else "warn" if counts["warn"] else \
        "unknown" if counts["unknown"] or not own else "pass"
    words = [
        f"{n:,} {said}" for name, said in
        (("fail", "lost beyond chance"), ("warn", "lost by themselves"), ("gain", "gained by themselves"),
         ("pass", "no loss beyond chance"), ("unknown", "not known")) if (n := counts[name])
    ]  # fmt: skip
    told = [f"{one.task}: {one.reason}" for one in own if one.level in ("fail", "warn")][:MOST_SENTENCES]
    if not told and counts["unknown"]:
        reasons = Counter(one.reason for one in own if one.level == "unknown")
        told = [f"Not known, {n:,} of {counts['unknown']:,}: {why}" for why, n in reasons.most_common(2)]
    banner(LEVELS[level], f"{after} against {before}", f"Of {text.plural(len(own), 'task')}: " + ", ".join(words) + ".",
           told)


def narrowed(whole: Grid) -> tuple[Grid, int]:
    """The tasks of the family that the viewer chose, and the page of them."""
    counts = whole.families.value_counts()
    losses = {name: 0 for name in counts.index}
    for task in whole.tasks:
        row = [name for name in whole.signs.loc[task] if name not in ("", "none")]
        losses[whole.families[task]] += bool(row) and row[0] in ("fail", "warn")
    shown = whole
    left, right = st.columns([5, 1], gap="small", vertical_alignment="bottom")
    if len(counts) > 1:
        names = sorted(counts.index, key=lambda name: (-losses[name], name == "", name))
        with left:
            chosen = st.pills("Family", names, selection_mode="multi", key="family", bind="query-params",
                              label_visibility="collapsed", help="None chosen shows all families.",
                              format_func=lambda n: f"{family_words(text.plain(n, 40))} {counts[n]:,}"
                              + (f" ▼{losses[n]}" if losses[n] else ""))
        if chosen:
            tasks = [task for task in whole.tasks if whole.families[task] in set(chosen)]
            shown = replace(whole, tasks=tuple(tasks))
    pages = -(-len(shown.tasks) // MOST_TASKS)
    if pages <= 1:
        return shown, 0
    if not 1 <= st.session_state.get("tasks_page", 1) <= pages:
        st.session_state.pop("tasks_page", None)
    number = right.number_input(f"Page of {pages}", 1, pages, 1, key="tasks_page", bind="query-params")
    return shown, int(number) - 1
