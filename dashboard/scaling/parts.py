"""Parts of the scaling page: the what-if planner, the forecast, and the tabs that look into a fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from checks import Finding
from checks.scaling.chinchilla import Law
from checks.scaling.isoflop import isoflop
from checks.scaling.plan import Budget, budget
from checks.scaling.reference import REFERENCES
from dashboard.charts import text
from dashboard.charts.levels import level_of
from dashboard.page import card, show
from dashboard.scaling import charts as scaling_charts
from dashboard.scaling import ladders as scaling
from dashboard.scaling.axes import Reached, span_of
from dashboard.scaling.fan import fan, forecast_of
from dashboard.scaling.ladders import Chosen
from dashboard.server import reads
from dashboard.server.reads import Snapshot
from dashboard.sidebar import Choice
from trainvitals.errors import UsageError

H100_TFLOPS = 989.0
"""Dense bf16: https://www.nvidia.com/en-us/data-center/h100/."""
PEAKS = (0.01, 1e5)
STEPS = (1, 1.1, 1.25, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3.2, 3.5, 4, 4.5, 5, 5.6, 6.3, 7.1, 8, 9)
BUDGETS = [f"{mantissa:g}e{decade}" for decade in range(13, 29) for mantissa in STEPS]
"""FLOPs in steps of a twentieth of a decade, as Renard numbers."""
WAYS = {"flops": "FLOPs", "machines": "GPUs and days"}
CONSTANTS = {"E": "E, nats/token", "A": "A", "B": "B", "alpha": "alpha", "beta": "beta", "n_exponent": "a of N* ~ C^a"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the viewer plans with."""

    budget: Budget
    unique: float | None = None


def big(value: float) -> str:
    """Parameters, tokens or FLOPs: 7B, not 7G; powers of ten from a quadrillion on."""
    return text.number(value).replace("G", "B")


def budget_inputs(chosen: Chosen, run: Reached | None, snap: Snapshot | None) -> Asked:
    """The controls of the planner; a new run starts at its own compute."""
    path = snap.path if snap else ""
    if st.session_state.setdefault("_budget_of", path) != path:
        st.session_state["_budget_of"] = path
        st.session_state.pop("flops", None)
    with card("With another budget", "what to train"):
        way = st.segmented_control(
            "Budget", list(WAYS), default="flops", required=True, key="budget", bind="query-params",
            format_func=WAYS.__getitem__, label_visibility="collapsed",
        )  # fmt: skip
        try:
            return Asked(_flops(chosen, run)) if way != "machines" else _machines(snap)
        except UsageError as error:
            st.error(text.md(error), icon=":material/calculate:")
            return Asked(Budget(_start(chosen, run)))


def _start(chosen: Chosen, run: Reached | None) -> float:
    """The run's own compute, else ten times the largest run of the ladder."""
    if run is not None:
        return run.size.flops
    return 10 * (chosen.fit.largest_flops if chosen.fit else chosen.reference.flops[1] if chosen.reference else 1e21)


def _flops(chosen: Chosen, run: Reached | None) -> Budget:
    values = np.log([float(value) for value in BUDGETS])
    start = BUDGETS[int(np.abs(values - np.log(_start(chosen, run))).argmin())]
    asked = st.select_slider("Compute, FLOPs", BUDGETS, start, key="flops", bind="query-params")
    return budget(flops=float(asked))


def _machines(snap: Snapshot | None) -> Asked:
    left, right = st.columns(2)
    gpus = left.number_input("GPUs", 1, 1_000_000, 256, key="gpus", bind="query-params")
    days = right.slider("Days", 1, 180, 10, key="days", bind="query-params")
    mfu = left.slider("MFU, per cent", 5, 70, 40, key="mfu", bind="query-params", help="Model FLOP utilisation.")
    own = (snap.card.peak_flops_per_device or 0.0) / 1e12 if snap else 0.0
    peak = right.number_input(
        "Peak of a GPU, TFLOP/s", *PEAKS, own if PEAKS[0] <= own <= PEAKS[1] else H100_TFLOPS, key="peak",
        bind="query-params", help="Dense, at the precision of the run: 989 for an H100 in bf16.",
    )  # fmt: skip
    price = left.number_input("Price of a GPU hour", 0.0, 1000.0, 2.0, 0.5, key="price", bind="query-params")
    unique = right.number_input(
        "Unique tokens, billions", 0.0, 1e6, 0.0, key="unique", bind="query-params",
        help="Different tokens at hand, where data is short; 0 for no limit.",
    )  # fmt: skip
    spend = budget(
        gpus=gpus, days=float(days), peak_flops=peak * 1e12, mfu=mfu / 100, price_per_gpu_hour=price or None
    )
    return Asked(spend, unique * 1e9 or None)


def planner(chosen: Chosen, asked: Asked) -> tuple[DeltaGenerator, DeltaGenerator]:
    """The best use of the budget, and two places for what takes longer: a note and a chart."""
    flops = asked.budget.flops
    best = chosen.law.optimum(flops)
    spent = f"{flops:.3g} FLOPs"
    if asked.budget.gpu_hours is not None:
        spent += f" · {text.number(asked.budget.gpu_hours)} GPU hours"
    if asked.budget.cost is not None:
        spent += f" · {text.number(asked.budget.cost)} at this price"
    with st.container(border=True, gap="xsmall"):
        n, d, loss = st.columns(3)
        n.metric("Parameters", big(float(best.n)))
        d.metric("Tokens", big(float(best.d)))
        loss.metric("Nats/token", f"{float(best.loss):.3f}")
        st.caption(f"{spent} · {float(best.tokens_per_parameter):.3g} tokens per parameter")
        return st.container(gap="xsmall"), st.container(gap="xsmall")


def deviation(chosen: Chosen, asked: Asked, run: Reached | None) -> None:
    """What another size costs at equal compute."""
    st.caption("**Price of another size** at equal compute")
    show(scaling_charts.deviating(chosen, asked.budget.flops, run), "deviating", "Loss over the best against size")


def plan_note(chosen: Chosen, asked: Asked) -> None:
    """How far the plan may be believed."""
    try:
        told = chosen.plan(asked.budget, asked.unique)
    except UsageError as error:
        st.error(text.md(error), icon=":material/calculate:")
        return
    level = level_of(told.level)
    word = {"pass": "within reach", "warn": "with care"}.get(told.level, "not determined")
    span = told.interval
    band = "No band: nothing was backtested" if span is None else f"Loss {span[0]:.3f} to {span[1]:.3f} (90 %)"
    st.markdown(f":{level.color}-badge[{level.icon} {word}] :small[{band}. {text.md(told.summary, 300)}]")
    if told.intervals is not None:
        (n_low, n_high), (d_low, d_high) = told.intervals["N"], told.intervals["D"]
        st.caption(f"95 % of resamples: N* {big(n_low)} to {big(n_high)}, D* {big(d_low)} to {big(d_high)}")
    if told.epochs is not None:
        st.caption(f"With repeated data: {big(told.n)} parameters on {big(told.d)} tokens, {told.epochs:.1f} passes, "
                   f"loss {told.loss:.3f}. " + " ".join(text.md(c) for c in told.caveats if "passes" in c))


def forecast_card(choice: Choice, snap: Snapshot, found: Finding | None, version: str) -> None:
    """The run so far, where it goes, and what was said before."""
    with card("Forecast of this run", "its 90 % band, and earlier forecasts of the end at the step they were made"):
        past = scaling.past_forecasts(snap.path, version)
        told, path = forecast_of(found.details) if found else (None, [])
        curve = reads.series(snap.path, "loss/train", None, 400)
        if not len(curve):
            st.caption(":material/visibility_off: **No training loss.** The run holds no `loss/train`.")
            return
        total = int((told or {}).get("total_steps") or snap.card.total_steps or snap.last_step or 1)
        show(
            fan(curve, path, told, past, total, log=choice.log),
            "forecast-fan", "Training loss over steps with the forecast of its end and earlier forecasts",
        )  # fmt: skip
        scored = [s for s in past if s.inside is not None]
        if scored:
            held = sum(bool(s.inside) for s in scored)
            st.caption(f"{held} of {text.plural(len(scored), 'kept forecast')} held the final loss in the band, at "
                       f"most {max(abs(s.error or 0.0) for s in scored):.4f} nats/token away.")
        elif past:
            st.caption(f"{text.plural(len(past), 'forecast')} kept so far; they are scored when the run has ended.")
        elif found is not None:
            st.caption(f"{text.md(found.summary, 300)} {text.md(found.what_to_do, 200)}")


def parts(chosen: Chosen, run: Reached | None, flops: float) -> None:
    """Tabs that look into the law; only the open one is worked out."""
    drawn = {
        "Loss": partial(_losses, chosen, run, flops),
        "Fit": partial(_fit, chosen),
        "IsoFLOP": partial(_isoflop, chosen),
        "Runs": partial(_runs, chosen),
    }
    with st.container(border=True, height="stretch"):
        tabs = st.tabs(list(drawn), key="look", bind="query-params", on_change="rerun")
        for tab, draw in zip(tabs, drawn.values(), strict=True):
            if tab.open:
                with tab:
                    draw()


def _losses(chosen: Chosen, run: Reached | None, flops: float) -> None:
    span = span_of(chosen, run, flops, False)
    st.caption("Loss along the frontier with the 90 % band of a prediction; ladder runs by size; ★ this run.")
    show(scaling_charts.losses(chosen, run, flops, span), "loss-compute", "Loss against compute with the frontier")
    if chosen.fit is not None:
        show(scaling_charts.residuals(chosen, span), "residuals", "Residuals of the ladder against compute")


def _fit(chosen: Chosen) -> None:
    if chosen.fit is None:
        frame(pd.DataFrame([{"Constant": title, "Value": _short(getattr(chosen.law, name))}
                            for name, title in CONSTANTS.items()]), "published-law", "Constants of the published law")
        assert chosen.reference is not None
        st.caption(f"{text.source(chosen.reference.source)}. N counts {chosen.reference.counts}.")
        return
    fit = scaling.sure(chosen.key, chosen.fit)
    profiles = {p.name: p for p in fit.identifiability.profiles}
    rows = []
    for name, title in CONSTANTS.items():
        low, high = (fit.intervals or {}).get(name, (np.nan, np.nan))
        held = profiles.get(name)
        rows.append({
            "Constant": title, "Value": _short(getattr(fit.law, name)),
            "95 % bootstrap": f"{_short(low)} to {_short(high)}",
            "Not ruled out": "–" if held is None else f"{_short(held.low)} to {_short(held.high)}",
            **{r.name.partition(" ")[0]: _short(getattr(r.law, name)) for r in list(REFERENCES.values())[:2]},
        })  # fmt: skip
    frame(pd.DataFrame(rows), "fit-table", "Constants of the fit with intervals, beside published ones")
    agreed = fit.best.consensus
    tested = fit.backtest
    st.caption(
        f"{agreed.reached} of {agreed.starts} starting points reach this optimum · objective "
        f"{fit.best.objective:.6g} · residuals scatter by {100 * fit.residual_mad:.2g} % · {fit.resamples:,} "
        "resamples · "
        + ("no backtest: too few runs" if tested is None
           else f"backtest error {100 * tested.sigma:.2g} % over {len(tested.error)} predictions")
    )  # fmt: skip
    if reasons := fit.identifiability.reasons:
        for reason in reasons:
            st.markdown(f":orange[:material/warning:] {text.md(reason, 300)}")
    else:
        st.markdown(":green[:material/check_circle:] These runs determine the exponents and E.")
    st.caption("Not ruled out: what a likelihood-ratio test leaves of a constant when the others are fitted again.")


def _short(value: float | Law | None) -> str:
    return "open" if value is None else text.number(float(value), 4)  # type: ignore[arg-type]


def _isoflop(chosen: Chosen) -> None:
    if chosen.fit is None:
        st.caption(":material/visibility_off: **No runs.** Parabolas need a ladder: several sizes at equal compute.")
        return
    try:
        found = isoflop(chosen.fit.ladder, chosen.law)
    except UsageError as error:
        st.caption(f":material/visibility_off: {text.md(error, 300)}")
        return
    low, high = min(found.bias), max(found.bias)
    exponent = "" if found.n_exponent is None else (
        f" N* ~ C^{found.n_exponent:.3f} by the minima, C^{chosen.law.n_exponent:.3f} by the law")
    shift = "" if found.exponent_bias is None else f", of which {found.exponent_bias:+.3f} is bias"
    st.caption(f"To look at, not to decide on: for these sizes a parabola puts N* at {low:.2f} to {high:.2f} times the "
               f"true one even without noise.{exponent}{shift}.")
    show(scaling_charts.valleys(found, chosen.fit.ladder), "isoflop", "Loss against size for every compute budget")


def _runs(chosen: Chosen) -> None:
    if chosen.fit is None:
        st.caption(":material/visibility_off: **No runs.** Published constants come without their runs; put a table "
                   "beside the runs or upload one under *Table*.")
        return
    ladder = chosen.fit.ladder
    table = pd.DataFrame({
        "Run": [text.plain(name, 80) for name in ladder.names], "N, parameters": ladder.n, "D, tokens": ladder.d,
        "C, FLOPs": ladder.flops, "Loss, nats/token": ladder.loss, "Over the law": 100 * chosen.fit.residual,
    })  # fmt: skip
    form = {name: st.column_config.NumberColumn(format="compact") for name in ("N, parameters", "D, tokens")}
    form |= {"C, FLOPs": st.column_config.NumberColumn(format="scientific"),
             "Loss, nats/token": st.column_config.NumberColumn(format="%.4f"),
             "Over the law": st.column_config.NumberColumn(format="%+.2f %%")}
    st.dataframe(table.sort_values("C, FLOPs"), hide_index=True, column_config=form, key="ladder-runs", height=380,
                 row_height=28, alt="Runs of the ladder with their residuals")


def frame(table: pd.DataFrame, key: str, alt_text: str) -> None:
    """A short table, drawn whole."""
    st.dataframe(table, hide_index=True, key=key, height="content", row_height=28, alt=alt_text)
