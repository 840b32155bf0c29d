"""What the viewer chose: run, comparison, step range. Every choice is in the URL, so a view can be shared."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard import address
from dashboard.charts import text
from dashboard.server import reads
from dashboard.server.folders import audits_below
from dashboard.server.judging import stamp
from dashboard.server.launch import RUNS_VARIABLE
from dashboard.server.reads import Snapshot
from dashboard.server.runs import look_again, unreachable
from dashboard.server.verdicts import judge

NOBODY = "–"


@dataclass(frozen=True, slots=True)
class Choice:
    """The viewer's choice; it names runs by path and holds no data."""

    path: str
    name: str
    compare_path: str = ""
    compare_name: str = ""
    first: int | None = None
    last: int | None = None
    log: bool = False
    branches: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A choice and the state of its runs at one moment: all that a page needs to draw itself."""

    choice: Choice
    run: Snapshot
    compare: Snapshot | None

    @property
    def path(self) -> str:
        return self.run.path

    @property
    def version(self) -> str:
        """What verdicts are asked for: the stored version, and that the run went silent at it."""
        return stamp(self.run.version, self.run.status)

    @property
    def key(self) -> tuple[object, ...]:
        """Changes if and only if what is drawn changes."""
        return (self.choice, self.run.version, self.compare.version if self.compare else "")

    @property
    def steps(self) -> tuple[int, int] | None:
        """The step range to read; None for all of it."""
        if self.choice.first is None and self.choice.last is None:
            return None
        return self.choice.first or 0, self.choice.last if self.choice.last is not None else self.newest

    @property
    def newest(self) -> int:
        steps = [snap.last_step or 0 for snap in (self.run, self.compare) if snap is not None]
        return max(steps, default=0)

    @property
    def oldest(self) -> int:
        steps = [snap.first_step for snap in (self.run, self.compare) if snap is not None]
        return min((step for step in steps if step is not None), default=0)

    @property
    def axis(self) -> tuple[int, int]:
        """Both ends of the step axis, the same for every chart of a page.

        It begins at 0, where training does, unless the steps before the first row would take up most of it.
        """
        last = self.newest if self.choice.last is None else self.choice.last
        first = self.choice.first
        if first is None:
            first = self.oldest if last // 2 < self.oldest <= last else 0
        return first, max(last, first + 1)


def look(choice: Choice) -> View:
    """The view of a choice, now."""
    compare = reads.poll(choice.compare_path) if choice.compare_path else None
    return View(choice, reads.poll(choice.path), None if compare is None or compare.error else compare)


def runs_folder() -> str:
    """The folder that `trainvitals dashboard` was given."""
    return os.environ.get(RUNS_VARIABLE) or "runs"


def opens_on_audits() -> bool:
    """Whether this is a viewer's first look at a folder that holds audits and no run."""
    if "_opened" in st.session_state:
        return False
    st.session_state["_opened"] = True
    folder = runs_folder()
    return not reads.runs_below(folder) and bool(audits_below(folder))


def choose() -> Choice | None:
    """Draw the sidebar; None (and a page that says what to do) where there is no run to choose."""
    folder = runs_folder()
    runs = reads.runs_below(folder)
    if (asked := st.query_params.get("run")) and asked not in runs and "_missed_run" not in st.session_state:
        # A link to a job that has just begun: the list may be two seconds old.
        runs = look_again(folder)
    if not runs:
        no_runs(folder)
        return None
    with st.sidebar:
        names = list(runs)
        address.miss("run", names)
        # A bound widget leaves its default out of the address: only a run that was asked for is in every link.
        if not st.session_state.get("run") and st.query_params.get("run") not in names:
            st.session_state["run"] = names[_newest(runs)]
            with suppress(StreamlitAPIException):  # bound already, where the address names a run that is gone
                st.query_params["run"] = st.session_state["run"]
        name = st.selectbox(
            "Run", names, index=None, key="run", bind="query-params", on_change=address.found, args=("run",),
            format_func=lambda name: text.plain(name, 120), placeholder="the newest",
        ) or names[_newest(runs)]  # fmt: skip
        others = [NOBODY, *[other for other in names if other != name]]
        address.miss("compare", [*others, name])
        if st.session_state.get("compare") == name:
            st.session_state.pop("compare", None)
        compare = st.selectbox(
            "Compare with",
            others,
            key="compare",
            bind="query-params",
            disabled=len(others) == 1,
            help="Draws a second run dashed behind this one.",
            on_change=address.found,
            args=("compare",),
            format_func=lambda name: text.plain(name, 120),
        )
        left, right = st.columns(2)
        first = left.number_input(
            "From step", value=None, min_value=0, step=100, key="from", placeholder="first", bind="query-params"
        )
        last = right.number_input(
            "To step", value=None, min_value=0, step=100, key="to", placeholder="newest", bind="query-params"
        )
        log = st.toggle("Logarithmic", key="log", bind="query-params", help="Value axes of losses, norms and rates.")
        branches = st.toggle(
            "Rolled-back attempts",
            key="branches",
            bind="query-params",
            help="Draws steps that a resume or a rollback left behind.",
        )
        if first is not None and last is not None and first >= last:
            st.warning("The range ends before it starts: all steps are shown.", icon=":material/swap_horiz:")
            first = last = None
    address.say_missed("run", "run", name)
    address.say_missed("compare", "run to compare with", "this run alone" if compare == NOBODY else compare)
    return Choice(
        runs[name], name, runs.get(compare or "", ""), compare if compare in runs else "", first, last, log, branches
    )


def title(choice: Choice, page: str) -> str:
    """What the browser's tab says: the level where a judgement is known, the run, the page."""
    report = judge().known(choice.path)
    level = "" if report is None or report.level in ("pass", "unknown") else f"{report.level.upper()} · "
    return f"{level}{text.plain(choice.name, 60)} · {page}"


def facts(run: Snapshot) -> None:
    """What the run card says, at the foot of the sidebar."""
    card = run.card
    rows = [
        ("Model", card.model), ("Parameters", text.number(card.params_total) if card.params_total else ""),
        ("Active", text.number(card.params_active) if card.params_active else ""),
        ("Layers", card.layers or ""),
        ("Experts", f"{card.experts}, top {card.top_k}" if card.experts and card.top_k else card.experts or ""),
        ("Context", f"{card.context:,} tokens" if card.context else ""), ("Optimizer", card.optimizer),
        ("Precision", card.precision), ("Hardware", card.hardware), ("Ranks", card.world_size),
        ("Commit", card.git_commit[:10]),
    ]  # fmt: skip
    with st.sidebar.container(gap="xxsmall"):
        st.caption("**Run card**")
        for title, value in rows:
            if value:
                st.caption(f"{title}: {text.md(value, 60)}")
    if run.problems:
        with st.sidebar.expander(f":material/healing: {text.plural(len(run.problems), 'storage problem')}"):
            for problem in run.problems[:20]:
                st.caption(text.md(problem))


def _newest(runs: dict[str, str]) -> int:
    """Index of the run with the newest data, so that a job that has just started is what one sees first."""
    times = [reads.poll(path).last_time or 0.0 for path in list(runs.values())[:50]]
    return max(range(len(times)), key=times.__getitem__)


def no_runs(folder: str) -> None:
    if said := unreachable(folder):
        st.subheader(":material/cloud_off: This place does not answer")
        st.error(text.md(said, 400))
        st.markdown("Whether runs lie there is unknown. The board asks again when you do.")
        st.button("Look again", icon=":material/refresh:", key="again")
        return
    exists = os.path.isdir(folder) or "://" in folder
    st.subheader(
        ":material/search: No runs here yet" if exists else ":material/folder_off: This folder does not exist yet"
    )
    st.markdown(
        f"The board looks in {text.md(folder)} and finds " + ("no run folder in it." if exists else "no such folder.")
    )
    st.markdown("Start a training job that writes there, for example the demo, or point the board at another folder:")
    st.code("trainvitals demo --run runs/demo\ntrainvitals dashboard runs", language="bash")
    st.markdown("Scaling fits ladders of finished runs, and plans budgets, without a run.")
    if found := audits_below(folder):
        st.markdown(f"Contamination holds {text.plural(len(found), 'audit')} from this folder.")
    st.button("Look again", icon=":material/refresh:", key="again")
