"""What one slice yields, on disk and in memory, and the associative merge of many.

A partial is written to a temporary folder and renamed: it is there whole or not at all. The scan of a killed audit goes
on from the partials that exist.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from checks.contamination.records import BEST, MOST_PAIRS, PAIRS, Problem, Tally

Counts = dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]]
"""For each n: ids of n-grams, ascending, and the number of documents that hold each."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What the detectors found in one slice."""

    index: int
    """Of the slice."""
    tally: Tally
    pairs: pa.Table
    """PAIRS, thinned by `thin`."""
    counts: Counts
    cut: int
    """Pairs beyond MOST_PAIRS of their item, dropped."""

    def save(self, folder: Path) -> None:
        """Write under `folder/<index>`, whole or not at all.

        Raises:
            OSError: no space, no permission.
        """
        target = _path(folder, self.index)
        scratch = target.with_name(f"{target.name}.{os.getpid()}")
        scratch.mkdir(parents=True)
        pq.write_table(self.pairs, scratch / "pairs.parquet")
        counts: dict[str, Any] = {}
        for n, (ids, documents) in self.counts.items():
            counts |= {f"i{n}": ids, f"c{n}": documents}
        np.savez(scratch / "counts.npz", allow_pickle=False, **counts)
        (scratch / "tally.json").write_text(json.dumps({**asdict(self.tally), "cut": self.cut}))
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)

    @classmethod
    def load(cls, folder: Path, index: int) -> Partial:
        """The partial that `save` wrote."""
        path = _path(folder, index)
        raw = json.loads((path / "tally.json").read_text())
        cut = raw.pop("cut")
        raw["problems"] = [Problem(**problem) for problem in raw["problems"]]
        with np.load(path / "counts.npz", allow_pickle=False) as stored:
            counts = {int(name[1:]): (stored[name], stored[f"c{name[1:]}"]) for name in stored if name[0] == "i"}
        return cls(index, Tally(**raw), pq.read_table(path / "pairs.parquet"), counts, cut)


def saved(folder: Path) -> set[int]:
    """Indices of the slices whose partials are there, whole."""
    if not folder.is_dir():
        return set()
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}


def _path(folder: Path, index: int) -> Path:
    return folder / f"{index:07d}"


def thin(pairs: pa.Table) -> tuple[pa.Table, int]:
    """Keep what a merge can ever need, in the order of PAIRS; say how many pairs were cut.

    One row per (item, record, detector), the best of its windows; at most MOST_PAIRS per item and detector; text only
    for the best BEST of these, where neighbours in meaning that are near copies count apart from those that are none.
    Thinning parts and then their union gives the same as thinning the union.
    """
    if not pairs.num_rows:
        return PAIRS.empty_table(), 0
    keys = pairs.select(["item", "slice", "record", "start", "detector", "score", "longest"]).to_pandas()
    keys = keys.sort_values(
        ["item", "detector", "score", "longest", "slice", "record", "start"],
        ascending=[True, True, False, False, True, True, True],
        kind="stable",
    )
    keys = keys.drop_duplicates(["item", "slice", "record", "detector"])
    keys = keys.assign(copy=(keys["detector"] == "semantic") & (keys["longest"] > 0))
    rank = keys.groupby(["item", "detector", "copy"], sort=False).cumcount()
    kept = keys[rank < MOST_PAIRS].assign(best=rank < BEST)
    kept = kept.sort_values(["item", "slice", "record", "detector"], kind="stable")
    table = pairs.take(pa.array(kept.index.to_numpy()))
    text = pc.if_else(pa.array(kept["best"].to_numpy()), table["text"], "")
    table = table.set_column(PAIRS.get_field_index("text"), PAIRS.field("text"), text.cast(pa.string()))
    return table.select(PAIRS.names).cast(PAIRS).combine_chunks(), len(keys) - len(kept)


def in_slice(pairs: pa.Table, index: int) -> pa.Table:
    """The pairs with their slice written in: detectors do not know it."""
    column = PAIRS.get_field_index("slice")
    return pairs.set_column(column, PAIRS.field("slice"), pa.array(np.full(pairs.num_rows, index, np.int32)))


@dataclass(slots=True)
class Merged:
    """The sum of all partials."""

    pairs: pa.Table
    counts: Mapping[int, npt.NDArray[np.uint32]]
    """For each n, documents that hold each n-gram of the index."""
    tallies: dict[int, Tally] = field(default_factory=dict)
    """By slice."""
    cut: int = 0

    @property
    def documents(self) -> int:
        """Documents scanned."""
        return sum(tally.documents for tally in self.tallies.values())


MERGE_ROWS = 50_000
"""Pairs held unthinned while merging: bounds the memory."""


def merge(partials: Iterable[Partial], grams: Mapping[int, int]) -> Merged:
    """Add partials up; `grams` is the number of n-grams in the index for each n.

    The result does not depend on the order of the partials.
    """
    merged = Merged(PAIRS.empty_table(), {n: np.zeros(count, np.uint32) for n, count in grams.items()})
    waiting: list[pa.Table] = []
    for partial in partials:
        merged.tallies[partial.index] = partial.tally
        merged.cut += partial.cut
        waiting.append(partial.pairs)
        for n, (ids, counts) in partial.counts.items():
            merged.counts[n][ids] += counts
        if sum(table.num_rows for table in waiting) > MERGE_ROWS:
            _fold(merged, waiting)
    _fold(merged, waiting)
    merged.tallies = dict(sorted(merged.tallies.items()))
    return merged


def _fold(merged: Merged, waiting: list[pa.Table]) -> None:
    merged.pairs, cut = thin(pa.concat_tables([merged.pairs, *waiting]))
    merged.cut += cut
    waiting.clear()


def records_before(tallies: Mapping[int, Tally], shards: Mapping[int, str]) -> pd.Series:
    """For each slice, the records of its shard that earlier slices hold: turns its record numbers into the shard's.

    A slice after one that was lost gets -1: its records can be named by byte only.
    """
    before: dict[int, int] = {}
    seen: dict[str, int] = {}
    for index, shard in sorted(shards.items()):
        start = seen.get(shard, 0)
        before[index] = start
        lost = start < 0 or index not in tallies
        seen[shard] = -1 if lost else start + tallies[index].records
    return pd.Series(before, dtype="int64")
