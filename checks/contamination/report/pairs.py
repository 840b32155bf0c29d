"""Items beside the documents that speak against them, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from checks.contamination.report.text import Html, figure, join, marked, plural, prose, tag, text

PER_BENCHMARK = 50
"""Contaminated items of each benchmark that are shown beside their document."""
PER_KIND = 10
"""Suspects of each kind of evidence, over all benchmarks."""
PER_LIST = 30
"""Ids of untestable items per benchmark."""
OPEN = 2
"""Items of each benchmark that are shown unfolded."""
NAME = 60

KINDS = {
    "question and answer": "question and answer stand in one document",
    "question only": "the question stands there, its answer does not",
    "answer only": "the answer stands there, the question does not",
    "passage only": "only the passage: a shared source, not yet a leak",
    "edited numbers": "the same wording with other numbers",
    "edited copy": "words added, dropped or moved",
    "template": "what is shared recurs in many documents or items",
    "similar meaning": "other words, near in meaning; found by the semantic detector alone",
}


Best = Mapping[tuple[str, str], Mapping[str, Any]]
"""(benchmark, item_id) -> the row of matches.parquet that is shown."""


def best_matches(folder: Path, items: pd.DataFrame) -> Best:
    """The best document of each item that is shown, without the rest of matches.parquet in memory."""
    dirty, suspect = (_strongest_first(items, verdict) for verdict in ("contaminated", "suspect"))
    shown = pd.concat([dirty.groupby("benchmark").head(PER_BENCHMARK), suspect.groupby("evidence_kind").head(PER_KIND)])
    ids = pa.array(shown["item_id"].unique().tolist(), pa.string())  # typed: there may be none
    wanted = pc.field("item_id").isin(ids) & (pc.field("rank") <= 1)
    rows = pq.read_table(folder / "matches.parquet", filters=wanted).to_pylist()
    chosen = {(i.benchmark, i.item_id): (i.best_document, i.detector) for i in shown.itertuples(index=False)}
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["benchmark"], row["item_id"]
        if key not in chosen:
            continue
        fit = (row["document"] == chosen[key][0], row["detector"] == chosen[key][1], row["score"] or 0.0)
        if key not in best or fit > best[key]["fit"]:
            best[key] = {**row, "fit": fit}
    return best


_FILTER = (
    '<input type="search" class="filter" aria-label="Filter the items" '
    'placeholder="Filter by any word: an id, a kind of evidence, a document">'
)


def contaminated(items: pd.DataFrame, best: Best) -> Html:
    """The section of contaminated items: the clearest of each benchmark, side by side."""
    dirty = _strongest_first(items, "contaminated")
    if dirty.empty:
        return tag("p", "No item is contaminated: no match found in what was searched.")
    parts: list[Html] = [tag("p", Html(_FILTER))]
    for name in dict.fromkeys(items["benchmark"]):
        own = dirty[dirty["benchmark"] == name]
        if own.empty:
            continue
        shown = own.head(PER_BENCHMARK)
        more = (
            f" The {PER_BENCHMARK} with the strongest evidence are shown, all are in items.parquet and matches.parquet."
            if len(own) > len(shown)
            else ""
        )
        count = plural(len(own), "contaminated item")
        parts.append(tag("h3", text(str(name), NAME), tag("small", f"{count}.{more}")))
        parts += _pairs(shown, best, OPEN)
    return join(parts)


def suspects(items: pd.DataFrame, best: Best) -> Html:
    """The section of suspects, by kind of evidence."""
    found = _strongest_first(items, "suspect")
    if found.empty:
        return tag("p", "No item is suspect.")
    parts: list[Html] = []
    for kind, own in found.groupby("evidence_kind", sort=True):
        shown = own.head(PER_KIND)
        where = ", ".join(f"{n:,} in {name}" for name, n in own["benchmark"].value_counts(sort=False).items() if n)
        more = f" The {len(shown)} with the strongest evidence are shown." if len(own) > len(shown) else ""
        parts.append(
            tag(
                "h3",
                f"{str(kind).capitalize() or 'Other'}: {KINDS.get(str(kind), '')}",
                tag("small", f"{plural(len(own), 'item')}: {where}.{more}"),
            )
        )
        parts += _pairs(shown, best, 0)
    return join(parts)


def untestable(items: pd.DataFrame) -> Html:
    """The section of items that no rule can judge."""
    found = items[items["verdict"] == "untestable"]
    if found.empty:
        return tag("p", "Every item could be tested.")
    parts: list[Html] = []
    for name, own in found.groupby("benchmark", sort=False):
        rules = "; ".join(f"{n:,}: {str(rule)[:120]}" for rule, n in own["rule"].value_counts().head(5).items())
        why = f"{plural(len(own), 'item')}. Why: {rules}."
        parts.append(tag("h3", text(str(name), NAME), tag("small", prose(why))))
        ids: list[object] = [tag("code", text(i, NAME)) for i in own["item_id"].head(PER_LIST)]
        if len(own) > PER_LIST:
            ids.append(f"and {len(own) - PER_LIST:,} more in items.parquet")
        parts.append(tag("p", *ids, class_="ids"))
    return join(parts)


def _strongest_first(items: pd.DataFrame, verdict: str) -> pd.DataFrame:
    return items[items["verdict"] == verdict].sort_values(["score", "longest"], ascending=False, kind="stable")


def _pairs(items: pd.DataFrame, best: Best, opened: int) -> Sequence[Html]:
    return [
        _pair(item, best.get((item.benchmark, item.item_id)), number < opened)
        for number, item in enumerate(items.itertuples(index=False))
    ]


def _pair(item: Any, match: Mapping[str, Any] | None, is_open: bool) -> Html:
    head = tag(
        "summary",
        tag("span", text(item.benchmark, NAME), " ", tag("b", text(item.item_id, NAME))),
        tag("span", item.evidence_kind or "no evidence stored", class_=f"kind {item.verdict}"),
        tag("span", f"{item.detector or 'no'} detector", class_="quiet"),
        tag("span", f"containment {figure(float(item.score or 0), 2)}", class_="quiet"),
        tag("span", f"longest run {plural(int(item.longest or 0), 'word')}", class_="quiet"),
        tag("span", plural(int(item.documents or 0), "document"), class_="quiet"),
    )
    left = tag(
        "div",
        tag("h4", "Benchmark item"),
        tag("pre", marked(item.text or "", match["item_spans"] if match else None), dir="auto"),
        class_="side",
    )
    body = tag("div", left, _document(match), class_="pair")
    return tag(
        "details",
        head,
        tag("p", "Rule: ", item.rule or "", class_="rule"),
        body,
        class_="item",
        open="" if is_open else None,
    )


def _document(match: Mapping[str, Any] | None) -> Html:
    if match is None:
        return tag("div", tag("h4", "Document"), tag("p", "No document is stored for this item."), class_="side")
    place = [f"bytes {match['start']:,} to {match['end']:,} of the document"] if match["start"] is not None else []
    if match["byte_offset"] is not None and match["byte_offset"] >= 0:
        place.insert(0, f"record at byte {match['byte_offset']:,} of the shard")
    if match["similarity"] is not None:
        place.append(f"similarity {figure(match['similarity'], 2)}")
    if match["p"] is not None:
        place.append(f"empirical p {match['p']:.4f}")
    names = [tag("code", match["document"])]
    if match["document_id"]:
        names.append(tag("code", match["document_id"]))
    shown = (
        tag("pre", marked(match["text"], match["spans"]), dir="auto")
        if match["text"]
        else tag("p", "Its text is not stored: open the shard at this place.")
    )
    return tag(
        "div",
        tag("h4", "Best document"),
        shown,
        tag("p", *names, tag("span", "; ".join(place)), class_="place"),
        class_="side",
    )
