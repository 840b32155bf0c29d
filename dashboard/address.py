"""What an address asks for: numbers that no axis could hold are left out, and what is gone is named."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard.charts import text

TEXTS = frozenset(("run", "compare", "audit", "item", "finding", "search", "columns", "ladder", "moved", "layer",
                   "signals", "part", "find", "find_setting", "sample", "level", "family", "checkpoint",
                   "against", "task", "find_item", "flip", "tool", "review", "cluster"))
"""Parameters whose value is a text, whatever it looks like."""
MOST_NUMBER, MOST_LENGTH = 1e30, 2_000
"""More than any budget in FLOPs; no text that the board puts into an address is longer."""


def tidy() -> None:
    """Begin the run of a script again without the parameters that Streamlit would fail on, and say so.

    A bound widget turns its parameter into a number before it looks at its limits
    (`streamlit.elements.widgets.number_input.NumberInputSerde`): int(float("1e999")) raises.
    """
    odd = [name for name in st.query_params if any(_odd(name, value) for value in st.query_params.get_all(name))]
    for name in odd:
        # A parameter of a widget that was drawn before is the widget's: it can only come back by the browser's history.
        with suppress(StreamlitAPIException):
            del st.query_params[name]
            st.session_state.setdefault("_odd_address", []).append(name)
    if any(name not in st.query_params for name in odd):
        st.rerun()
    for name in st.session_state.pop("_odd_address", ()):
        what = "is too long" if name in TEXTS else "is no number that can be used"
        st.toast(f"In the address, **{text.md(name, 40)}** {what}: left out.", icon=":material/link_off:")


def _odd(name: str, value: str) -> bool:
    if name in TEXTS:
        return len(value) > MOST_LENGTH
    try:
        number = float(value)
    except ValueError:
        return len(value) > MOST_LENGTH
    return not math.isfinite(number) or abs(number) > MOST_NUMBER


def miss(parameter: str, options: Collection[str]) -> None:
    """Before the widget of a parameter: note where the address, or the last choice, names what is not here.

    Kept until the viewer chooses, because Streamlit drops the parameter from the address at once.
    """
    wanted = st.session_state.get(parameter) or st.query_params.get(parameter, "")
    if wanted and wanted not in options:
        st.session_state[f"_missed_{parameter}"] = wanted
        st.session_state.pop(parameter, None)


def found(parameter: str) -> None:
    """The viewer has chosen: what was missed is no news any more."""
    st.session_state.pop(f"_missed_{parameter}", None)


def say_missed(parameter: str, what: str, shown: str) -> None:
    """After the widget: say what is not here, and what is shown in its place."""
    if missed := st.session_state.get(f"_missed_{parameter}"):
        st.warning(
            f"The {what} **{text.md(missed, 120)}** is not in this folder. Shown instead: **{text.md(shown, 120)}**.",
            icon=":material/link_off:",
        )
