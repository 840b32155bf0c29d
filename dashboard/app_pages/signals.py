"""Signals: any signal by name, your own numbers, formulas, samples, and the run card."""

import streamlit as st

from dashboard.charts import text
from dashboard.page import page
from dashboard.sidebar import View, runs_folder
from dashboard.signals import cards, charts, listing, pins, samples
from dashboard.signals.pins import Pin
from dashboard.signals.values import catalogue
from trainvitals.errors import TrainVitalsError

ICON, PLACE = ":material/stacked_line_chart:", 7

SIGNALS, SAMPLES, CARD = "Signals", "Samples", "Run card"
MOST_CHOSEN = 24


def body(view: View) -> None:
    """Draw the page."""
    part = st.segmented_control("Part", [SIGNALS, SAMPLES, CARD], default=SIGNALS, key="part", bind="query-params",
                                label_visibility="collapsed", required=True)
    if part == SAMPLES:
        samples.draw(view)
    elif part == CARD:
        cards.draw(view)
    else:
        _signals(view)


def _signals(view: View) -> None:
    known = catalogue(view.path)
    names = known["name"].to_list()
    wanted = st.session_state.get("signals") or st.query_params.get_all("signals")
    options = [*names, *[choice for choice in wanted if choice not in names]]
    chosen = st.multiselect(
        "Signals and formulas", options, key="signals", bind="query-params", accept_new_options=True,
        max_selections=MOST_CHOSEN, format_func=lambda name: text.plain(name, 120),
        placeholder="Type to search. A formula is new text, as in {loss/val} - {loss/train}",
    )  # fmt: skip
    left, middle, right = st.columns([2, 1, 1], vertical_alignment="bottom", gap="small")
    with left:
        _pinned()
    one = middle.toggle("In one chart", key="one", bind="query-params")
    with right.popover("Pin this view", icon=":material/keep:", disabled=not chosen, width="stretch"):
        _pin_form(tuple(chosen), one)
    if chosen:
        charts.draw(view, chosen, one)
    listing.draw(view, known)


def _pinned() -> None:
    """What the team has pinned, as buttons; a click puts it into the choice and so into the address."""
    try:
        kept = pins.read_pins(runs_folder())
    except TrainVitalsError as error:
        st.caption(f":material/keep_off: {text.md(error, 200)}")
        return
    if kept:
        st.pills("Pinned views", [pin.name for pin in kept], key="pinned", format_func=lambda n: text.plain(n, 60),
                 on_change=_take, args=(kept,), help="Kept in pins.json beside the runs, for all viewers.")


def _take(kept: list[Pin]) -> None:
    """A pinned view was clicked: it becomes the choice, once; from then on the viewer may change it."""
    name, st.session_state["pinned"] = st.session_state.get("pinned"), None
    for pin in kept:
        if pin.name == name:
            st.session_state["signals"], st.session_state["one"] = list(pin.signals), pin.one


def _pin_form(chosen: tuple[str, ...], one: bool) -> None:
    name = st.text_input("Name of the view", key="pin_name", max_chars=pins.MOST_NAME)
    try:
        if st.button("Pin", key="pin", disabled=not name.strip()):
            pins.keep(runs_folder(), Pin(name.strip(), chosen, one))
            st.rerun()
        if st.button("Remove the pin of this name", key="unpin", disabled=not name.strip()):
            pins.remove(runs_folder(), name.strip())
            st.rerun()
    except TrainVitalsError as error:
        st.error(text.md(error, 300))


if __name__ == "__main__":
    page(body)
