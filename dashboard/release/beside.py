"""What the newest release review says of one subject, on the page about that subject."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from checks.review.report import ORDER, WORDS
from dashboard import sidebar
from dashboard.charts import text
from dashboard.charts.levels import LEVELS
from dashboard.release import rows
from dashboard.release.banner import banner
from dashboard.release.reviews import Review, open_review, reviews_of, verified
from dashboard.sidebar import Choice
from trainvitals.errors import RunDamaged

HEADS = {"fail": "fails", "unknown": "not known", "warn": "holds, with a warning", "pass": "holds"}


def draw(choice: Choice, kinds: Collection[str], subject: str, how: str) -> Review | None:
    """The rows of these kinds; None where no whole review has any, which is said with what would bring them.

    Args:
        choice: the viewer's run.
        kinds: of rows.
        subject: as the heading calls it.
        how: lines of a policy that ask for such rows.
    """
    found = reviews_of(choice.path, sidebar.runs_folder())
    if not found:
        st.caption(":material/gavel: **No limits yet.** A policy says what is allowed, and a review holds the results "
                   "against it. One command writes a policy; the page *Release review* says how to go on:")
        st.code(f"trainvitals review {choice.path} --init", language="bash", wrap_lines=True)
        return None
    name, path = next(iter(found.items()))
    try:
        review = open_review(path)
        answer = verified(path, ())
    except RunDamaged as error:
        st.error(text.md(error, 400), icon=":material/broken_image:")
        return None
    wrong = answer if isinstance(answer, str) else next(iter(answer.changed), "")
    if wrong:
        st.error(f"The review {text.md(name, 80)} does not count: {text.md(wrong, 300)}", icon=":material/gpp_bad:")
        return None
    own = sorted((r for r in review.rows if r.kind in kinds), key=lambda r: ORDER.index(r.verdict))
    if not own:
        st.caption(f":material/gavel: The policy of {text.md(name, 80)} asks for nothing here. Lines such as "
                   f"`{how}` would.")
        return review
    level = next((v for v in ("fail", "unknown", "warn") if any(r.verdict == v for r in own)), "pass")
    counts = [f"{n:,} {WORDS[v]}" for v in ORDER if (n := sum(r.verdict == v for r in own))]
    banner(LEVELS[level], f"{subject}: {HEADS[level]}",
           f"Of {text.plural(len(own), 'requirement')} in {name}, about "
           f"{review.record['candidate'] or 'no checkpoint'}: {', '.join(counts)}.",
           [f"{r.name}: {r.sentence}" for r in own if r.verdict in ("fail", "unknown")][:2])
    with st.expander(f"All {text.plural(len(own), 'requirement')} of the review"):
        rows.draw(own)
    return review
