"""Contamination: which benchmark items were in the training data, and which score to trust?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import streamlit as st

from dashboard import address, sidebar
from dashboard.charts import text
from dashboard.contamination.audits import Audit, open_audit
from dashboard.contamination.compare import compare
from dashboard.contamination.items import browser
from dashboard.contamination.overview import overview
from dashboard.contamination.parts import broken
from dashboard.contamination.scores import scores, threshold
from dashboard.contamination.searched import recall, searched
from dashboard.failing import guarded
from dashboard.server import reads
from dashboard.server.folders import audits_below
from trainvitals.errors import RunDamaged

ICON, PLACE, RUN = ":material/plagiarism:", 8, "never"


def page() -> None:
    """Draw the page."""
    folder = sidebar.runs_folder()
    found = audits_below(folder)
    if not found:
        _none(folder)
        return
    name = _choose(found)
    try:
        audit = open_audit(found[name])
        _facts(audit)
        overview(audit)
        _tabs(audit, name, found)
    except RunDamaged as error:
        broken(error)
        st.markdown("Choose another audit in the sidebar, or mend this one and look again.")
        st.button("Look again", icon=":material/refresh:", key="again")


def _choose(found: Mapping[str, str]) -> str:
    """The audit picker; the newest audit of the run that was looked at comes first."""
    choice = st.session_state.get("_choice")
    names = list(found)
    own = [name for name in names if choice is not None and found[name].startswith(choice.path.rstrip("/") + "/")]
    asked = st.query_params.get("audit", "")
    first = asked if asked in found else own[0] if own else names[0]
    address.miss("audit", names)
    with st.sidebar:
        chosen = st.selectbox(
            "Audit",
            names,
            index=names.index(first),
            key="audit-name",
            format_func=lambda name: text.plain(name, 80),
            help="Audits of the runs, and audits that lie beside them; the newest first.",
            on_change=address.found,
            args=("audit",),
        )
    address.say_missed("audit", "audit", chosen)
    # Not bound: a bound parameter leaves the address where it has its default, which changes with the next audit.
    if chosen != asked:
        st.query_params["audit"] = chosen
        if asked:
            st.query_params.pop("item", None)
    return chosen


def _facts(audit: Audit) -> None:
    made, tool = audit.made, audit.summary["tool"]
    rows = [
        ("Made", str(made.get("began", ""))[:16].replace("T", " ") + " UTC" if made.get("began") else ""),
        ("With", f"{tool['name']} {tool['version']}"),
        ("Command", made.get("command", "")),
        ("Report", f"{audit.path}/report.html"),
    ]
    with st.sidebar.container(gap="xxsmall"):
        st.caption("**Provenance**")
        for title, value in rows:
            if value:
                st.caption(f"{title}: {text.md(value, 400)}")


def _tabs(audit: Audit, name: str, found: Mapping[str, str]) -> None:
    parts = {
        "Items": partial(browser, audit),
        "Scores": partial(scores, audit),
        "Threshold": partial(threshold, audit),
        "Recall": partial(recall, audit),
        "What was searched": partial(searched, audit),
        "Compare audits": partial(compare, audit, name, found),
    }
    tabs = st.tabs(list(parts), key="part", bind="query-params", on_change="rerun")
    for tab, (title, draw) in zip(tabs, parts.items(), strict=True):
        if tab.open:
            with tab:
                _guarded(title, draw)


@st.fragment
def _guarded(name: str, draw: Callable[[], None]) -> None:
    """Draw a part of the page, which its widgets redraw without the rest."""
    with guarded(name):
        try:
            draw()
        except RunDamaged as error:
            broken(error)


def _none(folder: str) -> None:
    runs = reads.runs_below(folder)
    out = f"{next(iter(runs.values()))}/audits/gsm8k" if runs else f"{folder.rstrip('/')}/audits/gsm8k"
    st.subheader(":material/plagiarism: No contamination audit here yet")
    st.markdown(
        "An audit says which benchmark items were in the training data, where, and what the score is without them. "
        f"The board looks in {text.md(folder)} and in its runs. Write an audit there:"
    )
    st.code(
        f"trainvitals audit --corpus shards/*.jsonl.gz --benchmark gsm8k_test.jsonl --scores answers.jsonl --inject "
        f"--out {out}",
        language="bash",
        wrap_lines=True,
    )
    st.button("Look again", icon=":material/refresh:", key="again")


if __name__ == "__main__":
    page()
