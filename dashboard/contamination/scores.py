"""Scores and threshold of the contamination page: every model on every subset, and the stored sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from checks.contamination.report import paragraphs as words
from checks.contamination.report.text import figure, plural
from dashboard.charts import text
from dashboard.contamination import audits
from dashboard.contamination.audits import Audit, trust
from dashboard.contamination.charts import Scored, score_intervals, sweep_flagged, sweep_gain
from dashboard.contamination.parts import frame, no_scores, problems_card
from dashboard.page import card, show

MOST_CHARTS = 8
SWEEP = (
    "Gain is what the flagged items add to the score. Believe in a gain that lasts over many thresholds and that "
    "control models, dashed, do not show; the largest of many is too large by selection. Shaded is the 95 % interval "
    "of the chosen model. After [ConTAM](https://arxiv.org/abs/2411.03923)."
)
SUBSETS = {"whole": "All", "clean": "Clean", "dirty": "Contaminated"}
MORE_SUBSETS = {
    "not_dirty": "Without contaminated",
    "not_clean": "Contaminated + suspect",
    "untestable": "Untestable",
}


def scores(audit: Audit) -> None:
    """Every model on every subset, with the tests and what follows."""
    given = [b for b in audit.benchmarks if b["scores"]]
    if not given:
        no_scores()
    for number, benchmark in enumerate(given):
        answer = trust(benchmark, audit.summary["corpus"])
        named = answer.model["model"] if answer.model else None
        with card(text.md(benchmark["name"], 80), "score with 95 % interval"):
            if number < MOST_CHARTS:
                rows = [
                    Scored(_model(s), s["subsets"], answer.subset if s["model"] == named else "", answer.level)
                    for s in benchmark["scores"]
                    if s["subsets"]["whole"]["n"]
                ]
                if rows:
                    show(score_intervals(rows), f"audit-scores-{number}", "Scores of every model with intervals")
            table = pd.DataFrame([_score_row(s) for s in benchmark["scores"]])
            frame(table, f"audit-models-{number}", "Scores by model")
            for s in benchmark["scores"]:
                st.caption(f"**{text.md(_model(s), 90)}**: {text.md(s['reading'] + _left_out(s), 500)}")
    if given:
        st.caption(text.md(words.SCORES, 2000))
    problems_card(
        audit.summary.get("score_problems") or (), "Problems while reading the scores", "audit-score-problems"
    )


def _model(s: Mapping[str, Any]) -> str:
    return f"{s['model']} (control)" if s["control"] else str(s["model"])


def _score_row(s: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Model": text.plain(_model(s), 80),
        **{title: _estimate(s["subsets"][key]) for key, title in SUBSETS.items()},
        "Contaminated less clean": _gap(s["gap"]),
        "Beyond controls": _gap(s["versus_control"]),
        "p (Holm)": figure(s["p_holm"], 4),
        "Llama-2 Z": figure(s["llama2_z"]["dirty"], 1),
        **{title: _estimate(s["subsets"][key]) for key, title in MORE_SUBSETS.items()},
    }


def _estimate(e: Mapping[str, Any]) -> str:
    return f"{figure(e['value'])} [{figure(e['low'])}, {figure(e['high'])}], n {e['n']:,}" if e["n"] else "–"


def _gap(gap: Mapping[str, Any] | None) -> str:
    return "–" if gap is None else f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"


def _left_out(s: Mapping[str, Any]) -> str:
    said = [plural(s["unscored"], "item") + " without a score"] if s["unscored"] else []
    said += [plural(s["unmatched"], "score") + " without an item"] if s["unmatched"] else []
    return f" Left out: {', '.join(said)}." if said else ""


def threshold(audit: Audit) -> None:
    """One stored row of the sweep at a time: what would be flagged, and the score of the rest."""
    swept = audits.sweep_of(audit)
    names = [str(b["name"]) for b in audit.benchmarks if (swept["benchmark"] == b["name"]).any()]
    if not names:
        st.caption("The audit has no testable item, so there is no threshold to move.")
        return
    left, middle, right = st.columns([2, 2, 5], gap="medium")
    name = left.selectbox("Benchmark", names, format_func=lambda n: text.plain(n, 60), key="sweep-benchmark")
    own = swept[swept["benchmark"] == name]
    counts, scored = own[own["model"].isna()].sort_values("threshold"), own[own["model"].notna()]
    models = list(dict.fromkeys(scored["model"]))
    model = middle.selectbox(
        "Model", models, format_func=lambda n: text.plain(n, 60), key="sweep-model", disabled=not models
    )
    stored = counts["threshold"].round(6).to_list()
    cut = audit.summary["thresholds"].get("cut_long")
    start = min(stored, key=lambda t: abs(t - cut)) if isinstance(cut, (int, float)) else stored[len(stored) // 2]
    at = right.select_slider(
        "Flag items whose containment is at least", stored, value=start, format_func=lambda t: f"{t:.2f}",
        key="sweep-threshold", help="Moves over the rows of sweep.parquet; nothing is computed here.",
    )  # fmt: skip
    table = scored[scored["model"] == model] if model else counts
    row = table.iloc[(table["threshold"] - at).abs().argmin()]
    _tiles(row, scored=model is not None)
    bench = next(b for b in audit.benchmarks if b["name"] == name)
    controls = [s["model"] for s in bench["scores"] if s["control"]]
    if model:
        with card("Gain", "score of all testable items less score of those below the threshold", "points"):
            show(sweep_gain(scored, model, controls, at), "sweep-gain", "Gain over the threshold by model")
    with card("Items flagged", "containment from which an item is flagged", "items"):
        show(sweep_flagged(counts, at), "sweep-flagged", "Items flagged over the threshold")
    st.caption(SWEEP if model else "No scores were given, so there is no gain to show.")


def _tiles(row: pd.Series, *, scored: bool) -> None:
    tiles = st.columns(4)
    n, flagged = int(row["n_clean"]) + int(row["flagged"]), int(row["flagged"])
    note = "Of the testable items that the model was scored on." if scored else "Of the testable items."
    tiles[0].metric("Items flagged", f"{flagged:,} of {n:,}", help=note)
    if not scored:
        return

    def shown(low: str, high: str, factor: float, form: str) -> str:
        if pd.isna(row[low]):
            return "no interval"
        return f"95 % interval {format(factor * row[low], form)} to {format(factor * row[high], form)}"

    rest = "–" if pd.isna(row["score_clean"]) else f"{row['score_clean']:.3f}"
    gain = "–" if pd.isna(row["gain"]) else f"{100 * row['gain']:+.2f} points"
    boxes = [tile.container(gap=None) for tile in tiles]
    boxes[1].metric("Score of the rest", rest)
    boxes[1].caption(shown("low", "high", 1.0, ".3f"))
    boxes[2].metric("Score of all testable", f"{row['score_whole']:.3f}")
    boxes[3].metric("Gain from the flagged", gain)
    boxes[3].caption(shown("gain_low", "gain_high", 100.0, "+.2f"))
