"""Evals: which scores moved from checkpoint to checkpoint, beyond chance, and on which items?"""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard import address
from dashboard.charts import text
from dashboard.evals import compared, items, matrix, overview, trend
from dashboard.evals.frame import checkpoint_of, labels_of, polled, reference, results_page
from dashboard.evals.stored import Pair, Stored
from dashboard.failing import guarded
from dashboard.sidebar import Choice

ICON, PLACE, RUN, SECTION = ":material/checklist:", 20, "always", "Release"

KINDS = {"model": "The model alone", "workflow": "The workflow around it"}


def body(choice: Choice, stored: Stored) -> None:
    """Draw the page."""
    kind = _kind(stored)
    steps = None if choice.first is None and choice.last is None else (choice.first or 0, choice.last or 1 << 62)
    every = matrix.shown_checkpoints(stored, kind, steps)
    if not every:
        st.caption(":material/visibility_off: No checkpoint has results in these steps. Widen the range in the "
                   "sidebar.")
        return
    shown = every[::-1][: matrix.MOST_CHECKPOINTS]  # newest first: a narrow screen shows the left end
    against = reference(stored)
    pairs = [p for c in shown if (p := matrix.pair_of(stored, c, against)) is not None]
    stored.ask(pairs)
    polled(stored, [*pairs, trend.JOB], "The matrix", partial(_matrix, stored, kind, shown, len(every), against, pairs))
    _chosen(stored, kind, every, against)


def _kind(stored: Stored) -> str:
    found = [kind for kind in KINDS if (stored.summaries["kind"] == kind).any()]
    if len(found) < 2:
        return found[0] if found else "model"
    chosen = st.segmented_control("Level", found, default=found[0], key="level", bind="query-params", required=True,
                                  format_func=lambda kind: KINDS[kind], label_visibility="collapsed")
    return str(chosen or found[0])


def _matrix(stored: Stored, kind: str, shown: list[str], every: int, against: str, pairs: list[Pair]) -> None:
    whole = matrix.grid(stored, kind, shown, against)
    overview.draw(stored, whole, pairs)
    chosen, page = overview.narrowed(whole)
    clicked = matrix.draw(stored, chosen, labels_of(stored, shown), page)
    left = stored.pending(pairs)
    steps = [stored.steps(name) for name in shown]
    more = "The newest checkpoint is on the left. " if None not in steps else \
        "Checkpoints whose step nobody knows are in the order of their names. "
    if every > len(shown):
        more += f"These are {len(shown)} of {every:,}; the step range in the sidebar chooses others. "
    st.caption(
        f"{more}Mean score over items, as each metric has it; {matrix.legend()}. A loss is corrected over the tasks of "
        "its column (Holm), not over the columns. Click a cell for the comparison behind it."
        + (f" {text.plural(left, 'column')} still being compared." if left else ""))
    before, st.session_state["_clicked"] = st.session_state.get("_clicked"), clicked
    if clicked is not None and clicked != before:
        st.session_state["task"], st.session_state["checkpoint"] = clicked
        st.rerun()


def _chosen(stored: Stored, kind: str, every: list[str], against: str) -> None:
    """One checkpoint against its reference: a task, all tasks, the items."""
    own = stored.summaries[stored.summaries["kind"] == kind]
    left, right = st.columns([1, 2], gap="small")
    names = [c for c in reversed(every) if matrix.pair_of(stored, c, against) is not None]
    if not names:
        st.caption(":material/hourglass_top: There is one checkpoint so far: nothing to compare it with. Import "
                   "results of another, or of a reference model.")
        return
    with left:
        checkpoint = checkpoint_of(names)
    pair = matrix.pair_of(stored, checkpoint, against)
    assert pair is not None
    with st.spinner(f"Comparing {text.plain(pair[1], 60)} with {text.plain(pair[0], 60)}"):
        found = stored.wait(pair)
    asked = set(own.loc[own["checkpoint"].isin(pair), "task"])
    tasks = [task for task in found if task in asked]
    if not tasks:
        st.caption(":material/visibility_off: Neither of the two has results of this level.")
        return
    address.miss("task", tasks)
    task = right.selectbox("Task, the worst first", tasks, key="task", bind="query-params", on_change=address.found,
                           args=("task",), format_func=lambda name: text.plain(name, 120))
    address.say_missed("task", "task", task)
    parts = {
        "Comparison": partial(compared.draw, stored, pair, found[task], [found[t] for t in tasks]),
        "Trend": partial(trend.draw, stored, task, kind),
        "Items": partial(items.draw, stored, pair, task),
    }
    tabs = st.tabs(list(parts), key="part", bind="query-params", on_change="rerun")
    for tab, (title, part) in zip(tabs, parts.items(), strict=True):
        if tab.open:
            with tab, guarded(title):
                part()


if __name__ == "__main__":
    results_page(body)
