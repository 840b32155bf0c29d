"""What every page about results begins with: the run's results, or the one command that brings some."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from dashboard.charts import text
from dashboard.evals.matrix import FAMILY, METRIC, TASK
from dashboard.evals.stored import Stored, stored
from dashboard.sidebar import Choice

MOST_PROBLEMS = 20


def results_page(body: Callable[[Choice, Stored], None]) -> None:
    """Run a page script over the results of the viewer's run."""
    choice = st.session_state.get("_choice")
    if choice is None:
        return
    try:
        found = stored(choice.path)
    except OSError as error:
        st.error(f"The results of {text.md(choice.name, 80)} cannot be read: {text.md(error, 200)}.",
                 icon=":material/broken_image:")
        return
    _problems(found)
    if not found.evals.checkpoints:
        none(choice)
        return
    body(choice, found)


def _problems(found: Stored) -> None:
    problems = found.evals.problems
    if problems:
        st.error(f"{text.plural(len(problems), 'file')} of results cannot be used; what is shown is without them. "
                 f"{text.md(problems[0], 300)}", icon=":material/broken_image:")
        if len(problems) > 1:
            with st.expander("All of them"):
                for problem in problems[:MOST_PROBLEMS]:
                    st.caption(text.md(problem, 300))


def none(choice: Choice) -> None:
    """Say that the run holds no results, and how to bring some."""
    st.subheader(f":material/checklist: {text.md(choice.name, 80)} holds no results of evals yet")
    st.markdown("Bring those of lm-evaluation-harness, Inspect, OpenAI evals or a table, item by item:")
    st.code(f"trainvitals evals import RESULTS --run {choice.path}", language="bash", wrap_lines=True)


def labels_of(found: Stored, checkpoints: Sequence[str]) -> dict[str, str]:
    """Checkpoint -> a heading that is its alone: the step where the name says no more."""
    named: dict[str, str] = {}
    taken = {TASK, METRIC, FAMILY}
    for name in checkpoints:
        step = found.steps(name)
        label = f"step {step:,}" if step is not None and name == f"step-{step}" else text.plain(name, 30)
        while label in taken:
            label += "'"
        taken.add(label)
        named[name] = label
    return named
