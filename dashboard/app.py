"""The board's entry script: `streamlit run dashboard/app.py`, or better `trainvitals dashboard RUNS`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import reads, sidebar

PAGES = Path(__file__).with_name("app_pages")

# A file: the favicon of a Material icon or an emoji would be fetched from the internet.
st.set_page_config("TrainVitals", str(PAGES.with_name("icon.svg")), layout="wide", initial_sidebar_state=230)
contamination = st.Page(
    PAGES / "contamination.py",
    title="Contamination",
    icon=":material/plagiarism:",
    help="Which benchmark items were in the training data, and which score to trust.",
)
scaling = st.Page(
    PAGES / "scaling.py",
    title="Scaling",
    icon=":material/stacked_line_chart:",
    help="Is the run on its curve, where will it end, and what should have been trained?",
)
current = st.navigation(
    [
        st.Page(PAGES / "health.py", title="Health", icon=":material/monitor_heart:", default=True,
                help="Is the run well? Verdicts, findings and the loss, live."),
        st.Page(PAGES / "loss.py", title="Loss", icon=":material/show_chart:",
                help="Training and validation loss, global and per data domain."),
        st.Page(PAGES / "optimisation.py", title="Optimisation", icon=":material/tune:",
                help="Gradient norms, learning rate against its plan, update ratios, clipping."),
        st.Page(PAGES / "routing.py", title="Routing", icon=":material/hub:",
                help="How a mixture-of-experts model spreads tokens over its experts."),
        st.Page(PAGES / "data.py", title="Data", icon=":material/dataset:",
                help="Data mix against plan, epochs, token drift, padding."),
        st.Page(PAGES / "throughput.py", title="Throughput", icon=":material/speed:",
                help="Tokens per second, step time, data wait, utilisation, memory."),
        scaling,
        contamination,
    ],
    position="top",
)  # fmt: skip

if sidebar.opens_on_audits():
    st.switch_page(contamination, query_params=st.query_params.to_dict())
if current is contamination or current is scaling and not reads.runs_below(sidebar.runs_folder()):
    current.run()
else:
    choice = sidebar.choose()
    st.session_state["_choice"] = choice
    if choice is not None:
        sidebar.facts(reads.poll(choice.path))
        current.run()
