"""What to do next, as files: the cleaned benchmarks, the items to replace, the documents to drop.

    clean/<benchmark>.jsonl   original rows of every item whose verdict is not contaminated: suspect and untestable
                              items stay, because nothing is proven against them
    replace.csv               the contaminated items, why, and the document that shows it
    drop_documents.csv        every listed document that is evidence for a contaminated item

What a spreadsheet would run as a formula has an apostrophe before it: see `trainvitals.spreadsheet`, which also takes
it away again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from checks.contamination.records import Benchmark
from trainvitals.spreadsheet import write_csv

REPLACE = (
    "benchmark",
    "item_id",
    "evidence_kind",
    "rule",
    "score",
    "longest",
    "documents",
    "best_document",
    "document_id",
    "byte_offset",
)
DROP = ("shard", "record", "byte_offset", "document_id", "n_items", "items")


@dataclass(frozen=True, slots=True)
class Exported:
    """The files written, relative to the audit folder, and what they leave out."""

    files: tuple[str, ...]
    notes: tuple[str, ...]


def write_exports(
    folder: Path, benchmarks: Sequence[Benchmark], items: pd.DataFrame, matches: pd.DataFrame
) -> Exported:
    """Write the exports into the audit folder.

    Args:
        folder: the audit folder; its `clean` folder is made anew file by file.
        benchmarks: as read; the cleaned rows come from these.
        items: the columns of items.parquet, each benchmark in its own order.
        matches: the columns of matches.parquet but for text and spans.
    """
    files = [_write_clean(folder, b, name, items) for b, name in zip(benchmarks, _names(benchmarks), strict=True)]
    dirty = items[items["verdict"] == "contaminated"]
    proof = matches[matches["level"] == "contaminated"]
    _write_csv(folder / "replace.csv", REPLACE, _replace_rows(dirty, proof))
    _write_csv(folder / "drop_documents.csv", DROP, _drop_rows(proof))
    listed = proof.groupby(["benchmark", "item_id"])["document"].nunique().rename("listed")
    counted = dirty.merge(listed, left_on=["benchmark", "item_id"], right_index=True, how="left")
    short = int((counted["documents"] > counted["listed"].fillna(0)).sum())
    notes = (
        f"{short:,} items have more documents than matches.parquet lists: drop_documents.csv holds the best of them. "
        "Drop them and audit again.",
    )
    return Exported((*files, "replace.csv", "drop_documents.csv"), notes if short else ())


def _names(benchmarks: Sequence[Benchmark]) -> list[str]:
    names: list[str] = []
    for benchmark in benchmarks:
        name = re.sub(r"[^\w.-]+", "_", benchmark.name).strip("._")[:100] or "benchmark"
        taken = {n.casefold() for n in names}
        names.append(next(n for n in (name, *(f"{name}-{i}" for i in range(2, 10**6))) if n.casefold() not in taken))
    return names


def _write_clean(folder: Path, benchmark: Benchmark, name: str, items: pd.DataFrame) -> str:
    dirty = set(items.loc[(items["benchmark"] == benchmark.name) & (items["verdict"] == "contaminated"), "item_id"])
    path = folder / "clean" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for item, row in zip(benchmark.items, benchmark.rows, strict=True):
            if item.item_id not in dirty:
                file.write(_json_line(row) + "\n")
    return path.relative_to(folder).as_posix()


def _json_line(row: Mapping[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False, default=str)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; its escape is valid JSON.
        return json.dumps(row, default=str)
    return line


def _replace_rows(dirty: pd.DataFrame, proof: pd.DataFrame) -> Iterable[Sequence[Any]]:
    ordered = proof.sort_values("rank", kind="stable").drop_duplicates(["benchmark", "item_id", "document"])
    best = ordered.set_index(["benchmark", "item_id", "document"])[["document_id", "byte_offset"]]
    places = dirty.merge(best, left_on=["benchmark", "item_id", "best_document"], right_index=True, how="left")
    for row in places.itertuples(index=False):
        yield [
            row.benchmark,
            row.item_id,
            row.evidence_kind,
            row.rule,
            f"{row.score:.3f}",
            row.longest,
            row.documents,
            row.best_document,
            row.document_id,
            _place(row.byte_offset),
        ]


def _drop_rows(proof: pd.DataFrame) -> Iterable[Sequence[Any]]:
    unique = proof.drop_duplicates(["shard", "record", "benchmark", "item_id"])
    for (shard, record), part in unique.groupby(["shard", "record"], sort=True):
        held = sorted(f"{b}/{i}" for b, i in zip(part["benchmark"], part["item_id"], strict=True))
        first = part.iloc[0]
        yield [
            shard,
            record,
            _place(first["byte_offset"]),
            first["document_id"],
            len(held),
            json.dumps(held, ensure_ascii=False),
        ]


def _place(byte_offset: float) -> str:
    return "" if pd.isna(byte_offset) or byte_offset < 0 else str(int(byte_offset))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="", errors="replace") as file:
        write_csv(file, header, rows)
