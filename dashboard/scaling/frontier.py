"""The frontier: compute against the best size, or the best number of tokens.

A refit redraws this chart while a slider moves, and most of what an Altair chart costs is its specification (90 ms of
computing against 10 for its numbers). So the specification is made once per layout, and the tables are put in by name.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from checks.scaling.models import MODELS
from dashboard.charts.layers import MARK_HUE, sized
from dashboard.charts.text import plain
from dashboard.scaling.axes import GRID, HUE, Reached, flops_axis, log_y, outwards, planned, star, tip
from dashboard.scaling.ladders import Chosen, frontier_band

HEIGHT = 392
TITLES = {"N": "Parameters", "D": "Tokens"}
BESIDE = {
    "N": {"Pythia 1.4B": "after", "OLMo 2 7B": "after", "Llama 2 70B": "after", "DeepSeek-V3": "after"},
    "D": {"Gopher": "after", "Llama 2 70B": "after", "Chinchilla": "after", "Llama 3.1 405B": "below"},
}
"""Where names of models would run into one another: a name stands before its mark unless it is here."""
SIDES: dict[str, dict[str, Any]] = {
    "before": {"align": "right", "dx": -6},
    "after": {"align": "left", "dx": 6},
    "below": {"align": "right", "dx": 2, "dy": 13},
}
Span = tuple[float, float]


def frontier(
    chosen: Chosen, run: Reached | None, budget: float, what: str, span: Span, *, models: bool
) -> dict[str, Any]:
    """Vega-Lite specification with its tables; what is "N" or "D"."""
    tables = _tables(chosen, run, budget, what, span, models)
    seen = pd.concat([table["value"] for table in tables.values() if "value" in table])
    layers = tuple(tables)
    spec = copy.deepcopy(_specification(what, span, outwards(float(seen.min()), float(seen.max())), layers))
    return spec | {"datasets": tables}


def _tables(
    chosen: Chosen, run: Reached | None, budget: float, what: str, span: Span, models: bool
) -> dict[str, pd.DataFrame]:
    """Layer -> what it draws, from the back to the front."""
    flops = np.geomspace(*span, GRID)
    best, here = chosen.law.optimum(flops), chosen.law.optimum(budget)
    size = what == "N"
    line = pd.DataFrame({"flops": flops, "value": best.n if size else best.d})
    found = {}
    if chosen.fit is not None:
        low, high = frontier_band(chosen.fit, flops, what)
        band = pd.DataFrame({"flops": flops, "lo": low, "hi": high})
        found["band"] = band[np.isfinite(band).all(axis=1)]
    found["line"] = line
    if chosen.fit is not None:
        ladder = chosen.fit.ladder
        found["ladder"] = pd.DataFrame({
            "flops": ladder.flops, "value": ladder.n if size else ladder.d, "loss": ladder.loss,
            "label": [plain(name, 60) for name in ladder.names],
        })  # fmt: skip
    if models:
        found["models"] = pd.DataFrame([
            {"flops": m.flops, "value": m.n if size else m.d, "label": m.name, "n": m.n, "d": m.d,
             "side": BESIDE[what].get(m.name, "before")} for m in MODELS
        ])  # fmt: skip
    found["planned"] = pd.DataFrame({"flops": [budget], "value": [float(here.n if size else here.d)]})
    if run is not None:
        at = run.size.n if size else run.size.d_planned
        found["run"] = pd.DataFrame({"flops": [run.size.flops], "value": [at], "label": [plain(run.name, 60)]})
    return found


@lru_cache(maxsize=64)
def _specification(what: str, span: Span, heights: Span, layers: tuple[str, ...]) -> dict[str, Any]:
    title = TITLES[what]
    x, y = flops_axis(span), log_y("value:Q", title, heights)
    compute, value = tip("flops", "compute, FLOPs"), tip("value", title.lower())

    def chart(name: str) -> alt.Chart:
        return alt.Chart(alt.NamedData(name)).encode(x=x)

    drawn: list[alt.Chart] = []
    for name in layers:
        if name == "band":
            ends = log_y("lo:Q", title, heights)
            drawn.append(chart(name).mark_area(color=HUE, opacity=0.2, clip=True).encode(y=ends, y2="hi:Q"))
        elif name == "line":
            drawn.append(chart(name).mark_line(color=HUE, strokeWidth=2.2, clip=True).encode(
                y=y, tooltip=[compute, tip("value", f"best {title.lower()}")]))
        elif name == "ladder":
            drawn.append(chart(name).mark_circle(size=22, opacity=0.55, color=HUE, clip=True).encode(
                y=y, tooltip=[alt.Tooltip("label:N", title="ladder run"), compute, value,
                              alt.Tooltip("loss:Q", title="loss, nats/token", format=".4f")]))
        elif name == "models":
            drawn += _models(chart(name).encode(y=y))
        elif name == "planned":
            drawn += planned(alt.NamedData(name), x, y)
        else:
            drawn.append(star(alt.NamedData(name), x, y, title.lower()))
    found: dict[str, Any] = sized(alt.layer(*drawn, *_words(what)), HEIGHT).to_dict()
    return found


def _models(base: alt.Chart) -> list[alt.Chart]:
    base = base.encode(tooltip=[alt.Tooltip("label:N", title="published model"), tip("n", "parameters"),
                                tip("d", "tokens"), tip("flops", "compute, FLOPs")])
    layers = [base.mark_point(shape="diamond", filled=True, size=46, color=MARK_HUE, opacity=0.95, clip=True)]
    for side, where in SIDES.items():
        words = base.transform_filter(f"datum.side == '{side}'").encode(text="label:N")
        layers.append(words.mark_text(fontSize=10, color=MARK_HUE, clip=True, **where))
    return layers


def _words(what: str) -> list[alt.Chart]:
    """What it means to lie above and below the line."""
    words = ("too large for its tokens", "small, trained for long")
    above, below = words if what == "N" else words[::-1]
    style: dict[str, Any] = {"fontSize": 11, "fontStyle": "italic", "color": MARK_HUE}
    one = alt.Chart(alt.InlineData([{}]))
    return [
        one.mark_text(text=above, align="left", baseline="top", dx=8, dy=6, **style).encode(
            x=alt.value(0), y=alt.value(0)),
        one.mark_text(text=below, align="right", baseline="bottom", dx=-8, dy=-6, **style).encode(
            x=alt.value("width"), y=alt.value("height")),
    ]
