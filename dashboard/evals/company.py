"""What the training did in the steps in which a score fell: company, not proven cause."""

from __future__ import annotations

import streamlit as st

from checks.evals.trend import Fall
from checks.evals.walk_back import moved, seen
from dashboard.charts import text
from dashboard.page import card
from dashboard.server import reads
from dashboard.server.reads import shared
from dashboard.server.verdicts import judge

MOST_LINES = 12


def draw(path: str, fall: Fall) -> None:
    """What moved between the last good checkpoint and the first bad one; nothing where no training was recorded."""
    snap = reads.poll(path)
    if snap.error or snap.empty:
        return
    low, high = fall.earliest_step, fall.latest_step
    with card("The training in these steps", f"{text.steps(low + 1, high)}; company, not proven cause"):
        if snap.first_step is None or snap.last_step is None or not snap.first_step <= high <= snap.last_step:
            reach = text.steps(snap.first_step, snap.last_step)
            st.caption(f":material/visibility_off: The record of the training holds {reach}, and not these.")
            return
        report = judge().known(path)
        findings = {} if report is None else report.answer_json()
        found, looked = shared(path).read(("moved", low, high, report is not None),
                                          lambda run: (moved(run, low, high, findings), seen(run, low, high)))
        for one in found[:MOST_LINES]:
            st.markdown(f"- {text.md(one.sentence[0].upper() + one.sentence[1:], 400)}.")
        if not found:
            st.caption(f"Of what the record holds nothing moved beyond its noise: {', '.join(looked)}." if looked else
                       "The record holds neither the data mix nor routing, the learning rate with its plan or "
                       "validation losses by domain of these steps, so what moved is not known.")
        if report is None:
            st.caption(":material/hourglass_top: Incidents are left out: the checks run once somebody opens the page "
                       "Health of this run.")
