"""What the pages share: the live fragment, tables with comparison and branches, and words for missing data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import altair as alt
import pandas as pd
import streamlit as st

from checks.registry import remedy
from dashboard.charts import plots, text
from dashboard.charts.live import Mark
from dashboard.failing import guarded
from dashboard.server import reads
from dashboard.server.results import has_evals
from dashboard.sidebar import Choice, View, look

LIVE_SECONDS, SLOW_SECONDS = 2.0, 30.0
"""Health redraws an ECharts chart as soon as there is data; the analytical pages are Altair, whose redraws cost the
browser 20 to 40 kB each, and a chart that moves while it is studied is no help."""

POINTS, MOST_EVENTS = 600, 200


def refreshing(body: Callable[[View], None], choice: Choice, every: float) -> None:
    """Draw a page body now and again every few seconds, as one fragment.

    The elements of an unchanged run come out byte for byte the same, which Streamlit does not send again.
    """

    def section() -> None:
        with guarded("This page"):
            view = look(choice)
            if view.run.error:
                broken(view)
            elif view.run.empty:
                waiting(view)
            else:
                body(view)

    st.fragment(section, run_every=every, key="live")()


def broken(view: View) -> None:
    """The run cannot be read, or there is none and the folder holds results of evals alone."""
    recorded = any(os.path.lexists(f"{view.path}/{name}") for name in ("run.json", "frames"))
    if not recorded and has_evals(view.path):
        st.subheader(f":material/checklist: {text.md(view.choice.name, 80)} holds results of evals")
        st.markdown("Nothing of its training was recorded here, so this page has nothing to show. Its results are "
                    "under *Release*: Evals, Safety, Latency and the release review.")
        return
    st.error(text.md(view.run.error), icon=":material/broken_image:")
    st.markdown("Choose another run in the sidebar, or restore the folder; the board looks again every few seconds.")


def waiting(view: View) -> None:
    """The run exists but holds no row yet."""
    st.subheader(f":material/hourglass_empty: {text.md(view.choice.name, 80)} has no data yet")
    st.markdown(
        "The first rows arrive within a few seconds of the first optimizer step. If the job has been running "
        "for longer, look for a warning of `trainvitals` in its log: a full disk or a read-only folder is named "
        "there."
    )
    for problem in view.run.problems[:5]:
        st.caption(text.md(problem))


def marks(view: View) -> list[Mark]:
    """Events of the run on the step axis, without the writers' own comings and goings; neighbours share a mark."""
    events = reads.events(view.path)
    shown = events[~events["kind"].isin(["started", "closed"]) & events["step"].notna()]
    first, last = view.axis
    shown = shown[shown["step"].between(first, last)].sort_values("step").tail(MOST_EVENTS)
    groups: list[tuple[int, list[str]]] = []
    for row in shown.itertuples():
        if groups and row.step - groups[-1][0] < (last - first) / 50:
            groups[-1][1].append(row.kind)
        else:
            groups.append((int(row.step), [row.kind]))
    return [_mark(step, kinds) for step, kinds in groups]


def _mark(step: int, kinds: list[str]) -> Mark:
    more = f" +{len(kinds) - 1}" if len(kinds) > 1 else ""
    return Mark(step, text.plain(kinds[0], 18) + more, ", ".join(text.plain(kind, 40) for kind in kinds[:5]))


def plain_marks(view: View) -> list[Mark]:
    """The same without words, for small charts; hovering names them."""
    return [replace(mark, text="") for mark in marks(view)]


def table(
    view: View, signal: str, *, points: int = POINTS, label: str | None = None, overlay: bool = True
) -> pd.DataFrame:
    """A signal of this run and, with `overlay`, of the other one and of rolled-back attempts, told apart by `run`."""
    parts = [reads.series(view.path, signal, view.steps, points).assign(run="")]
    if overlay and view.compare is not None:
        other = reads.series(view.compare.path, signal, view.steps, points)
        parts.append(other.assign(run=text.plain(view.choice.compare_name, 60)))
    if overlay and view.choice.branches:
        for branch in reads.branches(view.path).itertuples():
            left = reads.series(view.path, signal, view.steps, points // 2, branch.branch)
            parts.append(left.assign(run=f"branch {branch.branch}"))
    whole = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    return whole if label is None else whole[whole["label"] == label]


def labels(view: View, data: pd.DataFrame) -> list[str]:
    """Labels of a table, domains in the order of the card so that colours stay."""
    found = list(dict.fromkeys(data["label"]))
    known = [name for name in view.run.card.domain_labels if name in found]
    return [*known, *[name for name in found if name not in known]]


def domains(view: View) -> list[str]:
    """All domain labels of the run: the order that decides their colours on every page."""
    return view.run.card.domain_labels


def missing(view: View, signal: str, what: str) -> bool:
    """Say why a chart is not there and what to do; True if the run has no row of the signal."""
    if reads.has(view.path, signal):
        return False
    st.caption(f":material/visibility_off: **No {what}.** The run holds no `{signal}`. {text.md(remedy(signal))}")
    return True


def show(chart: alt.LayerChart, key: str, alt_text: str) -> None:
    """Draw an Altair chart at full width."""
    st.altair_chart(chart, width="stretch", key=key, alt=text.plain(alt_text, 200))


def dark() -> bool:
    """Whether the viewer's theme is dark."""
    return st.context.theme.type == "dark"


@contextmanager
def card(title: str, note: str = "", unit: str = "") -> Iterator[None]:
    """A bordered box with a title, the unit of its values and, in grey, what it shows; it fails alone."""
    with st.container(border=True, gap="xsmall", height="stretch"):
        words = ", ".join(filter(None, [unit, note]))
        st.markdown(f"**{title}**" + (f" :gray[:small[{words}]]" if words else ""))
        with guarded(title):
            yield


def line_card(
    view: View,
    signal: str,
    title: str,
    unit: str,
    *,
    note: str = "",
    percent: bool = False,
    log: bool | None = None,
    order: Sequence[str] = (),
    height: int = 180,
    legend: bool = True,
    points: int = POINTS,
    band: bool = True,
    only: Sequence[str] | None = None,
    empty: str = "",
) -> None:
    """A box with one signal over steps, or with the reason why it is not there.

    `only` are the labels to draw, None for all; `empty` says why there may be rows but no value.
    """
    with card(title, note, "" if unit == "1" else unit):
        if missing(view, signal, title[0].lower() + title[1:]):
            return
        data = table(view, signal, points=points)
        if only is not None:
            data = data[data["label"].isin(list(only))]
        if empty and data["value"].isna().all():
            st.caption(f":material/hourglass_top: {empty}")
            return
        use_log = view.choice.log if log is None else log
        chart = plots.lines(
            data,
            unit,
            order=order or labels(view, data),
            height=height,
            log=use_log,
            percent=percent,
            steps=view.axis,
            marks=plain_marks(view),
            legend=legend,
            band=band,
        )
        show(chart, f"line-{signal}", f"{title} over steps, {unit}")


def mfu(view: View) -> tuple[str, str]:
    """Model FLOP utilisation as shown, and its convention or the reason why it is unknown."""
    card = view.run.card
    if not reads.has(view.path, "throughput/tokens_per_s"):
        return "unknown", "The throughput collector has written nothing."
    if not card.peak_flops_per_device:
        return "unknown", (
            f"The peak FLOP/s of {card.hardware!r} is not known. Pass it to tv.attach as "
            "peak_flops; another device's peak would give a wrong number."
        )
    if not card.flops_per_token:
        return "unknown", "The run card does not say how many FLOP a token costs."
    return text.share(recent(view, "throughput/mfu")), f"Convention: {card.mfu_convention or 'not stated'}."


def recent(view: View, signal: str) -> float | None:
    """Mean of the newest 50 rows; None where there is none."""
    if not reads.has(view.path, signal):
        return None
    table = reads.newest(view.path, signal)
    return float(table["value"].iloc[0]) if len(table) else None


def page(body: Callable[[View], None], *, every: float = SLOW_SECONDS) -> None:
    """Run a page script: its body under the viewer's current choice."""
    choice = st.session_state.get("_choice")
    if choice is not None:
        refreshing(partial(body), choice, every)
