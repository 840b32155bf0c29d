"""Release review: may this model be released, why, and what would change the answer?"""

from __future__ import annotations

import os

import streamlit as st

from dashboard import address, sidebar
from dashboard.charts import text
from dashboard.evals.stored import stored
from dashboard.failing import guarded
from dashboard.release import decision, rows, sign
from dashboard.release.reviews import Review, open_review, reviews_of, verified
from dashboard.server.results import has_evals
from dashboard.sidebar import Choice
from trainvitals.errors import RunDamaged

ICON, PLACE, RUN, SECTION = ":material/gavel:", 24, "always", "Release"


def page(choice: Choice) -> None:
    """Draw the page."""
    found = reviews_of(choice.path, sidebar.runs_folder())
    if not found:
        _none(choice)
        return
    address.miss("review", list(found))
    with st.sidebar:
        name = st.selectbox("Review", list(found), key="review", bind="query-params", on_change=address.found,
                            args=("review",), format_func=lambda n: text.plain(n, 80), help="The newest first.")
    address.say_missed("review", "review", name)
    try:
        review = open_review(found[name])
    except RunDamaged as error:
        st.error(text.md(error, 500), icon=":material/broken_image:")
        return
    if str(review.record["run"]) != choice.path.rstrip("/").rsplit("/", 1)[-1]:
        st.warning(f"This review lies in the folder of {text.md(choice.name, 80)} and is about the run "
                   f"**{text.md(review.record['run'], 80)}**.", icon=":material/swap_horiz:")
    answer = verified(review.path, sign.trusted_keys())
    counts = decision.draw(review, answer)
    _newer(choice, review)
    sign.export(review)
    if counts:
        _rows(review)
    sign.signatures(review, answer)
    if not counts:
        with st.expander("What this folder says, which does not count"):
            _rows(review)


def _rows(review: Review) -> None:
    for title, own in rows.groups(review.rows):
        with guarded(title):
            st.subheader(title)
            rows.draw(own)
    for part in (sign.waivers, sign.last):
        with guarded("A part of the review"):
            part(review)


def _newer(choice: Choice, review: Review) -> None:
    """A decision about a checkpoint says nothing of a later one."""
    judged = (review.record["steps"] or [None])[-1]
    newest = stored(choice.path).summaries["step"].max() if has_evals(choice.path) else None
    if judged is not None and newest is not None and newest > judged:
        st.warning(f"The run has results of step {int(newest):,}. This review is about step {judged:,} and says "
                   "nothing of it.", icon=":material/update:")


def _none(choice: Choice) -> None:
    st.subheader(f":material/gavel: No release review of {text.md(choice.name, 80)} yet")
    if "://" in choice.path:
        st.markdown("The board reads reviews from a local folder. Copy the run and its review here.")
        return
    policy = f"{choice.path}/release.toml"
    if not has_evals(choice.path):
        st.markdown("It needs results of evals first:")
        st.code(f"trainvitals evals import RESULTS --run {choice.path}", language="bash", wrap_lines=True)
    elif os.path.isfile(policy):
        st.markdown("A policy is there. One command judges the run by it:")
        st.code(f"trainvitals review {choice.path} --policy {policy} --out {choice.path}/reviews/first",
                language="bash", wrap_lines=True)
    else:
        st.markdown("One command writes a policy that these items can carry, to be read and changed; then judge by it:")
        st.code(f"trainvitals review {choice.path} --init\n"
                f"trainvitals review {choice.path} --out {choice.path}/reviews/first", language="bash", wrap_lines=True)


if __name__ == "__main__":
    chosen = st.session_state.get("_choice")
    if chosen is not None:
        page(chosen)
