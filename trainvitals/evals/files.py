"""Results in a run's folder: one Parquet file for all tasks of a checkpoint that one import brought, never changed.

    RUN/evals/step-1000-4f2a91bc03d7.parquet      the items; in its metadata the facts of every task, with its rows

A task of a checkpoint that was measured twice is read from the measurement with the most items, then the newest; the
others stay on disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainvitals.errors import UsageError
from trainvitals.evals.sheet import COLUMNS, KINDS, MOST_ITEMS, NO_ITEMS, NUMBERS, TEXTS, Sheet, tidy
from trainvitals.store.folder import Folder, open_folder
from trainvitals.untrusted import MOST_INTEGER, number

FOLDER, KEY = "evals", b"trainvitals.evals"
MOST_FILE_BYTES, MOST_FILES, MOST_SHEETS, MOST_HEAD = 2 << 30, 100_000, 20_000, 64 << 20
SCHEMA = pa.schema([(name, pa.string() if name in TEXTS else pa.float64() if name in NUMBERS else pa.int64())
                    for name in COLUMNS])


def _types(kind: Any) -> tuple[type, ...]:
    parts = get_args(kind) or (kind,)
    return (*parts, int, float) if int in parts or float in parts else parts


_FACTS = {name: _types(kind) for name, kind in get_type_hints(Sheet).items() if name != "items"}
"""Fact -> types that JSON may give it; a whole number is a number."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a result without its items."""

    task: str
    checkpoint: str
    step: int | None
    items: int
    """Different items."""
    rows: int
    missing: int
    """Rows without a score."""
    mean: float
    """Mean score over items, each the mean of its samples; of an aggregate without items, as the harness said it."""
    family: str
    kind: str
    metric: str
    time: float
    """When it was imported, Unix seconds."""


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    group: int
    facts: Mapping[str, Any]
    summary: Summary


class Evals:
    """The results of a run; items are read when they are asked for."""

    def __init__(self, folder: Folder, places: Mapping[tuple[str, str], _Place], problems: Sequence[str],
                 unread: Sequence[str] = ()) -> None:
        self._folder, self._places = folder, places
        self._by_task: dict[str, list[Summary]] = {}
        for place in places.values():
            self._by_task.setdefault(place.summary.task, []).append(place.summary)
        self._files: dict[str, tuple[pq.ParquetFile, bool]] = {}
        """Path -> file, and whether its columns are `SCHEMA`, which takes as long to ask as a task to read."""
        self.problems = list(problems)
        """What could not be read, a sentence each."""
        self.unread = tuple(unread)
        """Files of which not even the facts could be read."""
        self.tasks: list[str] = sorted(self._by_task)
        steps: dict[str, int | None] = {}
        for (_, checkpoint), place in places.items():
            if steps.get(checkpoint) is None:
                steps[checkpoint] = place.summary.step
        self.steps: dict[str, int] = {checkpoint: step for checkpoint, step in steps.items() if step is not None}
        """Training step of the checkpoints that have one."""
        self.checkpoints: list[str] = sorted(steps, key=lambda c: (steps[c] is None, steps[c] or 0, c))
        """By step; those without one last."""

    @property
    def summaries(self) -> list[Summary]:
        """Of every task and checkpoint."""
        return [place.summary for place in self._places.values()]

    def of_task(self, task: str) -> list[Summary]:
        """Of one task, every checkpoint."""
        return self._by_task.get(task, [])

    def sheet(self, task: str, checkpoint: str) -> Sheet | None:
        """One result with its items; None where there is none, or its file is damaged (see `problems`)."""
        place = self._places.get((task, checkpoint))
        if place is None:
            return None
        try:
            if not place.summary.rows:
                return Sheet(**place.facts, items=NO_ITEMS.copy())
            if place.path not in self._files:
                # Two are kept: a comparison goes from one checkpoint's file to another's, task by task.
                while len(self._files) > 1:
                    del self._files[next(iter(self._files))]
                opened = pq.ParquetFile(io.BytesIO(self._folder.read(place.path)))
                self._files[place.path] = opened, opened.schema_arrow.remove_metadata() == SCHEMA
            file, tidied = self._files[place.path]
            if tidied:
                table = file.read_row_group(place.group, _filled(file.metadata.row_group(place.group)))
                return Sheet(**place.facts, items=_frame(table))
            table = file.read_row_group(place.group, list(COLUMNS))
            return tidy(Sheet(**place.facts, items=table.to_pandas()))
        except (OSError, pa.ArrowException, UsageError, TypeError, KeyError) as error:
            self.problems.append(f"{place.path} cannot be read: {error}.")
            return None

    def lacking(self, task: str, checkpoint: str) -> str:
        """Why there is no sheet of them: it was not asked, or what holds it, or may hold it, cannot be read."""
        place = self._places.get((task, checkpoint))
        if place is not None:
            return f"{checkpoint} has a result that cannot be read ({place.path})"
        for path in self.unread:
            if path.startswith(f"{FOLDER}/{_slug(checkpoint)}-"):
                return f"{checkpoint} may have been asked: {path} cannot be read"
        return f"{checkpoint} was not asked"


def _filled(group: pq.RowGroupMetaData) -> list[str]:
    """The columns of which not every value is null: reading those that are takes most of the time, for nothing."""
    found = []
    for at, name in enumerate(COLUMNS):
        known = group.column(at).statistics
        if name == "item" or known is None or not known.has_null_count or known.null_count < group.num_rows:
            found.append(name)
    return found


def _frame(table: pa.Table) -> pd.DataFrame:
    """Items as they were stored, which `tidy` had seen; columns that are not there hold nothing."""
    index = pd.RangeIndex(len(table))
    no_text = pd.Series(np.full(len(table), None, object), index, dtype=object)
    columns: dict[str, Any] = {n: no_text if n in TEXTS else np.full(len(table), np.nan) for n in COLUMNS}
    for name, column in zip(table.column_names, table.columns, strict=True):
        # With its type said, pandas does not look at every text first.
        values = column.to_numpy()
        columns[name] = pd.Series(values, index, dtype=object) if name in TEXTS else values
    return pd.DataFrame(columns, index)


def write_sheet(run: str | os.PathLike[str], sheet: Sheet) -> str:
    """Store one result; see `write_sheets`."""
    return write_sheets(run, [sheet])[0]


def write_sheets(run: str | os.PathLike[str], sheets: Sequence[Sheet]) -> list[str]:
    """Store results in a run's folder, a file for each checkpoint; the same results again are the same file.

    Returns:
        Paths of the files below the folder.

    Raises:
        UsageError: a result that cannot be stored.
        OSError: the folder cannot be written.
    """
    folder = open_folder(os.fspath(run))
    by_checkpoint: dict[str, list[Sheet]] = {}
    for sheet in map(tidy, sheets):
        by_checkpoint.setdefault(sheet.checkpoint, []).append(sheet)
    paths = []
    there = folder.sizes(FOLDER)
    for checkpoint, group in by_checkpoint.items():
        mark = hashlib.sha256("".join(sheet.digest() for sheet in group).encode()).hexdigest()[:16]
        path = f"{FOLDER}/{_slug(checkpoint)}-{mark}.parquet"
        if path not in there:
            folder.replace(path, _packed(group))
        paths.append(path)
    return paths


def read_evals(run: str | os.PathLike[str]) -> Evals:
    """The results in a run's folder; none where there are none. What cannot be read is a problem by name."""
    folder = open_folder(os.fspath(run))
    found: dict[tuple[str, str], _Place] = {}
    problems: list[str] = []
    unread: list[str] = []
    sizes = {path: size for path, size in folder.sizes(FOLDER).items() if path.endswith(".parquet")}
    for path in sorted(sizes)[:MOST_FILES]:
        try:
            if sizes[path] > MOST_FILE_BYTES:
                raise UsageError(f"it has {sizes[path]:,} bytes, more than any of ours")
            for place in _places(folder, path):
                key = place.summary.task, place.summary.checkpoint
                if key not in found or _order(found[key]) <= _order(place):
                    found[key] = place
        except (OSError, pa.ArrowException, UsageError, ValueError, TypeError, KeyError, AttributeError,
                RecursionError) as error:
            problems.append(f"{path} cannot be read: {error}.")
            unread.append(path)
    return Evals(folder, found, problems, unread)


def _order(place: _Place) -> tuple[int, float]:
    """Of measurements of one task and checkpoint the largest wins, then the newest: a later run may have a limit."""
    return place.summary.items, place.summary.time


def _packed(sheets: Sequence[Sheet]) -> bytes:
    head = [{"facts": sheet.facts, "summary": _summary(sheet)} for sheet in sheets]
    schema = SCHEMA.with_metadata({KEY: json.dumps({"sheets": head}, allow_nan=False).encode()})
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for sheet in sheets:
            if len(sheet.items):
                writer.write_table(pa.Table.from_pandas(sheet.items, SCHEMA, preserve_index=False).cast(schema),
                                   row_group_size=len(sheet.items))
    return out.getvalue()


def _summary(sheet: Sheet) -> dict[str, Any]:
    means = sheet.items.groupby("item")["score"].mean() if len(sheet.items) else sheet.items["score"]
    mean = float(means.mean()) if len(means) else float("nan") if sheet.aggregate is None else sheet.aggregate
    return {"items": int(sheet.items["item"].nunique()), "rows": len(sheet.items),
            "missing": int(sheet.items["score"].isna().sum()), "mean": mean if np.isfinite(mean) else None,
            "time": time.time()}  # fmt: skip


def _places(folder: Folder, path: str) -> Iterator[_Place]:
    with folder.open(path) as file:
        metadata = pq.read_metadata(file).metadata
    head = (metadata or {}).get(KEY)
    if head is None or len(head) > MOST_HEAD:
        raise UsageError("it is no file of results")
    # Every value that is used is looked at below: `parse_json` would look at all of them, in three times the time.
    sheets = json.loads(head)["sheets"]
    if len(sheets) > MOST_SHEETS:
        raise UsageError(f"it names {len(sheets):,} tasks, more than {MOST_SHEETS:,}")
    group = 0
    for entry in sheets:
        facts, said = entry["facts"], entry["summary"]
        _refuse_wrong(facts)
        items, rows, missing, mean, when = map(said.__getitem__, ("items", "rows", "missing", "mean", "time"))
        if not (type(items) is type(rows) is type(missing) is int and 0 <= items <= rows <= MOST_ITEMS
                and 0 <= missing <= rows):  # fmt: skip
            raise UsageError(f"the numbers of items, rows and missing scores do not fit together in {said!r:.200}")
        mean = float("nan") if mean is None else number(mean, "mean")
        summary = Summary(facts["task"], facts["checkpoint"], facts["step"], items, rows, missing, mean,
                          facts["family"], facts["kind"], facts["metric"], number(when, "time"))  # fmt: skip
        yield _Place(path, group, facts, summary)
        # A task without items has no row group of its own.
        group += rows > 0


def _refuse_wrong(facts: Mapping[str, Any]) -> None:
    if facts.keys() != _FACTS.keys():
        raise UsageError("a result in it lacks facts, or has others")
    for name, value in facts.items():
        kind = type(value)
        if kind not in _FACTS[name]:
            raise UsageError(f"its {name} is {value!r:.40}")
        if kind is str:
            if not value.isascii():
                value.encode()  # half characters, which nothing can print
        elif (kind is float and not isfinite(value)) or (kind is int and abs(value) > MOST_INTEGER):
            raise UsageError(f"its {name} is beyond every number of 64 bits")
    if facts["kind"] not in KINDS:
        raise UsageError(f"its kind is {facts['kind']!r:.40}")


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:].strip(".") or "checkpoint"


def matrix(evals: Evals) -> pd.DataFrame:
    """Mean scores, checkpoints down by step, tasks across; NaN where a task was not asked."""
    table = pd.DataFrame([(s.checkpoint, s.task, s.mean) for s in evals.summaries],
                         columns=["checkpoint", "task", "mean"])
    return table.pivot(index="checkpoint", columns="task", values="mean").reindex(evals.checkpoints)
