"""A part of a page that cannot be drawn fails alone, in words for its reader; the fault goes to the server's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dashboard.charts import text

log = logging.getLogger(__name__)


@contextmanager
def guarded(part: str) -> Iterator[None]:
    """Draw a part of a page; where that raises, say so in its place and go on with the rest.

    `part` is its name as the page shows it. Streamlit's own ways out of a script are no `Exception` and pass.
    """
    try:
        yield
    except Exception:  # any fault of one part must leave the others standing; it is logged whole and said in its place
        log.exception("The part %r of the board could not be drawn", part)
        st.error(
            f"**{text.md(part, 80)} could not be drawn.** What it reads may be damaged, or this is a fault of the "
            "board. The server's log has the details; the rest of the page is not affected.",
            icon=":material/report:",
        )


def say_failed(error: Exception) -> bool:
    """The same for what no part has caught; Streamlit has logged it by then. True: no box of Streamlit's own."""
    st.error("**This page could not be drawn.** The server's log has the details.", icon=":material/report:")
    return True
