"""The item browser of the contamination page: a filtered table, and one item beside its documents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from checks.contamination.records import VERDICTS
from checks.contamination.report.pairs import KINDS
from checks.contamination.report.text import Html, figure, join, marked, plural, tag
from dashboard.charts import text
from dashboard.contamination import audits
from dashboard.contamination.audits import Audit

MOST_ROWS = 2_000
"""Items that are sent to the browser at once."""
SHOWN = 12_000
"""Characters of an item or a document that are shown, around the first shared span."""
_COLORS = ("red", "orange", "green", "gray")
_STYLE = Html(
    "<style>"
    ".tv-side pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.6;font-size:12.5px;"
    "unicode-bidi:isolate;background:none;border:0;padding:0;color:inherit}"
    ".tv-side{max-height:430px;overflow:auto}"
    ".tv-side mark{background:rgba(235,165,40,.38);color:inherit;border-radius:2px;padding:1px 0}"
    ".tv-side .ctl{font-size:10px;border:1px solid currentColor;border-radius:3px;padding:0 2px;margin:0 1px;"
    "opacity:.75;unicode-bidi:isolate}"
    ".tv-side .cut{font-style:italic;font-size:11px;opacity:.7;padding:0 4px}"
    "</style>"
)


def browser(audit: Audit) -> None:
    """Draw it."""
    if audit.items.empty:
        st.caption("The benchmarks hold no item.")
        return
    shown = _filtered(audit)
    asked = st.query_params.get("item", "")
    number = audits.number_of(audit, asked)
    if asked and number is None:
        st.warning(f"The item **{text.md(asked, 120)}** is not in this audit.", icon=":material/link_off:")
    if len(shown):
        number = _table(audit, shown, number)
    else:
        st.caption(":material/filter_alt_off: No item passes these filters. Widen them, or clear the search.")
    if number is not None:
        if number not in shown:
            st.caption(":material/filter_alt: The item below does not pass the filters above.")
        _pair(audit, number)


def _filtered(audit: Audit) -> NDArray[np.int64]:
    """Numbers of the items that pass the filters, the worst first."""
    items = audit.items
    found = [verdict for verdict in VERDICTS if (items["verdict"] == verdict).any()]
    counts = items["verdict"].value_counts()
    verdicts = st.pills(
        "Verdict",
        found,
        selection_mode="multi",
        default=[verdict for verdict in VERDICTS[:2] if verdict in found],
        format_func=lambda verdict: f"{verdict} {counts[verdict]:,}",
        key="audit-verdict",
        help="None chosen shows all.",
    )
    columns = st.columns([2, 2, 2, 3], gap="small")
    keep = items["verdict"].isin(verdicts or found)
    choices = {"Benchmark": "benchmark", "Evidence": "evidence_kind", "Detector": "detector"}
    for column, (label, name) in zip(columns, choices.items(), strict=False):
        options = sorted(str(value) for value in items[name].dropna().unique() if value)
        chosen = column.selectbox(
            label, options, index=None, placeholder="any", format_func=lambda v: text.plain(v, 60), key=f"audit-{name}"
        )
        if chosen is not None:
            keep &= items[name] == chosen
    words = columns[3].text_input(
        "Search", key="search", placeholder="words of an item, an id, a document", bind="query-params", max_chars=200
    )
    mask = keep.to_numpy()
    if words and words.strip():
        mask = mask & audits.items_with(audit, words)
    order = audits.ordered(items)
    return np.asarray(order[mask[order]])


def _table(audit: Audit, shown: NDArray[np.int64], number: int | None) -> int:
    """The table of items, cut to `MOST_ROWS`; the number of the item that is selected."""
    cut = shown[:MOST_ROWS]
    rows = audit.items.iloc[cut]
    several = audit.items["benchmark"].nunique() > 1
    data = pd.DataFrame(
        {
            "Item": [text.plain(value, 60) for value in rows["item_id"]],
            **({"Benchmark": [text.plain(value, 60) for value in rows["benchmark"]]} if several else {}),
            "Verdict": [[value] for value in rows["verdict"]],
            "Evidence": rows["evidence_kind"].map(lambda value: text.plain(value or "", 40)).to_list(),
            "Containment": rows["score"].astype(float).to_list(),
            "Longest run": rows["longest"].to_list(),
            "Documents": rows["documents"].to_list(),
            "Detector": rows["detector"].map(lambda value: text.plain(value or "", 20)).to_list(),
            "Best document": rows["best_document"].map(_tail).to_list(),
        }
    )
    places = [0] if number is None else np.flatnonzero(cut == number).tolist()
    # A table of other rows is another table: a selection by position would point at another item.
    key = hashlib.sha256(cut.tobytes() + audit.path.encode()).hexdigest()[:12]
    state = f"audit-items-{key}"
    st.dataframe(
        data,
        hide_index=True,
        column_config=_form(),
        key=state,
        height=min(36 + 28 * len(data), 288),
        row_height=28,
        on_select=partial(_select, audit, cut, state),
        selection_mode="single-row",
        selection_default={"selection": {"rows": places[:1]}},
        alt="Items with verdict, evidence and best document; select one to see it beside its documents",
    )
    more = f"The first {MOST_ROWS:,} of {len(shown):,} items; filter to see others. " if len(shown) > MOST_ROWS else ""
    st.caption(f"{more}{plural(len(shown), 'item')}. Select a row to see the item beside its documents.")
    return int(cut[0]) if number is None else number


def _select(audit: Audit, cut: NDArray[np.int64], state: str) -> None:
    """A click puts the item into the address, from where it is shown."""
    picked = st.session_state[state]["selection"]["rows"]
    if picked and picked[0] < len(cut):
        st.query_params["item"] = audits.key_of(audit, int(cut[picked[0]]))


def _form() -> dict[str, Any]:
    column = st.column_config
    return {
        "Verdict": column.MultiselectColumn(options=VERDICTS, color=_COLORS, width=120),
        "Evidence": column.TextColumn(width=150, help="What the documents share with the item."),
        "Containment": column.ProgressColumn(
            format="%.2f", min_value=0.0, max_value=1.0, width=120,
            help="Share of the item's 5-word runs in the best window, rare ones weighing more: 0 to 1.",
        ),
        "Longest run": column.NumberColumn("Longest run, words", width=130),
        "Documents": column.NumberColumn(format="localized", width=90, help="Documents that are evidence."),
        "Detector": column.TextColumn(width=90),
    }  # fmt: skip


def _tail(name: object) -> str:
    """The end of a document's name, which tells documents apart."""
    shown = text.plain(name, 10_000) if isinstance(name, str) else ""
    return shown if len(shown) <= 60 else "…" + shown[-59:]


def _pair(audit: Audit, number: int) -> None:
    item = audit.items.iloc[number]
    found = audits.documents(audit, number)
    with st.container(border=True, gap="xsmall", key="audit-pair"):
        color = dict(zip(VERDICTS, _COLORS, strict=True)).get(item["verdict"], "gray")
        kind = str(item["evidence_kind"] or "")
        about = f"{kind}: {KINDS[kind]}" if kind in KINDS else kind or "no evidence"
        st.markdown(
            f"**{text.md(item['benchmark'], 60)} {text.md(item['item_id'], 120)}** "
            f":{color}-badge[{text.md(item['verdict'], 20)}] {text.md(about, 120)}"
        )
        st.caption(f"Rule: {text.md(str(item['rule'] or '–').rstrip('.'), 600)}.")
        match = _chosen(found, number)
        left, right = st.columns(2, gap="medium")
        with left:
            st.caption(f"**Benchmark item**, {plural(int(item['words'] or 0), 'word')} in the question")
            _side(audits.item_text(audit, number), match["item_spans"] if match else None)
        with right:
            _document(match, item)


def _chosen(found: Sequence[Mapping[str, Any]], number: int) -> Mapping[str, Any] | None:
    """The document to show, of those stored for the item."""
    if not found:
        return None
    label = f"Document, {len(found):,} stored, the best first"
    position = st.selectbox(
        label, range(len(found)), format_func=lambda i: _title(i, found[i]), key=f"audit-rank-{number}"
    )
    return found[position or 0]


def _title(position: int, match: Mapping[str, Any]) -> str:
    strength = (
        f"similarity {figure(match['similarity'], 2)}"
        if match["detector"] != "exact" and match["similarity"] is not None
        else f"containment {figure(match['score'], 2)}"
    )
    level = "below the cuts" if match["level"] == "below" else str(match["level"])
    facts = [text.plain(level, 20), text.plain(match["detector"], 20), strength, _tail(match["document"])]
    return " · ".join([f"{position + 1}", *facts])


def _side(value: str, spans: Sequence[Sequence[int]] | None) -> None:
    st.html(join([_STYLE, tag("div", tag("pre", marked(value, spans, SHOWN), dir="auto"), class_="tv-side")]))


def _document(match: Mapping[str, Any] | None, item: pd.Series) -> None:
    if match is None:
        st.markdown("**No document is stored for this item.** :gray[No match found in what was searched.]")
        if isinstance(item["nearest_document"], str):
            st.caption(
                f"Nearest in meaning: {text.md(item['nearest_document'], 200)}, similarity "
                f"{figure(item['nearest_similarity'], 2)}, empirical p {figure(item['nearest_p'], 3)}."
            )
        return
    st.caption("**Document**, shared words marked")
    if match["text"]:
        _side(match["text"], match["spans"])
    else:
        st.markdown("Its text is not stored: open the shard at the place below.")
    facts = [str(match["document"])]
    if match["document_id"]:
        facts.append(f"id {match['document_id']}")
    if (match["byte_offset"] or -1) >= 0:
        facts.append(f"record at byte {match['byte_offset']:,} of the shard")
    if match["start"] is not None:
        facts.append(f"shown from byte {match['start']:,} to {match['end']:,} of the document")
    if match["longest"]:
        facts.append(f"longest common run {plural(match['longest'], 'word')}")
    if match["p"] is not None:
        facts.append(f"empirical p {match['p']:.4f}")
    st.caption(" · ".join(text.md(fact, 300) for fact in facts))
