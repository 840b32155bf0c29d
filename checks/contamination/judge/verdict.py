"""From the merged pairs of a scan to the two tables of an audit: a verdict per item, and every match beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from checks.contamination.detect.index import NgramIndex
from checks.contamination.judge.evidence import CHANCE_WORDS, Evidence, gather
from checks.contamination.judge.rules import Judged, Row, Rules, judge
from checks.contamination.judge.spans import item_text, shared_spans
from checks.contamination.judge.turns import Vocabulary
from checks.contamination.partial import Merged, records_before
from checks.contamination.records import DETECTORS, ITEMS, MATCHES, Item, Slice

PValue = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Empirical p of similarities (float64[k]) between items (positions, int64[k]) and their neighbours."""

_LEVELS = {"contaminated": 2, "suspect": 1, "below": 0}
_KINDS = ("question and answer", "question only", "edited numbers", "edited copy", "answer only", "passage only",
          "template", "similar meaning", "")
"""Which kind speaks for an item, where several have the same level."""


def judge_items(
    items: Sequence[Item],
    index: NgramIndex,
    merged: Merged,
    pieces: Sequence[Slice],
    *,
    p_value: PValue | None = None,
    rules: Rules | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Judge every item.

    Args:
        items: All items, in the index's order.
        index: The index they were scanned with.
        merged: What the scan found.
        pieces: The slices of the scan: they name the shards.
        p_value: Of the semantic detector's similarities; without it, neighbours in meaning are never suspect.
        rules: The thresholds.

    Returns:
        ITEMS, in the order of `items`, and MATCHES.
    """
    rules = rules or Rules()
    pairs = merged.pairs
    columns = _columns(pairs, p_value)
    known = Vocabulary.of(index.word_hashes)
    places = _Places.of(merged, pieces)
    rows: list[tuple[int, dict[str, Any]]] = []
    matches: list[dict[str, Any]] = []
    for evidence in gather(items, index, pairs, merged.counts, merged.documents):
        item = items[evidence.item.position]
        at = range(evidence.pairs.rows.start, evidence.pairs.rows.stop)
        judged = judge(evidence, item, [_row(columns, k) for k in at], rules, known)
        order = sorted(range(len(at)), key=lambda k: _rank(judged[k], columns, at[k]))
        rows.append((evidence.item.position, _item_row(evidence, item, judged, order, columns, places, rules)))
        matches += _match_rows(evidence, item, judged, order, columns, places)
    rows.sort(key=lambda row: row[0])
    matches.sort(key=lambda row: (row["benchmark"], row["item_id"], row["detector"], row["rank"]))
    return (pa.Table.from_pylist([row for _, row in rows], schema=ITEMS), pa.Table.from_pylist(matches, schema=MATCHES))


Columns = Mapping[str, Any]


def _columns(pairs: pa.Table, p_value: PValue | None) -> Columns:
    """PAIRS without the bits, as arrays and lists, and `p`."""
    columns: dict[str, Any] = {}
    for name in ("item", "slice", "record", "byte_offset", "start", "end", "longest", "similarity"):
        columns[name] = pairs[name].to_pandas().to_numpy()
    for name in ("document_id", "detector", "text"):
        columns[name] = pairs[name].to_pylist()
    semantic = np.array([detector == "semantic" for detector in columns["detector"]], bool)
    columns["p"] = np.full(pairs.num_rows, np.nan)
    if p_value is not None and semantic.any():
        similarity = columns["similarity"][semantic].astype(np.float64)
        columns["p"][semantic] = p_value(columns["item"][semantic].astype(np.int64), similarity)
    return columns


def _row(columns: Columns, k: int) -> Row:
    return Row(columns["detector"][k], int(columns["longest"][k]), float(columns["similarity"][k]),
               float(columns["p"][k]), columns["text"][k], (int(columns["slice"][k]), int(columns["record"][k])))


def _rank(judged: Judged, columns: Columns, k: int) -> tuple[Any, ...]:
    """Best first: level, kind, containment, similarity; then the order of the corpus."""
    detector = DETECTORS.index(columns["detector"][k])
    similarity = columns["similarity"][k]
    return (-_LEVELS[judged.level], _KINDS.index(judged.kind), -judged.score, detector,
            0.0 if np.isnan(similarity) else -float(similarity), -int(columns["longest"][k]),
            int(columns["slice"][k]), int(columns["record"][k]), int(columns["start"][k]))


@dataclass(frozen=True, slots=True)
class _Places:
    """Names documents."""

    shards: Mapping[int, str]
    before: pd.Series

    @classmethod
    def of(cls, merged: Merged, pieces: Sequence[Slice]) -> _Places:
        shards = {piece.index: piece.shard for piece in pieces}
        return cls(shards, records_before(merged.tallies, shards))

    def record(self, columns: Columns, k: int) -> int:
        """Within the shard; -1 where a slice before it was lost."""
        before = int(self.before[columns["slice"][k]])
        return before + int(columns["record"][k]) if before >= 0 else -1

    def name(self, columns: Columns, k: int) -> str:
        shard, record = self.shards[columns["slice"][k]], self.record(columns, k)
        return f"{shard}#{record}" if record >= 0 else f"{shard}@{columns['byte_offset'][k]}"


def _item_row(evidence: Evidence, item: Item, judged: Sequence[Judged], order: Sequence[int], columns: Columns,
              places: _Places, rules: Rules) -> dict[str, Any]:
    first = evidence.pairs.rows.start
    best = judged[order[0]] if order and judged[order[0]].level != "below" else None
    words = evidence.item.length
    testable = words >= 3 and evidence.testable >= rules.needed(words)
    verdict = best.level if best else "clean" if testable else "untestable"
    evident = [k for k in order if best and judged[k].level == best.level]
    nearest = [k for k in range(first, evidence.pairs.rows.stop) if columns["detector"][k] == "semantic"]
    nearest.sort(key=lambda k: (-columns["similarity"][k], columns["slice"][k], columns["record"][k]))
    return {
        "benchmark": item.benchmark,
        "item_id": item.item_id,
        "verdict": verdict,
        "evidence_kind": best.kind if best else "",
        "rule": best.rule if best else _silence(evidence, judged, testable),
        "score": max((j.score for j in judged), default=0.0),
        "best_document": places.name(columns, first + order[0]) if best else None,
        "detector": columns["detector"][first + order[0]] if best else None,
        "documents": len({(columns["slice"][first + k], columns["record"][first + k]) for k in evident}),
        "longest": max((int(columns["longest"][first + k]) for k in order), default=0),
        "words": words,
        **{f"any{n}": hit for n, hit in evidence.hits.items()},
        "covered8": evidence.covered8,
        "nearest_document": places.name(columns, nearest[0]) if nearest else None,
        "nearest_similarity": _number(columns["similarity"][nearest[0]]) if nearest else None,
        "nearest_p": _number(columns["p"][nearest[0]]) if nearest else None,
        "judge": "",
        "text": item_text(item),
    }


def _silence(evidence: Evidence, judged: Sequence[Judged], testable: bool) -> str:
    """Why an item without evidence has the verdict it has."""
    words = evidence.item.length
    if testable:
        best = max((j.score for j in judged), default=0.0)
        if words <= CHANCE_WORDS:
            return f"Nowhere in the corpus do its {words} words stand together."
        return f"No window holds more than {best:.2f} of its weighted {evidence.item.n}-grams in a way that tells."
    if words < 3:
        return f"What it asks has {words} words; at least 3 are needed to tell it from chance."
    return f"Only {evidence.testable} of its n-grams are not common in the benchmark or the corpus."


def _match_rows(evidence: Evidence, item: Item, judged: Sequence[Judged], order: Sequence[int], columns: Columns,
                places: _Places) -> list[dict[str, Any]]:
    first = evidence.pairs.rows.start
    ranks = dict.fromkeys(DETECTORS, 0)
    rows = []
    for j in order:
        k = first + j
        detector, text = columns["detector"][k], columns["text"][k]
        ranks[detector] += 1
        spans, item_spans = shared_spans(item, evidence.item.words, text) if text else ([], [])
        rows.append({
            "benchmark": item.benchmark,
            "item_id": item.item_id,
            "document": places.name(columns, k),
            "shard": places.shards[columns["slice"][k]],
            "record": places.record(columns, k),
            **{name: int(columns[name][k]) for name in ("byte_offset", "start", "end", "longest")},
            "document_id": columns["document_id"][k],
            "detector": detector,
            "rank": ranks[detector],
            "level": judged[j].level,
            "evidence_kind": judged[j].kind,
            "score": judged[j].score,
            "similarity": _number(columns["similarity"][k]),
            "p": _number(columns["p"][k]),
            "text": text,
            "spans": spans,
            "item_spans": item_spans,
        })
    return rows


def _number(value: float) -> float | None:
    """NaN is null in the tables."""
    return None if np.isnan(value) else float(value)
