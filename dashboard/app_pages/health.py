"""Health: is the run well, and if not, what moved first and what to do? One screen, live."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import streamlit as st

from checks import Finding, Incident, Report, Verdict
from dashboard import evidence
from dashboard.charts import text
from dashboard.charts.levels import LEVELS, STATUS, level_of
from dashboard.charts.live import BRANCH_HUE, LINE_HUES, Area, Line, Panel, live_chart
from dashboard.page import LIVE_SECONDS, marks, mfu, page, recent
from dashboard.server import reads
from dashboard.server.verdicts import Judged, judge
from dashboard.sidebar import View

ICON, PLACE = ":material/monitor_heart:", 1

CHART_HEIGHT = 690
POINTS, MOST_ROWS, MOST_INCIDENTS = 500, 3, 8
MOST_COUNTS = 4_000_000
STRIPS = (
    ("loss/train", "Training loss", "nats/token", 3.0),
    ("grad/norm", "Gradient norm", "1", 1.2),
    ("lr/used", "Learning rate", "1", 1.0),
    ("router/max_vio", "MaxVio of the worst router: the busiest expert's excess over the mean", "1", 1.0),
    ("throughput/tokens_per_s", "Throughput", "tokens/s", 1.0),
)
"""Signal, title, unit and share of the height; a strip without data gives its room to the others."""
LOGARITHMIC = ("loss/train", "grad/norm", "lr/used")


def body(view: View) -> None:
    """Draw the page."""
    judged = judge().report(view.path, view.version)
    _header(view)
    _verdicts(judged)
    left, right = st.columns([3, 2], gap="small")
    with left, st.container(border=True):
        _chart(view, judged.report)
    with right, st.container(height=CHART_HEIGHT + 30, border=False, gap="xsmall", key="findings"):
        _findings(view, judged)


def _header(view: View) -> None:
    run, card = view.run, view.run.card
    icon, color = STATUS[run.status]
    done, total = run.last_step or 0, max(card.total_steps or 0, 0)
    name, progress, *tiles = st.columns([2.6, 3.2, 1.15, 1.25, 1.25, 1.25], gap="small", vertical_alignment="center")
    ago = None if run.last_time is None else time.time() - run.last_time
    with name.container(gap="xxsmall"):
        st.markdown(f"#### {text.md(view.choice.name, 34)}", anchors=False)
        st.markdown(f":{color}-badge[{icon} {run.status}] :gray[:small[last data {text.ago(ago)}]]",
                    help=text.md(run.told_by, 200) or None)
    step_seconds = recent(view, "throughput/step_time")
    with progress.container(gap="xxsmall"):
        if total:
            eta = None if step_seconds is None else (total - done) * step_seconds
            over = run.status in ("finished", "silent")
            rest = ("done" if done >= total else f"ended {total - done:,} steps before its plan" if over
                    else f"about {text.duration(eta)} to go" if eta else "time to go unknown")
            st.progress(min(done / total, 1.0), f"step {done:,} of {total:,} · {text.share(done / total)} · {rest}")
        else:
            st.progress(0.0, f"step {done:,} · planned number of steps unknown")
    loss, rate = recent(view, "loss/train"), recent(view, "throughput/tokens_per_s")
    tiles[0].metric("Loss, nats/token", text.number(loss), help="Mean over the newest 50 rows.")
    tiles[1].metric("Tokens/s", text.number(rate), help="Mean over the newest 50 rows, all ranks.")
    tiles[2].metric(
        "Step time",
        text.duration(step_seconds)
        if (step_seconds or 0) >= 60
        else text.quantity(step_seconds, "s")
        if step_seconds is not None
        else "unknown",
        help="Mean over the newest 50 rows, slowest rank.",
    )
    value, why = mfu(view)
    tiles[3].metric("MFU", value, help=text.md(why, 400))


def _verdicts(judged: Judged) -> None:
    report = judged.report
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="verdicts"):
        if report is None:
            st.badge(
                f"checks are running{_progress(judged)}" if not judged.error else "checks failed",
                icon=":material/hourglass_top:" if not judged.error else ":material/error:",
                color="gray",
            )
            return
        for area, verdict in report.verdicts.items():
            level = level_of(verdict.level)
            asked = text.plural(verdict.findings, "answer")
            st.badge(
                verdict_words(area, verdict),
                icon=level.icon,
                color=level.color,
                help=f"{asked}, {verdict.unknown} without enough data to judge.",
            )
        took = f" in {text.duration(judged.seconds)}" if judged.seconds else ""
        now = f"; judging again{_progress(judged)}" if judged.progress else ""
        st.caption(f"judged at step {report.step or 0:,}{took}{now}", width="content")


def _progress(judged: Judged) -> str:
    return f", {judged.progress[0]} of {judged.progress[1]} checks" if judged.progress else ""


def verdict_words(area: str, verdict: Verdict) -> str:
    """An area's level, with what still stands, or how many checks could not answer where those are the most."""
    words = f"{area}: {level_of(verdict.level).word}"
    answered = verdict.findings - verdict.unknown
    if verdict.ongoing:
        return f"{words}, {verdict.ongoing} now"
    return f"{words}, {verdict.unknown} unknown" if 0 < answered < verdict.unknown else words


def _chart(view: View, report: Report | None) -> None:
    areas = (
        []
        if report is None
        else [Area(*incident.steps, incident.level, incident.summary) for incident in report.incidents[:12]]
    )
    key = (view.key, tuple(areas))
    kept = st.session_state.get("_live_chart")
    if kept is None or kept[0] != key:
        kept = st.session_state["_live_chart"] = (key, _option(view, areas))
    option, alt_text = kept[1]
    st.echarts_chart(option, height=CHART_HEIGHT, key="live-chart", alt=alt_text)


def _option(view: View, areas: list[Area]) -> tuple[dict[str, Any], str]:
    panels = []
    for signal, title, unit, weight in STRIPS:
        lines = _lines(view, signal)
        if lines:
            panels.append(Panel(title, unit, lines, weight, log=view.choice.log and signal in LOGARITHMIC))
    option = live_chart(panels, marks(view), areas, steps=view.axis, height=CHART_HEIGHT)
    drawn = ", ".join(panel.title.lower() for panel in panels)
    return option, text.plain(
        f"{drawn} over {text.steps(*view.axis)}, with {text.plural(len(areas), 'incident')} shaded", 200
    )


def _lines(view: View, signal: str) -> tuple[Line, ...]:
    found: list[Line] = []
    if signal == "router/max_vio" and _heavy(view):
        return ()
    if reads.has(view.path, signal):
        found.append(Line(view.choice.name, _worst(reads.series(view.path, signal, view.steps, POINTS))))
        if signal == "lr/used" and reads.has(view.path, "lr/planned"):
            planned = reads.series(view.path, "lr/planned", view.steps, POINTS)
            found.append(Line("planned", _worst(planned), LINE_HUES[1], dashed=True))
        if view.choice.branches:
            for branch in reads.branches(view.path).itertuples():
                left = reads.series(view.path, signal, view.steps, POINTS // 2, branch.branch)
                found.append(Line(f"rolled back {branch.branch}", _worst(left), BRANCH_HUE, faint=True))
    if view.compare is not None and reads.has(view.compare.path, signal):
        other = reads.series(view.compare.path, signal, view.steps, POINTS)
        found.append(Line(view.choice.compare_name, _worst(other), LINE_HUES[1], dashed=True))
    return tuple(found)


def _heavy(view: View) -> bool:
    """Whether the expert counts are too many to be read for a screen that redraws: Routing shows them."""
    first, last = view.axis
    width = len(reads.newest(view.path, "router/load", 1))
    return (last - first) / reads.cadence(view.path, "router/load") * width > MOST_COUNTS


def _worst(table: pd.DataFrame) -> pd.DataFrame:
    """Of a signal with labels, the largest value of each bucket: one line that misses no layer."""
    if table.empty or table["label"].nunique() <= 1:
        return table
    by_bucket = table.drop(columns="label").groupby(["step", "last_step"], as_index=False, sort=True)
    return by_bucket.agg({"value": "max", "lo": "min", "hi": "max", "nonfinite": "sum"})


def _findings(view: View, judged: Judged) -> None:
    report = judged.report
    if report is None:
        if judged.error:
            st.error(text.md(judged.error, 600), icon=":material/error:")
        else:
            st.caption(":material/hourglass_top: The checks are reading the run. Findings appear here on their own.")
        return
    found = evidence.keys_of(report)
    keys = list(found)
    opened = st.query_params.get("finding", "")
    # A shared address shows its finding without a search; later clicks must not move the list under the pointer.
    shared = st.session_state.setdefault("_shared_finding", opened)
    wanted = keys.index(shared) if shared in found else -1
    if opened and opened not in found:
        st.caption(f":material/link_off: The finding {text.md(opened, 120)} of the address is not among those of now.")
    incidents = sorted(
        report.incidents, key=lambda i: (wanted not in i.findings, level_of(i.level).rank, not i.ongoing, i.steps[0])
    )
    for incident in incidents[:MOST_INCIDENTS]:
        _incident(view, report, incident, keys, opened, wanted)
    rest = [i for incident in incidents[MOST_INCIDENTS:] for i in incident.findings]
    label = f"{text.plural(len(incidents) - MOST_INCIDENTS, 'more incident')} with {text.plural(len(rest), 'finding')}"
    _folded(view, report, keys, rest, label, "more-incidents", opened)
    grouped = {i for incident in report.incidents for i in incident.findings}
    alone = [i for i, f in enumerate(report.findings) if i not in grouped and f.level in ("fail", "warn")]
    for i in alone:
        _row(view, keys[i], report.findings[i], opened)
    if not grouped and not alone:
        st.markdown(quiet_words(sum(f.level == "pass" for f in report.findings)))
    for level, words in (("unknown", "could not answer"), ("pass", "passed")):
        members = [i for i, f in enumerate(report.findings) if f.level == level]
        shown = level_of(level)
        label = f":{shown.color}[{shown.icon}] {text.plural(len(members), 'check')} {words}"
        _folded(view, report, keys, members, label, f"quiet-{level}", opened)


def quiet_words(passed: int) -> str:
    """What Health says where nothing is wrong. passed: answers that passed; without one nothing is known."""
    if not passed:
        return f":gray[{LEVELS['unknown'].icon}] **Nothing is known.** :gray[No check could answer.]"
    return f":green[{LEVELS['pass'].icon}] **Nothing stands out.** :gray[Every check that could answer passed.]"


def _incident(view: View, report: Report, incident: Incident, keys: list[str], opened: str, wanted: int) -> None:
    level = level_of(incident.level)
    first = report.findings[incident.findings[0]]
    with st.container(border=True, gap="xsmall"):
        state = "ongoing" if incident.ongoing else "over"
        st.markdown(
            f":{level.color}-badge[{level.icon} {level.word} incident, {state}] "
            f":gray[:small[{text.steps(*incident.steps)}]]"
        )
        place = next((e.place for e in first.evidence if e.place), "")
        where = f" ({text.md(place, 60)})" if place else ""
        st.markdown(f"**Moved first: {text.md(first.check)}{where}, step {_onset(incident):,}**")
        if incident.twins:
            st.markdown(text.md(incident.twins, 240))
        st.caption(text.md(first.what_to_do, 240))
        members = sorted(incident.findings, key=lambda i: i != wanted)
        for i in members[:MOST_ROWS]:
            _row(view, keys[i], report.findings[i], opened)
        rest = members[MOST_ROWS:]
        _folded(
            view,
            report,
            keys,
            rest,
            f"{text.plural(len(rest), 'later finding')}",
            f"rest-{keys[incident.findings[0]]}",
            opened,
        )


def _onset(incident: Incident) -> int:
    return incident.order[0].step if incident.order else incident.steps[0]


def _row(view: View, key: str, finding: Finding, opened: str) -> None:
    """One finding as an expander; one at a time is open, and its key is in the URL."""
    state = f"open-{key}"
    st.session_state[state] = key == opened
    box = st.expander(evidence.title(finding), key=state, type="compact", on_change=_toggle, args=(key,))
    if key == opened:
        with box:
            evidence.draw(view, finding)


def _toggle(key: str) -> None:
    if st.session_state.get(f"open-{key}"):
        st.query_params["finding"] = key
    else:
        st.query_params.pop("finding", None)


def _folded(
    view: View, report: Report, keys: list[str], members: list[int], label: str, state: str, opened: str
) -> None:
    """Findings that are folded away until asked for, or until the URL names one of them."""
    if not members:
        return
    box = st.expander(
        label, key=state, type="compact", on_change="rerun", expanded=any(keys[i] == opened for i in members)
    )
    if box.open:
        with box:
            for i in members:
                _row(view, keys[i], report.findings[i], opened)


if __name__ == "__main__":
    page(body, every=LIVE_SECONDS)
