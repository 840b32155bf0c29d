"""The board's entry script: `streamlit run dashboard/app.py`, or better `trainvitals dashboard RUNS`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from dashboard import address, sidebar
from dashboard.failing import guarded
from dashboard.menu import found_pages
from dashboard.server import reads
from dashboard.sidebar import title

# Not called `pages`: with a folder of that name beside this file, Streamlit makes a menu of its own first.
PAGES = Path(__file__).with_name("app_pages")
FIRST = "health"

# A file: the favicon of a Material icon or an emoji would be fetched from the internet.
st.set_page_config("TrainVitals", str(PAGES.with_name("icon.svg")), layout="wide", initial_sidebar_state=230)
entries = found_pages(PAGES)
pages = {
    entry.name: st.Page(entry.file, title=entry.title, icon=entry.icon, help=entry.help, default=entry.name == FIRST)
    for entry in entries
}
sections: dict[str, list[StreamlitPage]] = {}
for entry in entries:
    sections.setdefault(entry.section, []).append(pages[entry.name])
current = st.navigation(sections, position="top", expanded=True)  # all of them where a phone folds the menu
run_wanted = next(entry.run for entry in entries if pages[entry.name] is current)

address.tidy()
if sidebar.opens_on_audits():
    st.switch_page(pages["contamination"], query_params=st.query_params.to_dict())
if run_wanted == "never" or run_wanted == "if any" and not reads.runs_below(sidebar.runs_folder()):
    with guarded(current.title):
        current.run()
else:
    with guarded("The choice of runs"):
        choice = sidebar.choose()
        st.session_state["_choice"] = choice
        if choice is not None:
            st.set_page_config(title(choice, current.title))
            with guarded("The run card"):
                sidebar.facts(reads.poll(choice.path))
            with guarded(current.title):
                current.run()
