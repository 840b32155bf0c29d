"""Audits for the tests: the real detectors on a list of texts, and a slow twin to which every text is one window."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from checks.contamination.detect.exact import ExactScanner
from checks.contamination.detect.index import NgramIndex
from checks.contamination.detect.minhash import MinHashIndex, MinHashScanner
from checks.contamination.detect.tfidf import TfidfIndex
from checks.contamination.judge.verdict import judge_items
from checks.contamination.partial import Merged, Partial, merge, thin
from checks.contamination.records import NS, PAIRS, Documents, Item, Slice, Tally
from checks.contamination.text.words import split_words, words_of

SHARD = [Slice(0, "corpus.jsonl", "jsonl")]
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def rows(path: str) -> list[dict[str, Any]]:
    """Rows of a published data set; the test is skipped where it is not at hand."""
    if not (DATA / path).exists():
        pytest.skip(f"{DATA / path} is missing")
    opened = gzip.open if path.endswith(".gz") else open
    with opened(DATA / path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def gsm8k() -> list[Item]:
    return [Item("gsm8k", str(k), row) for k, row in enumerate(rows("benchmarks/gsm8k_test.jsonl"))]


def humaneval() -> list[Item]:
    return [Item("humaneval", row["task_id"], {"code": row["prompt"], "answer": row["canonical_solution"]})
            for row in rows("benchmarks/humaneval.jsonl.gz")]


def web_text(step: int = 10) -> list[str]:
    return [f"{row['prompt']} {row['completion']}" for row in rows("corpora/t0_sample.jsonl.gz")[::step]]


def audit(items: Sequence[Item], texts: Sequence[str], semantic: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ITEMS and MATCHES of an audit of some texts with the real detectors."""
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int64)
    count = np.arange(len(raw), dtype=np.int64)
    docs = Documents(np.frombuffer(b"".join(raw), np.uint8), offsets, count, count * 0 - 1, count * 0)
    words = split_words(docs.text, docs.offsets)
    index = NgramIndex.build(items)
    exact, tfidf = ExactScanner(index), TfidfIndex.build(items) if semantic else None
    scanners: list[Any] = [exact, MinHashScanner(MinHashIndex.build(items), index)]
    scanners += [tfidf.scanner()] if tfidf else []
    found = [scanner.scan(docs, words) for scanner in scanners] + [scanner.finish() for scanner in scanners]
    pairs, cut = thin(pa.concat_tables(found))
    tally = Tally(records=len(raw), documents=len(raw))
    merged = merge([Partial(0, tally, pairs, exact.gram_counts(), cut)], index.sizes)
    tables = judge_items(items, index, merged, SHARD, p_value=tfidf.neighbour_p if tfidf else None)
    return tables[0].to_pandas(), tables[1].to_pandas()


def twin_scan(items: Sequence[Item], texts: Sequence[str]) -> tuple[NgramIndex, Merged]:
    """Every item against every text as one window, and the counts of all grams: set by set."""
    index = NgramIndex.build(items)
    counts = {n: np.zeros(size, np.uint32) for n, size in index.sizes.items()}
    found = []
    for record, text in enumerate(texts):
        hashes = words_of(text).hashes
        seen: dict[int, set[int]] = {n: set() for n in NS}
        for position in range(len(items)):
            bits = index.shared(position, hashes)
            for n in NS:
                seen[n].update(index.gram_ids(position, n)[bits[n]].tolist())
            packed = {f"grams{n}": np.packbits(bits[n], bitorder="little").tobytes() for n in NS}
            found.append({"item": position, "slice": 0, "record": record, "byte_offset": -1, "start": 0,
                          "end": len(text.encode()), "detector": "exact", "score": 0.0, "longest": len(hashes),
                          "text": text, **packed})
        for n in NS:
            counts[n][sorted(seen[n])] += 1
    found.sort(key=lambda row: (row["item"], row["record"]))
    return index, Merged(pa.Table.from_pylist(found, schema=PAIRS), counts, {0: Tally(len(texts), len(texts))})
