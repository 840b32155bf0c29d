"""Scaling: is the run on its curve, where will it end, and what should have been trained?

What a slider changes is drawn first; what takes longer (profiles, backtest, the checks) fills its place afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from checks import Finding
from checks.scaling._ladder import below_ladder
from checks.scaling.levenberg import Loss
from dashboard.charts import text
from dashboard.charts.levels import level_of
from dashboard.failing import guarded
from dashboard.page import LIVE_SECONDS, SLOW_SECONDS
from dashboard.scaling import ladders as scaling
from dashboard.scaling.axes import Reached, span_of
from dashboard.scaling.fan import forecast_of
from dashboard.scaling.frontier import frontier
from dashboard.scaling.ladders import Chosen, Refit, Source
from dashboard.scaling.parts import big, budget_inputs, deviation, forecast_card, parts, plan_note, planner
from dashboard.server import reads
from dashboard.server.reads import Snapshot
from dashboard.server.verdicts import judge
from dashboard.sidebar import Choice, runs_folder

ICON, PLACE, RUN = ":material/stacked_line_chart:", 7, "if any"

LOSSES: dict[Loss, str] = {"huber": "Huber", "l1": "L1", "gaussian": "Gaussian"}
FORECAST = "scaling.final_forecast"
HELP = (
    "`ladder.json` (of `trainvitals scaling fit --json`) and CSV files in the folder that the board was given, its "
    "finished runs, a table of your own, or published constants."
)


def page() -> None:
    """Draw the page, again every now and then."""
    choice = st.session_state.get("_choice")
    waits = choice is not None and judge().report(choice.path).report is None
    st.fragment(partial(_section, choice, waits), run_every=LIVE_SECONDS if waits else SLOW_SECONDS, key="scaling")()


def _section(choice: Choice | None, waits: bool) -> None:
    with guarded("This page"):
        _draw(choice, waits)


def _draw(choice: Choice | None, waits: bool) -> None:
    snap = None if choice is None else reads.poll(choice.path)
    if snap is not None and (snap.error or snap.empty):
        snap = None
    chosen = _controls(snap)
    verdict, answers = st.container(), st.container()
    findings, version = _report(snap)
    if waits and version:
        st.rerun()
    run = None if snap is None or choice is None else _reached(snap, choice.name, findings)
    left, right = st.columns([2, 1], gap="small")
    with right:
        asked = budget_inputs(chosen, run, snap)
        note, price = planner(chosen, asked)
    with left:
        _frontier(chosen, run, asked.budget.flops)
    with price:
        deviation(chosen, asked, run)
    with verdict:
        _verdict(chosen)
    with note:
        plan_note(chosen, asked)
    with answers:
        _answers(chosen, snap, run, findings, known=version != "")
    look = partial(parts, chosen, run, asked.budget.flops)
    if choice is None or snap is None:
        look()
        return
    left, right = st.columns(2, gap="small")
    with left:
        forecast_card(choice, snap, findings.get(FORECAST), version)
    with right:
        look()


def _controls(snap: Snapshot | None) -> Chosen:
    """The row that says which law is shown; changing it refits."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        first = st.container(width=230)
        loss_at, drop_at, far_at, last = (st.container(width=w) for w in (210, 190, 150, 120))
    with last.popover("Table", icon=":material/upload_file:", width="stretch"):
        uploaded, columns = _table()
    source = _source(first, scaling.sources(runs_folder(), snap.path if snap else "", uploaded))
    fitted = source.kind != "published"
    loss = loss_at.segmented_control(
        "Loss of the fit", list(LOSSES), default="huber", required=True, key="fit_loss", bind="query-params",
        format_func=LOSSES.__getitem__, disabled=not fitted,
        help="Of the log loss's residuals: Huber with threshold 1e-3, absolute value, or half the square.",
    )  # fmt: skip
    drop = drop_at.slider(
        "Smallest budgets dropped", 0, 60, 0, 5, format="%d %%", key="drop", bind="query-params", disabled=not fitted,
        help="Share of the runs to leave out, those with the least compute first. A law that moves is not settled.",
    )  # fmt: skip
    far = far_at.slider(
        "Outliers dropped", 0, 10, 0, 1, format="%d", key="outliers", bind="query-params", disabled=not fitted,
        help="Runs to leave out whose loss lies furthest from the law.",
    )  # fmt: skip
    chosen = scaling.choose(source, columns, Refit(loss or "huber", drop / 100, far) if fitted else Refit(), uploaded)
    if chosen.error:
        st.error(f"{text.md(chosen.error, 600)}", icon=":material/table_view:")
        st.caption(f"The page shows the constants of {text.md(chosen.name)} instead. *Table* takes names of columns.")
    return chosen


def _table() -> tuple[bytes | None, str]:
    st.markdown("**A ladder of your own**: a CSV file, one row per finished run, with N, D (or C) and the final loss.")
    file = st.file_uploader("Table of runs", type="csv", max_upload_size=5, key="ladder-upload")
    columns = st.text_input(
        "Columns", max_chars=300, key="columns", bind="query-params", placeholder="N=params,D=tokens,loss=val_loss",
        help="Only where the names are not understood.",
    )  # fmt: skip
    return (None if file is None else file.getvalue()), columns or ""


def _source(place: DeltaGenerator, options: dict[str, Source]) -> Source:
    names = list(options)
    if st.session_state.get("ladder") not in (None, *names):
        st.session_state.pop("ladder")
    start = scaling.start_with(options)
    name = place.selectbox(
        "Law from", names, index=names.index(start) if start else 0, key="ladder", bind="query-params",
        format_func=lambda name: text.plain(name, 80), help=HELP,
    )  # fmt: skip
    return options[name or start]


def _report(snap: Snapshot | None) -> tuple[dict[str, Finding], str]:
    """Findings of the background judge, and the version that they belong to; "" before there are any."""
    report = None if snap is None else judge().report(snap.path, snap.version).report
    if report is None:
        return {}, ""
    return {f.check: f for f in report.findings if f.area == "scaling"}, report.version


def _reached(snap: Snapshot, name: str, findings: dict[str, Finding]) -> Reached | None:
    """Where the run stands on the charts: at its planned end, with the loss that is forecast for it."""
    size = scaling.position(snap.path)
    if size is None:
        return None
    told = findings.get(FORECAST)
    if told is None or told.statistic is None:
        return Reached(name, size)
    return Reached(name, size, told.statistic.value, told.statistic.low, told.statistic.high, "final loss, forecast")


def _verdict(chosen: Chosen) -> None:
    """How good the law is, in one line."""
    if chosen.reference is not None:
        if not chosen.error:
            st.caption(
                f":material/menu_book: {text.md(chosen.reference.note, 400)} Losses are of "
                f"{text.md(chosen.reference.data)}. For a law of your own, put a CSV file of finished runs (N, D, "
                f"loss) into {text.md(runs_folder(), 80)}, or give one under *Table*."
            )
        return
    assert chosen.fit is not None and chosen.whole is not None
    name, why = chosen.fit.judgement
    level = level_of(name)
    left_out = len(chosen.whole) - len(chosen.fit.ladder)
    runs = f"{len(chosen.fit.ladder)} runs of {chosen.fit.ladder.sizes} sizes"
    runs += f", {left_out} dropped" if left_out else ""
    word = {"pass": "sound fit", "warn": "use with care", "fail": "not to be used"}.get(name, "too few to judge")
    if chosen.fit.identifiability.reasons:
        word = "not identifiable"
    st.markdown(f":{level.color}-badge[{level.icon} {word}] {text.md(why, 500)} :gray[:small[{runs}]]")
    for reason in chosen.fit.ladder.refused[:3]:
        st.caption(f":material/filter_alt_off: Left out: {text.md(reason)}")


def _frontier(chosen: Chosen, run: Reached | None, flops: float) -> None:
    with st.container(border=True, gap="xsmall"):
        title, toggle = st.columns([4, 1], vertical_alignment="center")
        title.markdown("**What a budget is best spent on** :gray[:small[with the 95 % band of the fit; ★ this run at "
                       "its planned end, ◆ published models, ○ the budget planned with]]")
        models = toggle.toggle("Models", value=True, key="models", bind="query-params", help="Published models.")
        span = span_of(chosen, run, flops, models)
        for column, what, words in zip(st.columns(2), ("N", "D"), ("parameters", "tokens"), strict=True):
            with column:
                st.vega_lite_chart(
                    spec=frontier(chosen, run, flops, what, span, models=models), width="stretch",
                    key=f"frontier-{what}", alt=f"Compute against the best number of {words}, with runs and models",
                )  # fmt: skip


def _answers(
    chosen: Chosen, snap: Snapshot | None, run: Reached | None, findings: dict[str, Finding], *, known: bool
) -> None:
    """The three questions."""
    if snap is None:
        st.info(
            "No run to hold against the law: start one in this folder, or choose one that has data. Until then the "
            "page fits ladders and plans budgets.",
            icon=":material/star:",
        )
        return
    told = scaling.judged(snap.path, chosen)
    drawn: list[tuple[str, Callable[[], None]]] = [
        ("Is this run on its curve?", partial(_curve, chosen, run, told.get("scaling.on_curve"))),
        ("Where will it end?", partial(_end, findings.get(FORECAST), known)),
        ("What should we have trained?", partial(_split, told.get("scaling.allocation"))),
    ]
    for column, (question, draw) in zip(st.columns(3, gap="small"), drawn, strict=True):
        with column.container(border=True, gap="xxsmall", height="stretch"):
            st.caption(f"**{question}**")
            draw()


def _answer(headline: str, level: str, word: str, why: str, more: str = "") -> None:
    """One answer; `headline` and `word` are ours, the rest may hold strings of a file."""
    shown = level_of(level)
    st.markdown(f"#### {headline} :{shown.color}-badge[{shown.icon} {word}]", anchors=False)
    st.markdown(f":small[{text.md(why, 400)}]")
    if more:
        st.caption(text.md(more, 300))


def _curve(chosen: Chosen, run: Reached | None, found: Finding | None) -> None:
    if found is None:
        return
    if found.statistic is not None:
        head = f"{math.expm1(found.statistic.value):+.1%} of its curve"
        word = {"pass": "on it", "warn": "above it", "fail": "far above it", "unknown": "not comparable"}[found.level]
        _answer(head, found.level, word, found.summary, "" if found.level == "pass" else found.what_to_do)
        return
    expected = None if run is None or run.loss is None else _expected(chosen, run)
    if expected is None or run is None or run.loss is None:
        _answer("Not known", "unknown", "unknown", found.summary, found.what_to_do)
        return
    loss, low, high = expected
    where = "inside" if low <= run.loss <= high else "above" if run.loss > high else "below"
    head = {"inside": "Heading for its curve"}.get(where, f"Heading {where} its curve")
    _answer(
        head, "unknown", "too early to judge",
        f"The forecast of {run.loss:.3f} lies {where} the {low:.3f} to {high:.3f} that the ladder predicts for its "
        f"size and tokens ({loss:.3f}).", found.summary,
    )  # fmt: skip


def _expected(chosen: Chosen, run: Reached) -> tuple[float, float, float] | None:
    """Loss that the lab's own ladder predicts for the run as planned, with its 90 % band."""
    if chosen.fit is None or chosen.fit.judgement[0] in ("fail", "unknown") or below_ladder(chosen.fit, run.size):
        return None
    half = chosen.band_at(run.size.flops)
    if half is None:
        return None
    loss = float(chosen.law.loss(run.size.n, run.size.d_planned))
    return loss, loss * math.exp(-half), loss * math.exp(half)


def _end(found: Finding | None, known: bool) -> None:
    if found is None:
        _answer("Not known yet" if known else "…", "unknown", "unknown",
                "The checks gave no forecast." if known else "The checks are reading the run.")
    elif found.statistic is None:
        _answer("Not known", "unknown", "unknown", found.summary, found.what_to_do)
    else:
        s = found.statistic
        band = "" if s.low is None or s.high is None else f" :gray[:small[{s.low:.3f} to {s.high:.3f}]]"
        word = {"pass": "forecast", "warn": "target in doubt", "fail": "misses its target"}.get(found.level, "unknown")
        told, _ = forecast_of(found.details)
        if found.level == "pass" and told is not None and told["trained_share"] >= 1:
            word = "ended"
        _answer(f"{s.value:.3f} nats/token{band}", found.level, word, found.summary)


def _split(found: Finding | None) -> None:
    if found is None:
        return
    details: Any = found.details
    if found.level == "unknown" or "optimal_parameters" not in details:
        _answer("Not known", "unknown", "unknown", found.summary, found.what_to_do)
        return
    head = f"{big(details['optimal_parameters'])} on {big(details['optimal_tokens'])} tokens"
    word = {"pass": "well split"}.get(found.level, "a better split exists")
    mine = f"This run: {big(details['parameters'])} on {big(details['tokens_planned'])} tokens."
    _answer(head, found.level, word, f"{mine} {found.summary}", "" if found.level == "pass" else found.what_to_do)


if __name__ == "__main__":
    page()
