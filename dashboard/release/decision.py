"""The decision of a review, first: never a GO that is not whole, or does not hold today."""

from __future__ import annotations

import streamlit as st

from checks.contamination.report.text import Html, join, tag, text
from checks.review.report import LEVEL, SENTENCES, WORDS
from checks.review.verify import Verified
from dashboard.charts import text as words
from dashboard.charts.levels import LEVELS
from dashboard.page import card
from dashboard.release.banner import banner
from dashboard.release.reviews import Review
from dashboard.release.rows import HUES, SHAPES

MOST_REASONS, MOST_CHANGES = 3, 8


def draw(review: Review, found: Verified | str) -> bool:
    """The banner, what would change it, and what the review is about; whether the review counts."""
    record = review.record
    if isinstance(found, str):
        banner(LEVELS["fail"], "NOT A WHOLE REVIEW", found, [f"It says {review.decision}, which does not count."])
        return False
    elif found.changed:
        banner(LEVELS["fail"], "CHANGED", f"This folder is not what was judged: {found.changed[0]}",
               [f"It says {review.decision}, which does not count.", *found.changed[1:MOST_REASONS]])
        return False
    other = next((line for line in found.open if line.startswith("Today ")), "")
    level = "unknown" if other and review.decision == "GO" else LEVEL[review.decision]
    reasons = list(record["reasons"])
    why = other or (reasons[0] if reasons else SENTENCES[review.decision])
    banner(LEVELS[level], review.decision + (", and not today" if other else ""), why,
           [SENTENCES[review.decision], *(reasons if other else reasons[1:])[:MOST_REASONS],
            *(found.open if review.decision == "GO" else ())])
    _facts(review)
    lines = company(review)
    if lines:
        with card("What goes with it", "as the review found it: company, and no proven cause"):
            st.html(_list(lines[:MOST_CHANGES]))
    changes = list(record["what_would_change_it"])
    if changes:
        with card("What would change it" if review.decision != "GO" else "What to watch"):
            st.html(_list(changes[:MOST_CHANGES]))
            if len(changes) > MOST_CHANGES:
                st.caption(f"{len(changes) - MOST_CHANGES:,} more are in the rows below.")
    return True


def company(review: Review) -> list[str]:
    """Reasons that are no row of a NO-GO: where a task fell, which items it lost, what the training did then."""
    said = {f"{row.name}: {row.sentence}" for row in review.rows}
    return [line for line in review.record["reasons"] if line not in said] if review.decision == "NO-GO" else []


def _list(lines: list[str]) -> Html:
    items = [tag("li", text(line, 500), style="margin:0") for line in lines]
    return tag("ol", *items, style="margin:0;padding-left:20px;font-size:13.5px;line-height:1.5;overflow-wrap:anywhere")


def _facts(review: Review) -> None:
    record = review.record
    steps = list(record["steps"] or [])[:2]
    steps = [None] * (2 - len(steps)) + steps
    at = [f" \\(step {step:,}\\)" if step is not None else "" for step in steps]
    counts = {v: sum(r.verdict == v for r in review.rows) for v in ("fail", "unknown", "warn", "waived", "pass")}
    tiles = [tag("span", f"{SHAPES[v]} {n:,} {WORDS[v]}", style=f"color:{HUES[v]};font-weight:600;margin-right:14px;"
                 "white-space:nowrap") for v, n in counts.items() if n]
    st.html(tag("div", join(tiles), tag("span", f"of {words.plural(len(review.rows), 'requirement')}",
                                        style="opacity:.7"), style="font-size:13.5px"))
    st.caption(
        f"Candidate **{words.md(record['candidate'] or 'none', 80)}**{at[1]}, held against "
        f"**{words.md(record['baseline'] or 'no baseline', 80)}**{at[0]}. Judged "
        f"{words.md(str(record['created'])[:16].replace('T', ' '))} UTC with {words.md(record['tool'], 60)}.")
    for problem in record["problems"][:5]:
        st.caption(f":material/healing: {words.md(problem, 300)}")
