"""What W&B gives out of its server: the CSV of a chart, and histories as CSV, JSON lines or parquet.

    "Step","run-a - train/loss","run-a - train/loss__MIN","run-a - train/loss__MAX"     # a chart, of one or more runs
    _step,_timestamp,_runtime,train/loss                                                # run.history(), scan_history(),
                                                                                        # download_history_exports()

A blank is not a NaN: the row has no such value. Histories are samples unless all rows were asked for, and a chart shows
means of neighbouring rows: the rows themselves show that, and it is said.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.importers.importer import BATCH_ROWS, BlindSpot, Facts, Importer, Item, Note, Replaced, Rows, RunOf
from collectors.importers.numbers import number
from trainvitals.errors import UsageError
from trainvitals.formulas import MISSING, given
from trainvitals.untrusted import MOST_STEP

LOW, HIGH = "__MIN", "__MAX"
SPLIT = " - "
"""Between the run and the metric in the head of a chart's column."""
MOST_BYTES = 1 << 30
MOST_LINE = 1 << 20
MOST_DIGITS = 400
"""Characters of a number."""
FEWEST_ROWS = 50
REGULAR = 0.8
"""Share of the gaps between rows that are the commonest one, below which rows are a sample."""
SIGNALS = ("loss/", "grad/", "lr/", "throughput/", "data/")
_OWN = ("_step", "_timestamp", "_runtime")

Column = NDArray[np.float64]


class WandbExport(Importer):
    """Charts and histories."""

    format = "wandb-export"
    title = "W&B's export"
    rewritten = True
    blind = (
        BlindSpot("rank", ("router/", "throughput/"), "W&B keeps one value per name and step, and not which rank "
                  "logged it", "Log every rank as a run of its own, or attach the tap, which writes every rank."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        if head.startswith(b"PAR1"):
            names = _parquet_names(path)
            return "its columns are _step and others of a W&B history" if _is_history(names) else ""
        line = head.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()
        if line.startswith("{"):
            found = _object(line)
            return "its first line is a row of a W&B history" if found is not None and _is_history(found) else ""
        names = _heads(line)
        if _is_history(names):
            return "its columns are _step and others of a W&B history"
        return "its columns are those of a W&B chart" if _charted(names) else ""

    def runs(self, path: Path) -> list[RunOf]:
        with path.open("rb") as file:
            head = file.read(64 << 10)
        line = "" if head.startswith(b"PAR1") else head.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
        names = dict.fromkeys(name.rsplit(SPLIT, 1)[0] for name in _charted(_heads(line.strip())))
        return [RunOf(path, name, name) for name in names] or [RunOf(path, path.stem)]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        try:
            found = run.path.stat()
            mark = [found.st_size, found.st_mtime_ns]
            if state.get("mark") == mark:
                return
            if "mark" in state:
                raise Replaced("the export was written anew")
            if found.st_size > MOST_BYTES:
                raise UsageError(f"{run.path} has {found.st_size:,} bytes, more than any export. Give a part of it.")
            items = list(_read(run))
            state["mark"] = mark
            yield from items
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"{run.path} cannot be read ({why}). Give a file that can be.") from error


def _read(run: RunOf) -> Iterator[Item]:
    """All of an export."""
    table, left_out, cut = _table(run.path)
    charted = _charted(list(table)) if run.key else []
    axis = next(iter(table)) if charted else "_step"
    if axis not in table or not len(table[axis]):
        raise UsageError(f"{run.path} has no row of a W&B export. Give one that has.")
    if cut:
        yield Note("unreadable", "The last line has no end: the file was cut, and the line is left out", hides=True)
    columns = _of_run(table, run.key, charted) if charted else {k: v for k, v in table.items() if k not in _OWN}
    if charted:
        left_out = []
    if left_out:
        yield Note("note", f"What is no number is left out: {', '.join(left_out[:20])}"[:1_000])
    there = np.zeros(len(table[axis]), bool)
    for column in columns.values():
        there |= given(column)
    steps, spots, wrong = _steps(axis, table[axis], there)
    there &= steps != MOST_STEP
    if wrong:
        yield Note("unreadable", f"{wrong:,} rows without a step are left out", hides=True)
    times = table.get("_timestamp", np.full(len(there), np.nan))
    times = np.where(given(times), times, np.nan)[there]
    steps, columns = steps[there], {name: column[there] for name, column in columns.items()}
    yield Facts({"name": run.key} if run.key else {}, blind=(*spots, *_sampled(steps, columns)))
    for begin in range(0, len(steps), BATCH_ROWS):
        part = slice(begin, begin + BATCH_ROWS)
        yield Rows(steps[part], times[part], {name: column[part] for name, column in columns.items()})


def _steps(axis: str, values: Column, there: NDArray[np.bool_]
           ) -> tuple[NDArray[np.int64], tuple[BlindSpot, ...], int]:
    """The step of every row, `MOST_STEP` where it has none, what that hides, and how many rows have none."""
    whole = np.isfinite(values) & (np.abs(values) < MOST_STEP)
    if axis in ("_step", "Step") or axis.lower().endswith("step"):
        steps = np.full(len(values), MOST_STEP, np.int64)
        steps[whole] = values[whole].astype(np.int64)
        return steps, (), int((there & ~whole).sum())
    spot = BlindSpot("steps", SIGNALS, f"The chart is drawn over {axis[:100]}, and not over the step: rows are "
                     "numbered as they come", "Set the x axis to Step before the export, or export the run's history.")
    return np.arange(len(values), dtype=np.int64), (spot,), 0


def _of_run(table: Mapping[str, Column], run: str, charted: list[str]) -> dict[str, Column]:
    """A run's columns of a chart by metric; extremes of a mean where they are not the mean itself."""
    found: dict[str, Column] = {}
    for name in charted:
        of, metric = name.rsplit(SPLIT, 1)
        if of != run:
            continue
        found[metric] = value = table[name]
        for mark in (LOW, HIGH):
            other = table[name + mark]
            if not np.array_equal(other, value, equal_nan=True):
                found[metric + mark] = other
    return found


def _sampled(steps: NDArray[np.int64], columns: Mapping[str, Column]) -> Iterator[BlindSpot]:
    """What the rows themselves show of rows that are not there."""
    if any(name.endswith((LOW, HIGH)) for name in columns):
        yield BlindSpot("averaged", SIGNALS, "The chart shows means of neighbouring rows, their extremes beside them",
                        "Export the run's history with scan_history(), which gives every row.")
    gaps = np.diff(np.unique(steps))
    if len(gaps) < FEWEST_ROWS:
        return
    common, count = Counter(gaps.tolist()).most_common(1)[0]
    if count < REGULAR * len(gaps) or (len(steps) == 500 and common > 1):
        yield BlindSpot("sampled", SIGNALS, f"{len(steps):,} rows stand for steps {steps.min():,} to {steps.max():,}, "
                        f"{gaps.min():,} to {gaps.max():,} apart: W&B gave a sample, as run.history() does",
                        "Export the run's history with scan_history(), which gives every row.")


# ---- the file as columns ------------------------------------------------------------------------------------------


def _table(path: Path) -> tuple[dict[str, Column], list[str], bool]:
    """Name -> numbers, `MISSING` where blank; names of what is no number; whether the last line was cut.

    Raises UsageError, OSError.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PAR1"):
        return *_parquet(path), False
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        lines = _Lines(text, path)
        if head.lstrip(b"\xef\xbb\xbf").startswith(b"{"):
            return *_columns(_objects(lines, path)), lines.cut
        try:
            rows = csv.reader(lines)
            names = next(rows, [])
            return *_columns(dict(zip(names, row, strict=False)) for row in rows if row), lines.cut
        except csv.Error as error:
            raise UsageError(f"{path} is no CSV that can be read ({error}). Export it again.") from error


class _Lines:
    """The whole lines of a text: the last one may lack its end only where its last cell or object is closed."""

    def __init__(self, text: io.TextIOWrapper, path: Path) -> None:
        self._text, self._path = text, path
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MOST_LINE):
            if len(line) >= MOST_LINE:
                raise UsageError(f"{self._path} has a line of more than {MOST_LINE:,} characters: it is no export of "
                                 "W&B's. Give another file.")
            if not line.endswith(("\n", "\r")) and not _is_closed(line):
                self.cut = True
                return
            yield line


def _is_closed(line: str) -> bool:
    """Whether a line without an end is a whole row: every cell quoted, or a JSON object."""
    return _object(line) is not None if line.startswith("{") else line.startswith('"') and line.count('"') % 2 == 0 \
        and line.endswith('"')


def _objects(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    for nth, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _object(line)
        if found is None:
            raise UsageError(f"Line {nth} of {path} is no JSON object. Export it again.")
        yield found


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _columns(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Column], list[str]]:
    found: dict[str, list[float]] = {}
    texts: dict[str, None] = {}
    n = 0
    for row in rows:
        for name, raw in row.items():
            value = _number(raw)
            if value is None:
                texts[str(name)] = None
                continue
            column = found.setdefault(str(name), [])
            column.extend([MISSING] * (n - len(column)))
            column.append(value)
        n += 1
    whole = {name: np.array(column + [MISSING] * (n - len(column))) for name, column in found.items() if name}
    kept = {name: column for name, column in whole.items() if name in _OWN or given(column).any() and name not in texts}
    return kept, [name for name in texts if name not in kept]


def _number(raw: Any) -> float | None:
    """A value as a number; `MISSING` where there is none, None where it is something else."""
    if raw is None:
        return MISSING
    if isinstance(raw, str):
        return number(raw) if len(raw) <= MOST_DIGITS else None
    try:
        return float(raw) if isinstance(raw, bool | int | float) else None
    except OverflowError:
        return None


def _parquet_names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [str(name) for name in pq.read_schema(path).names]
    except (pa.ArrowException, OSError, ValueError):
        return []


def _parquet(path: Path) -> tuple[dict[str, Column], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        kinds = {field.name: field.type for field in schema}
        numeric = [name for name, kind in kinds.items()
                   if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)]
        table = pq.read_table(path, columns=numeric)
        columns = {}
        for name in numeric:
            column = table.column(name).cast(pa.float64(), safe=False)
            values = np.array(column.fill_null(0.0).to_numpy(), np.float64)
            values[np.isnan(values)] = np.nan
            values[column.is_null().to_numpy()] = MISSING
            columns[name] = values
    except (pa.ArrowException, ValueError) as error:
        why = str(error).splitlines()[0][:200]
        raise UsageError(f"{path} is no parquet file that can be read ({why}). Export it again.") from error
    return columns, [name for name in kinds if name not in columns]


def _is_history(names: Iterable[str]) -> bool:
    found = set(names)
    return "_step" in found and bool(found & {"_timestamp", "_runtime"})


def _heads(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _charted(names: list[str]) -> list[str]:
    """The columns of a chart that are neither its axis nor extremes."""
    known = set(names)
    return [name for name in names[1:] if SPLIT in name and name + LOW in known and name + HIGH in known]
