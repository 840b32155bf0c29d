"""What every page about results begins with: the run's results, or the one command that brings some."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import streamlit as st

from dashboard import address
from dashboard.charts import text
from dashboard.evals.matrix import FAMILY, METRIC, TASK
from dashboard.evals.stored import Stored, stored
from dashboard.failing import guarded
from dashboard.sidebar import Choice

MOST_PROBLEMS, POLL_SECONDS = 20, 1.5
BEFORE = "the checkpoint before"


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


def reference(found: Stored) -> str:
    """What checkpoints are held against, as the viewer chose in the sidebar; "" for the one before each."""
    names = [BEFORE, *reversed(found.evals.checkpoints)]
    with st.sidebar:
        address.miss("against", names)
        chosen = st.selectbox("Held against", names, key="against", bind="query-params", on_change=address.found,
                              args=("against",), format_func=lambda name: text.plain(name, 60),
                              help="What checkpoints are compared with.")
    address.say_missed("against", "checkpoint", chosen)
    return "" if chosen == BEFORE else str(chosen)


def checkpoint_of(names: Sequence[str]) -> str:
    """The checkpoint that the viewer chose, the first of the names at first; all these pages share the choice."""
    address.miss("checkpoint", names)
    chosen = st.selectbox("Checkpoint", names, key="checkpoint", bind="query-params", on_change=address.found,
                          args=("checkpoint",), format_func=lambda name: text.plain(name, 80), width=320)
    address.say_missed("checkpoint", "checkpoint", chosen)
    return str(chosen)


def polled(found: Stored, jobs: Sequence[Hashable], part: str, draw: Callable[[], None]) -> None:
    """Draw a part of a page that waits for background work: it looks again while some is to come."""
    waiting = found.pending(jobs)

    def section() -> None:
        with guarded(part):
            if waiting and not found.pending(jobs):
                st.rerun()
            draw()

    st.fragment(section, run_every=POLL_SECONDS if waiting else None, key=part)()


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
