"""Data: the mix against its plan, epochs, drift of the token ids and what moved."""

import pandas as pd
import streamlit as st

from checks.data.movers import Mover, movers
from dashboard.charts import plots, text
from dashboard.page import card, dark, domains, line_card, missing, page, show, table
from dashboard.server import reads
from dashboard.sidebar import View
from trainvitals.formulas import REFERENCE_WINDOWS

ICON, PLACE = ":material/dataset:", 5

RECENT_ROWS = 200
RECENT_WINDOWS = 5
MOST_DOMAINS = 10
"""Lines and bars, one per colour: with more domains the largest are drawn, and the others added up."""
LEAST_SHOWN_SHARE = 0.001
"""Scripts that no domain has more of are left out of the table."""


def body(view: View) -> None:
    """Draw the page."""
    shown = _chosen(view)
    left, right = st.columns([2, 3], gap="small")
    with left:
        _mix(view, shown)
    with right, card("Mix over time", "share of input tokens per domain"):
        if not missing(view, "data/domain_share", "data mix"):
            data = table(view, "data/domain_share", points=200, overlay=False)
            data = _added(data, shown, _rest(view, shown))
            show(
                plots.stacked(data, order=_with_rest(view, shown), steps=view.axis, height=218),
                "mix-time",
                "Share of every domain over steps",
            )
    left, right = st.columns([2, 3], gap="small")
    with left:
        _epochs(view, shown)
    with right:
        line_card(
            view,
            "tokens/js",
            "Drift of token ids",
            "1",
            order=shown,
            only=shown,
            log=False,
            height=190,
            note="Jensen-Shannon distance to the first windows, sampling noise subtracted: 0 to 1",
            empty="Drift is a distance between windows of token ids, and there is only one so far. Windows are as "
            "long as the cadence of the `tokens` collector; it can be set in `tv.attach`.",
        )
    _moved(view)
    left, right = st.columns(2, gap="small")
    with left:
        line_card(
            view, "tokens/bytes_per_token", "Bytes per token", "bytes/token", order=shown, only=shown, log=False
        )
    with right:
        _scripts(view, shown)
    left, right = st.columns(2, gap="small")
    with left:
        line_card(view, "data/padding_share", "Padding", "share of positions", percent=True, log=False, points=150)
    with right:
        line_card(
            view, "data/documents_per_sequence", "Packed documents", "documents per sequence", log=False, points=150
        )


def _chosen(view: View) -> list[str]:
    """The domains to draw: all, or of many those that the viewer picks, at first the largest by tokens."""
    names = domains(view)
    if len(names) <= MOST_DOMAINS:
        return names
    ranked = names
    if reads.has(view.path, "data/domain_tokens"):
        span = reads.newest_steps(view.path, "data/domain_tokens", RECENT_ROWS, view.choice.last)
        counts, (found,), _, _ = reads.added_up(view.path, "data/domain_tokens", span)
        tokens = dict(zip(found, counts, strict=True))
        ranked = sorted(names, key=lambda name: -tokens.get(name, 0.0))
    largest = ranked[: MOST_DOMAINS - 1]
    picked = st.multiselect(
        f"Domains, the largest of {len(names):,} first",
        ranked,
        default=largest,
        format_func=text.plain,
        max_selections=2 * MOST_DOMAINS,
        key="domains",
        placeholder=f"The {len(largest)} largest",
    )
    chosen = set(picked or largest)
    return [name for name in ranked if name in chosen]


def _rest(view: View, shown: list[str]) -> str:
    """The label under which the domains that are not drawn are added up; "" if all are."""
    more = len(domains(view)) - len(shown)
    return f"{more:,} more" if more > 0 else ""


def _with_rest(view: View, shown: list[str]) -> list[str]:
    return [*shown, *filter(None, [_rest(view, shown)])]


def _added(data: pd.DataFrame, shown: list[str], rest: str) -> pd.DataFrame:
    """The table with the rows of all labels that are not shown added up under one."""
    if not rest:
        return data
    keep = data["label"].isin(shown)
    others = data[~keep].groupby(["step", "last_step"], as_index=False)["value"].sum().assign(label=rest)
    return pd.concat([data[keep], others], ignore_index=True)


def _mix(view: View, shown: list[str]) -> None:
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
        if rest := _rest(view, shown):
            keep = data["label"].isin(shown)
            others = data.loc[~keep, ["share", "planned"]].sum(min_count=1)
            data = data[keep].set_index("label").loc[[name for name in shown if name in set(data["label"])]]
            data = data.reset_index()
            data.loc[len(data)] = [rest, others["share"], others["planned"]]
        show(
            plots.shares(
                data,
                order=list(data["label"]),
                palette=_with_rest(view, shown),
                height=max(218, 22 * len(data)),
            ),
            "mix",
            "Share of every domain against its plan",
        )


def _epochs(view: View, shown: list[str]) -> None:
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
        data = data[data["label"].isin(shown)]
        show(
            plots.bars(data, order=list(data["label"]), palette=shown, value_title="epochs", height=190),
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
        options = ["all domains", *seen]
        chosen = st.selectbox(
            "Token ids of", options, format_func=text.plain, key="moved", bind="query-params", width=240
        )
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


def _scripts(view: View, shown: list[str]) -> None:
    with card("Scripts", "share of UTF-8 bytes per Unicode script, newest window"):
        if missing(view, "tokens/script_share", "shares of scripts"):
            return
        span = reads.newest_steps(view.path, "tokens/script_bytes", RECENT_WINDOWS, view.choice.last)
        counts, (names, scripts), _, _ = reads.added_up(view.path, "tokens/script_bytes", span)
        seen = [i for i, row in enumerate(counts) if row.sum() > 0 and names[i] in set(shown)]
        if not seen:
            st.caption("No bytes of these domains in the newest window.")
            return
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


if __name__ == "__main__":
    page(body)
