"""Contamination audits as the board reads them: checked, and kept while unchanged.

Tables are shared between viewers and must not be changed. The texts of items and documents stay on the disk until one
of them is looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import streamlit as st
from numpy.typing import NDArray

from checks.contamination.records import ITEMS, MATCHES, VERDICTS
from checks.contamination.score.decision import decide_benchmark, primary
from checks.contamination.score.sweep import SWEEP
from dashboard.contamination.shape import misfit
from trainvitals.errors import RunDamaged
from trainvitals.store.folder import open_folder
from trainvitals.untrusted import MOST_BYTES, parse_json

FILES = ("audit.json", "items.parquet", "matches.parquet", "sweep.parquet")
KEEP_SECONDS, MOST_AUDITS = 600.0, 8
BATCH_ROWS, BUFFER_BYTES = 1_024, 1 << 20
MOST_DOCUMENTS = 200
"""Documents of one item that are offered, the best first."""
_LEVELS = ("contaminated", "suspect", "below")
_BAD = (OSError, ValueError, pa.ArrowException, RecursionError)


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit folder, its texts left on the disk."""

    path: str
    summary: Mapping[str, Any]
    """audit.json."""
    items: pd.DataFrame
    """items.parquet without `text`, in its order: a row's position is the item's number."""
    made: Mapping[str, Any]
    """provenance.json; empty where there is none."""

    @property
    def benchmarks(self) -> list[Mapping[str, Any]]:
        """The benchmarks, those that a reviewer must see first at the front."""
        corpus = self.summary["corpus"]
        order = ("fail", "unknown", "warn", "pass")

        def severity(b: Mapping[str, Any]) -> tuple[int, float]:
            return order.index(decide_benchmark(b, corpus).level), -float(b["share"]["value"] or 0.0)

        return sorted(self.summary["benchmarks"], key=severity)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a benchmark's decision says of its score."""

    level: str
    sentence: str
    model: Mapping[str, Any] | None
    """The model under review; None without scores."""
    subset: str
    """Subset whose score to trust: "clean", "whole", or "" where no score is named."""

    @property
    def has_scores(self) -> bool:
        return self.model is not None and self.model["subsets"]["whole"]["n"] > 0


def trust(benchmark: Mapping[str, Any], corpus: Mapping[str, Any]) -> Trust:
    """Which score of a benchmark to trust, after `checks.contamination.score.decision`."""
    decision, model = decide_benchmark(benchmark, corpus), primary(benchmark)
    subset = decision.trusted
    if model is None or not subset or not model["subsets"][subset]["n"]:
        subset = ""
    return Trust(decision.level, decision.sentence, model, subset)


def open_audit(path: str) -> Audit:
    """The audit as it is now.

    Raises:
        RunDamaged: a file is missing or cannot be read, or audit.json is not what this version writes.
    """
    return _opened(path, _stamp(path))


def _stamp(path: str) -> tuple[tuple[int, int], ...]:
    """Changes when a file does; empty for files that are not local, which are looked at again after `KEEP_SECONDS`."""
    stats = []
    for name in FILES:
        try:
            found = os.stat(f"{path}/{name}")
            stats.append((found.st_mtime_ns, found.st_size))
        except OSError:
            stats.append((0, 0))
    return tuple(stats)


@st.cache_resource(ttl=KEEP_SECONDS, max_entries=MOST_AUDITS, show_spinner=False)
def _opened(path: str, stamp: tuple[tuple[int, int], ...]) -> Audit:
    summary = _json(path, "audit.json")
    if wrong := misfit(summary):
        raise RunDamaged(f"{path}/audit.json is not of this version: {wrong}. Run the audit again.")
    columns = [name for name in ITEMS.names if name != "text"]
    items = _table(path, "items.parquet", columns)
    for name in ("matches.parquet", "sweep.parquet"):
        _file(path, name).close()
    try:
        made = _json(path, "provenance.json")
    except RunDamaged:
        made = {}
    return Audit(path, summary, items, made)


def _file(path: str, name: str) -> BinaryIO:
    try:
        # A pipe or a device would be waited for without an end.
        if os.path.lexists(place := f"{path}/{name}") and not stat.S_ISREG(os.stat(place).st_mode):
            raise OSError("no regular file")
        return open_folder(path).open(name)
    except OSError as error:
        again = "the audit has not finished, or was copied in part. Run its command again: it goes on where it stopped"
        raise RunDamaged(f"{path} has no readable {name} ({error.strerror or error}): {again}.") from error


def _json(path: str, name: str) -> dict[str, Any]:
    try:
        with _file(path, name) as file:
            found = parse_json(file.read(MOST_BYTES + 1))
    except _BAD as error:
        raise RunDamaged(f"{path}/{name} is cut off or no JSON ({error}). Run the audit again.") from error
    if not isinstance(found, dict):
        raise RunDamaged(f"{path}/{name} holds no JSON object. Run the audit again.")
    return found


def _read(path: str, name: str, columns: Sequence[str]) -> pa.Table:
    with _parquet(path, name, columns) as parquet:
        return parquet.read(list(columns))


def _rows_of(path: str, name: str, columns: Sequence[str], item: pd.Series) -> list[dict[str, Any]]:
    """Rows of one item: batch by batch, so that the texts of all others are never in memory together."""
    with _parquet(path, name, columns) as parquet:
        keys = parquet.read(["benchmark", "item_id"])
        same = pc.and_(pc.equal(keys["benchmark"], item["benchmark"]), pc.equal(keys["item_id"], item["item_id"]))
        wanted = np.flatnonzero(same.fill_null(False).to_numpy(zero_copy_only=False))
        rows: list[dict[str, Any]] = []
        first = 0
        for group in range(parquet.num_row_groups):
            last = first + parquet.metadata.row_group(group).num_rows
            inside = wanted[(wanted >= first) & (wanted < last)]
            if len(inside):
                rows += _picked(parquet, group, columns, inside - first)
            first = last
        return rows


def _picked(
    parquet: pq.ParquetFile, group: int, columns: Sequence[str], wanted: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Rows of a row group by position; nothing behind the last of them is read."""
    rows: list[dict[str, Any]] = []
    first = 0
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False):
        inside = wanted[(wanted >= first) & (wanted < first + len(batch))]
        rows += batch.take(pa.array(inside - first)).to_pylist()
        first += len(batch)
        if first > wanted[-1]:
            break
    return rows


@contextmanager
def _parquet(path: str, name: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
    """A table that has these columns; errors as in `open_audit`."""
    with _file(path, name) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES)
            missing = set(columns) - set(parquet.schema_arrow.names)
            if missing:
                said = ", ".join(sorted(missing))
                raise RunDamaged(f"{path}/{name} lacks the column {said}. Run the audit again with this version.")
            yield parquet
        except _BAD as error:
            raise RunDamaged(f"{path}/{name} cannot be read ({error}). Run the audit again.") from error


def _table(path: str, name: str, columns: Sequence[str]) -> pd.DataFrame:
    return _read(path, name, columns).to_pandas()


def sweep_of(audit: Audit) -> pd.DataFrame:
    """sweep.parquet; errors as in `open_audit`."""
    return _swept(audit.path, _stamp(audit.path))


@st.cache_resource(ttl=KEEP_SECONDS, max_entries=MOST_AUDITS, show_spinner=False)
def _swept(path: str, stamp: tuple[tuple[int, int], ...]) -> pd.DataFrame:
    return _table(path, "sweep.parquet", SWEEP.names)


def item_text(audit: Audit, number: int) -> str:
    """The text of one item; errors as in `open_audit`."""
    rows = _rows_of(audit.path, "items.parquet", ["text"], audit.items.iloc[number])
    return rows[0]["text"] or "" if rows else ""


def documents(audit: Audit, number: int) -> list[dict[str, Any]]:
    """Rows of matches.parquet of one item, evidence first, the document that decided at the top.

    Errors as in `open_audit`.
    """
    item = audit.items.iloc[number]
    rows = _rows_of(audit.path, "matches.parquet", MATCHES.names, item)

    def order(row: Mapping[str, Any]) -> tuple[Any, ...]:
        level = _LEVELS.index(row["level"]) if row["level"] in _LEVELS else len(_LEVELS)
        decided = (row["document"], row["detector"]) == (item["best_document"], item["detector"])
        return not decided, level, row["detector"] != item["detector"], row["rank"] or 0

    return sorted(rows, key=order)[:MOST_DOCUMENTS]


def items_with(audit: Audit, words: str) -> NDArray[np.bool_]:
    """Which items hold these words in their text, id, rule or best document, whatever the case. [items]

    Errors as in `open_audit`.
    """
    return _with_words(audit.path, _stamp(audit.path), words.strip())


@st.cache_resource(ttl=KEEP_SECONDS, max_entries=32, show_spinner=False)
def _with_words(path: str, stamp: tuple[tuple[int, int], ...], words: str) -> NDArray[np.bool_]:
    table = _read(path, "items.parquet", ["item_id", "rule", "best_document", "text"])
    found = np.zeros(len(table), dtype=bool)
    for name in table.column_names:
        hits = pc.match_substring(table[name], words, ignore_case=True)
        found |= hits.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def key_of(audit: Audit, number: int) -> str:
    """What names an item in an address: benchmark/id, or its number where that is too long."""
    item = audit.items.iloc[number]
    name = f"{item['benchmark']}/{item['item_id']}"
    return name if len(name) <= 200 else f"#{number}"


def number_of(audit: Audit, key: str) -> int | None:
    """The item that an address names; None where there is none."""
    if key.startswith("#") and key[1:].isascii() and key[1:].isdigit():
        number = int(key[1:7])
        return number if number < len(audit.items) else None
    same = np.flatnonzero((audit.items["benchmark"] + "/" + audit.items["item_id"]).to_numpy() == key)
    return int(same[0]) if len(same) else None


def ordered(items: pd.DataFrame) -> NDArray[np.int64]:
    """Positions of the items, the worst verdict first, then the highest containment. [items]"""
    rank = items["verdict"].map({"contaminated": 0, "suspect": 1, "untestable": 2}).fillna(len(VERDICTS))
    return np.lexsort((-items["score"].fillna(0).to_numpy(float), rank.to_numpy(float)))
