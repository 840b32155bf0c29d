"""A benchmark's own file among the shards of the corpus: the same file, the same bytes, or a copy with the same rows.

It is counted as any other shard, for it may be trained on; the audit says so, and what is found without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import pandas as pd

from checks.contamination.partial import Merged
from checks.contamination.records import Benchmark, Slice

SAME_ROWS = 0.9
"""Share of a benchmark's items that a shard holds if it is a copy of it; convention."""
SAME_SIZE = 2.0
"""How many times the benchmark's rows the text of a copy may be; more is a corpus that holds the benchmark."""

Own = Mapping[str, str]
"""For each shard that is the benchmark itself: "file" or "rows"."""


def own_shards(
    benchmarks: Sequence[Benchmark], pieces: Sequence[Slice], merged: Merged, matches: pd.DataFrame
) -> dict[str, Own]:
    """By benchmark, the shards that are it. matches: `benchmark`, `item_id`, `shard`, `level` of matches.parquet."""
    told = matches[matches["level"] == "contaminated"]
    held = told.groupby(["benchmark", "shard"])["item_id"].nunique()
    text = pd.Series({piece.index: piece.shard for piece in pieces})
    sizes: dict[str, int] = {}
    hashes: dict[str, str] = {}
    for index, tally in merged.tallies.items():
        shard = str(text[index])
        sizes[shard] = sizes.get(shard, 0) + tally.text_bytes
        hashes[shard] = tally.sha256 if shard not in hashes else ""
    found: dict[str, Own] = {}
    for benchmark in benchmarks:
        rows = sum(len(json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "replace"))
                   for row in benchmark.rows)  # fmt: skip
        own: dict[str, str] = {}
        for shard in sizes:
            items = int(held.get((benchmark.name, shard), 0))
            if _same_file(benchmark, shard) or (hashes[shard] and hashes[shard] == benchmark.sha256):
                own[shard] = "file"
            elif items >= SAME_ROWS * len(benchmark.items) and items and sizes[shard] <= SAME_SIZE * rows:
                own[shard] = "rows"
        if own:
            found[benchmark.name] = own
    return found


def _same_file(benchmark: Benchmark, shard: str) -> bool:
    if benchmark.source == shard:
        return True
    try:
        return os.path.samefile(benchmark.source, shard)
    except OSError:
        return False
