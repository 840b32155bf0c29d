"""Error clusters: which kinds of items went from right to wrong, and what would mending them give?"""

from __future__ import annotations

from functools import partial

import streamlit as st

from checks.evals.clusters import error_clusters
from dashboard.charts import text
from dashboard.evals import lost
from dashboard.evals.frame import checkpoint_of, polled, reference, results_page
from dashboard.evals.matrix import pair_of
from dashboard.evals.stored import Pair, Stored
from dashboard.sidebar import Choice

ICON, PLACE, RUN, SECTION = ":material/bubble_chart:", 21, "always", "Release"


def body(choice: Choice, stored: Stored) -> None:
    """Draw the page."""
    against = reference(stored)
    names = [c for c in reversed(stored.evals.checkpoints) if pair_of(stored, c, against) is not None]
    if not names:
        st.caption(":material/hourglass_top: There is one checkpoint so far: nothing to compare it with. Import "
                   "results of another, or of a reference model.")
        return
    pair = pair_of(stored, checkpoint_of(names), against)
    assert pair is not None
    job = ("clusters", pair)
    stored.later(job, lambda: error_clusters(stored.evals, *pair))
    polled(stored, [job], "The clusters", partial(_found, stored, pair))


def _found(stored: Stored, pair: Pair) -> None:
    found = stored.done(("clusters", pair))
    before, after = (text.md(name, 80) for name in pair)
    if found is not None:
        lost.head(found)
        st.caption(f"{after} against {before}.")
        lost.draw(found)
    elif stored.pending([("clusters", pair)]):
        st.caption(f":material/hourglass_top: The items that {after} lost against {before} are being sorted; about a "
                   "second for each 2,000 items.")
    else:
        st.error("The items could not be sorted. The server's log has the details.", icon=":material/report:")


if __name__ == "__main__":
    results_page(body)
