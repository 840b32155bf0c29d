"""A decision as the first thing on a page: a large word on its level's tint, one sentence, a few lines."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from checks.contamination.report.text import tag, text
from dashboard.charts.levels import Level

SHAPES = {"fail": "✕", "warn": "!", "unknown": "?", "pass": "✓"}
MOST_WORD, MOST_LINE = 200, 700


def banner(level: Level, word: str, sentence: str, lines: Sequence[str] = ()) -> None:
    """Draw it. The texts are shown as they are, whatever they hold."""
    style = (
        f"border:1px solid {level.hue}55;border-left:6px solid {level.hue};border-radius:8px;padding:10px 18px;"
        f"background:{level.hue}1c;unicode-bidi:isolate;overflow-wrap:anywhere"
    )
    head = tag("b", text(f"{SHAPES[level.word]} {word}", MOST_WORD),
               style=f"color:{level.hue};font-size:24px;line-height:1.3")
    said = tag("div", text(sentence, MOST_LINE), style="font-size:15px;font-weight:600;line-height:1.35")
    items = [tag("li", text(line, MOST_LINE), style="margin:0") for line in lines]
    listed = tag("ul", *items, style="margin:6px 0 0;padding-left:20px;font-size:13px;line-height:1.45")
    st.html(tag("div", head, said, listed if items else None, style=style, role="status"))
