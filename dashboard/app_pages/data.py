"""Data: the mix against its plan, epochs, drift of the token ids and what moved."""

import pandas as pd
import streamlit as st

from checks.data.movers import Mover, movers
from dashboard import plots, reads, text
from dashboard.pages import card, dark, domains, line_card, missing, page, show, table
from dashboard.sidebar import View
from trainvitals.formulas import REFERENCE_WINDOWS

RECENT_ROWS = 200
RECENT_WINDOWS = 5
LEAST_SHOWN_SHARE = 0.001
"""Scripts that no domain has more of are left out of the table."""


def body(view: View) -> None:
    """Draw the page."""
    left, right = st.columns([2, 3], gap="small")
    with left:
        _mix(view)
    with right, card("Mix over time", "share of input tokens per domain"):
        if not missing(view, "data/domain_share", "data mix"):
            data = table(view, "data/domain_share", points=200, overlay=False)
            show(
                plots.stacked(data, order=domains(view), steps=view.axis, height=218),
                "mix-time",
                "Share of every domain over steps",
            )
    left, right = st.columns([2, 3], gap="small")
    with left:
        _epochs(view)
    with right:
        line_card(
            view,
            "tokens/js",
            "Drift of token ids",
            "1",
            order=domains(view),
            log=False,
            height=190,
            note="Jensen-Shannon distance to the first windows, sampling noise subtracted: 0 to 1",
        )
    _moved(view)
    left, right = st.columns(2, gap="small")
    with left:
        line_card(view, "tokens/bytes_per_token", "Bytes per token", "bytes/token", order=domains(view), log=False)
    with right:
        _scripts(view)
    left, right = st.columns(2, gap="small")
    with left:
        line_card(view, "data/padding_share", "Padding", "share of positions", percent=True, log=False, points=150)
    with right:
        line_card(
            view, "data/documents_per_sequence", "Packed documents", "documents per sequence", log=False, points=150
        )


def _mix(view: View) -> None:
    span = reads.newest_steps(view.path, "data/domain_tokens", RECENT_ROWS, view.choice.last)
    note = f"bars: tokens of {text.steps(*span)}; tick: plan" if span else ""
    with card("Mix against plan", note):
        if missing(view, "data/domain_tokens", "data mix"):
            return
        counts, (names,), _, _ = reads.added_up(view.path, "data/domain_tokens", span)
        actual = reads.shares(counts)
        planned = [view.run.card.domains.get(name) for name in names]
        data = pd.DataFrame(
            {
                "label": names,
                "share": actual,
                "planned": pd.array(planned, dtype="Float64").to_numpy("float64", na_value=float("nan")),
            }
        )
        data = data[(data["share"] > 0) | data["planned"].notna()]
        show(
            plots.shares(data, order=list(data["label"]), palette=domains(view), height=218),
            "mix",
            "Share of every domain against its plan",
        )


def _epochs(view: View) -> None:
    with card("Epochs", "passes over each domain's unique tokens"):
        if missing(view, "data/epochs", "epochs"):
            return
        data = reads.newest(view.path, "data/epochs", 1, view.choice.last)
        if data.empty:
            st.caption(
                ":material/help: The run card does not say how many unique tokens each domain holds. Pass "
                "`domain_tokens` to `tv.attach`."
            )
            return
        show(
            plots.bars(data, order=list(data["label"]), palette=domains(view), value_title="epochs", height=190),
            "epochs",
            "Epochs of every domain",
        )


def _moved(view: View) -> None:
    with card("What moved", f"the newest {RECENT_WINDOWS} windows of token ids against the first {REFERENCE_WINDOWS}"):
        if missing(view, "tokens/counts", "token ids"):
            return
        before = reads.oldest_steps(view.path, "tokens/counts", REFERENCE_WINDOWS)
        after = reads.newest_steps(view.path, "tokens/counts", RECENT_WINDOWS, view.choice.last)
        if before is None or after is None or after[0] <= before[1]:
            st.caption(":material/hourglass_top: The run is too short to compare its newest windows with its first.")
            return
        first, (names, tokens), _, _ = reads.added_up(view.path, "tokens/counts", before)
        now = reads.added_up(view.path, "tokens/counts", after)[0]
        seen = [name for i, name in enumerate(names) if first[i].sum() > 0 and now[i].sum() > 0]
        chosen = st.selectbox("Token ids of", ["all domains", *seen], key="moved", bind="query-params", width=240)
        pair = (first.sum(axis=0), now.sum(axis=0))
        if chosen in seen:
            pair = (first[names.index(chosen)], now[names.index(chosen)])
        left, right = st.columns([2, 3], gap="small")
        with left:
            _movers(movers(first.sum(axis=1), now.sum(axis=1), names, top=8), "domain", "movers-domain")
        with right:
            _movers(movers(*pair, tokens, top=8), "token id", "movers-token")


def _movers(found: tuple[Mover, ...], what: str, key: str) -> None:
    if not found:
        st.caption("Nothing moved.")
        return
    rows = pd.DataFrame(
        {
            what: [text.plain(m.label, 60) for m in found],
            "before": [m.before for m in found],
            "now": [m.now for m in found],
            "part": [m.part for m in found],
        }
    )
    form = {
        "before": st.column_config.NumberColumn("before", format="percent"),
        "now": st.column_config.NumberColumn("now", format="percent"),
        "part": st.column_config.ProgressColumn(
            "part of the divergence", format="percent", min_value=0.0, max_value=1.0
        ),
    }
    st.dataframe(
        rows,
        hide_index=True,
        column_config=form,
        key=key,
        height="content",
        row_height=28,
        alt=f"Every {what} with its share before and now",
    )


def _scripts(view: View) -> None:
    with card("Scripts", "share of UTF-8 bytes per Unicode script, newest window"):
        if missing(view, "tokens/script_share", "shares of scripts"):
            return
        span = reads.newest_steps(view.path, "tokens/script_bytes", RECENT_WINDOWS, view.choice.last)
        counts, (names, scripts), _, _ = reads.added_up(view.path, "tokens/script_bytes", span)
        seen = [i for i, row in enumerate(counts) if row.sum() > 0]
        shares = reads.shares(counts[seen])
        visible = [j for j in range(len(scripts)) if shares[:, j].max() >= LEAST_SHOWN_SHARE]
        values, scripts = shares[:, visible], tuple(scripts[j] for j in visible)
        rows = [names[i] for i in seen]
        data = pd.DataFrame(
            {
                "row": [row for row in rows for _ in scripts],
                "column": list(scripts) * len(rows),
                "value": values.ravel(),
            }
        )
        show(
            plots.grid(
                data,
                dark=dark(),
                rows=rows,
                columns=scripts,
                row_title="domain",
                column_title="script",
                value_title="share",
                format=".1%",
                height=180,
            ),
            "scripts",
            "Share of bytes per domain and script",
        )


page(body)
