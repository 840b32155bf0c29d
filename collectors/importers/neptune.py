"""Parquet files of the Neptune exporter (`PROJECT_digest/RUN_part_0.parquet`): one row per attribute, step and value.

Layout: https://github.com/neptune-ai/neptune-exporter#parquet-schema. Parts appear when a run is complete, part 0 last.
Only float series and configurations are decoded: as many series at a time as fit into memory, sorted there by step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from collectors.importers._blind import no_rank
from collectors.importers._points import MOST_NAMES
from collectors.importers._steps import MOST_DECIMALS, scaled_steps
from collectors.importers.importer import BlindSpot, Facts, Importer, Item, Note, Replaced, Rows, RunOf
from trainvitals.errors import UsageError
from trainvitals.formulas import MISSING

COLUMNS = {"project_id", "run_id", "attribute_path", "attribute_type", "step", "timestamp", "float_value"}
PART = re.compile(r"(.+)_part_(\d+)\.parquet")
MOST_FILES, MOST_RUNS, MOST_SETTINGS = 20_000, 10_000, 5_000
ROWS_AT_ONCE = 65_536
MOST_POINTS = 8 << 20
"""Points that are sorted in memory at once, about 100 bytes each. A run with more is read series by series."""
MOST_CELLS = 4 << 20
"""Of the table that is made of them, steps times metrics, at once."""
SERIES = "float_series"
CONFIGS = ("int", "float", "string", "bool", "datetime", "string_set")
BLIND = (
    no_rank("Neptune"),
    BlindSpot("nonfinite", ("loss/", "grad/"),
              "Neptune's clients refused NaN and infinity, and its exporter writes an empty cell for NaN: an empty "
              "cell with a time is read as NaN, but a value that never reached Neptune is not there",
              "Look at the job's own output at steps without a value"),
    BlindSpot("absent", ("loss/", "grad/", "lr/"),
              "The exporter goes on when a batch of metrics fails to download and leaves no mark, and a forked run's "
              "export lacks what its parent logged",
              "Compare the list of metrics with Neptune's, and import the parent too"),
)
_DAMAGED = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError)


class Neptune(Importer):
    """A part of a run's export, a project's folder, or the folder of all projects."""

    format = "neptune"
    title = "Neptune export"
    rewritten = True
    blind = BLIND

    def recognises(self, path: Path, head: bytes) -> str:
        """Parquet with the exporter's columns, or folders with such files."""
        if path.is_dir():
            part = next((file for file in _parts(path) if _fits(file)), None)
            return "Parquet files of the Neptune exporter (RUN_part_N.parquet)" if part else ""
        return "Parquet with the Neptune exporter's columns" if head[:4] == b"PAR1" and _fits(path) else ""

    def runs(self, path: Path) -> list[RunOf]:
        """The runs, by project and name."""
        found: dict[tuple[str, str], RunOf] = {}
        for file in _parts(path) if path.is_dir() else [path]:
            for project, run in _named(file):
                place = file.parent if path.is_dir() else file
                found.setdefault((project, run), RunOf(place, run, f"{project}\n{run}"))
            if len(found) >= MOST_RUNS:
                break
        if not found:
            raise UsageError(f"{path} holds no readable export of a run. Look for RUN_part_0.parquet, which the "
                             "exporter writes when a run is complete.")
        names = [run for _, run in found]
        return [RunOf(of.path, run if names.count(run) == 1 else f"{project}/{run}", of.key)
                for (project, run), of in found.items()]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """The whole run, once: the exporter never adds to one."""
        project, _, name = run.key.partition("\n")
        files = _files_of(run, project, name)
        stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        if state.get("done") and state.get("files") != stamps:
            raise Replaced(f"The export of {name[:80]} was made anew")
        if state.get("done"):
            return
        state["files"] = stamps
        mine = (ds.field("project_id") == project) & (ds.field("run_id") == name)
        told = _Told()
        for file in files:
            _survey(file, mine, told)
        yield Facts({"name": run.name, "notes": told.notes | {"neptune_project": project, "neptune_run": name}},
                    told.config)
        if run.path.is_dir():
            yield from _incomplete(run.path, files)
        for names in _groups(told):
            points = [part for file in files for part in _read(file, mine, names, told)]
            if points:
                yield from _rows(points, names)
        state["done"] = True
        for note in told.hidden:
            yield Note("unreadable", note, hides=True)


class _Told:
    """What the files of a run hold beside its points."""

    def __init__(self) -> None:
        self.points: dict[str, int] = {}
        """Series -> how many."""
        self.config: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
        self.hidden: dict[str, None] = {}
        """What cannot be read, a sentence each."""


def _parts(path: Path) -> list[Path]:
    found = [file for pattern in ("*.parquet", "*/*.parquet") for file in sorted(path.glob(pattern))
             if file.is_file() and PART.fullmatch(file.name)]
    return found[:MOST_FILES]


def _fits(file: Path) -> bool:
    try:
        return set(pq.read_schema(file).names) >= COLUMNS
    except _DAMAGED:
        return False


def _named(file: Path) -> list[tuple[str, str]]:
    """(project, run) that a file holds; the exporter puts one run into a file."""
    try:
        told = file.stat()
    except OSError:
        return []
    return _named_then(file, told.st_size, told.st_mtime_ns)


@lru_cache(MOST_FILES)
def _named_then(file: Path, size: int, changed_ns: int) -> list[tuple[str, str]]:
    try:
        table = next(pq.ParquetFile(file).iter_batches(1_024, columns=["project_id", "run_id"]), None)
        pairs = dict.fromkeys(zip(table[0].to_pylist(), table[1].to_pylist(), strict=True)) if table else {}
        return [(project, run) for project, run in pairs if isinstance(project, str) and isinstance(run, str)]
    except _DAMAGED:
        return []


def _files_of(run: RunOf, project: str, name: str) -> list[Path]:
    if run.path.is_file():
        return [run.path]
    files = [file for file in _parts(run.path) if file.parent == run.path and (project, name) in _named(file)]
    if not files:
        raise UsageError(f"{run.path} has no readable part of {name[:80]} any more. Export the run anew.")
    return sorted(files, key=lambda file: int(PART.fullmatch(file.name)[2]))  # type: ignore[index]


def _incomplete(folder: Path, files: Sequence[Path]) -> Iterator[Item]:
    numbers = [int(found[2]) for file in files if (found := PART.fullmatch(file.name))]
    stem = PART.fullmatch(files[0].name)[1]  # type: ignore[index]
    missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
    if missing:
        yield Note("incomplete", f"Parts {', '.join(map(str, missing[:5]))} of this export are missing or unreadable: "
                   "what they held is not here", hides=True)
    if any((folder / f"{stem}_part_{n}.parquet.tmp").exists() for n in range(max(numbers) + 2)):
        yield Note("incomplete", "The export of this run was not finished: parts of it still end in .tmp", hides=True)


def _survey(file: Path, mine: ds.Expression, told: _Told) -> None:
    """Count the points of every series, and take the settings."""
    try:
        part = ds.dataset(file, format="parquet")
        for batch in _scan(part, ["attribute_path"], mine & (ds.field("attribute_type") == SERIES)):
            for item in pc.value_counts(batch.column(0)).to_pylist():
                name = str(item["values"])
                if name in told.points or len(told.points) < MOST_NAMES:
                    told.points[name] = told.points.get(name, 0) + int(item["counts"])
                else:
                    told.hidden[f"Series beyond the first {MOST_NAMES:,} are left out"] = None
        values = [column for column in (f"{kind}_value" for kind in CONFIGS) if column in part.schema.names]
        settings = part.scanner(columns=["attribute_path", "attribute_type", *values],
                                filter=mine & ds.field("attribute_type").isin(CONFIGS), batch_size=1_024,
                                use_threads=False).head(MOST_SETTINGS)
        _settings(settings, told)
        for kind, what in (("histogram_series", "histograms"), ("string_series", "texts"), ("file_series", "files")):
            n = part.scanner(columns=[], filter=mine & (ds.field("attribute_type") == kind)).count_rows()
            if n:
                told.notes[f"neptune_{what}_not_read"] = told.notes.get(f"neptune_{what}_not_read", 0) + n
    except _DAMAGED as error:
        told.hidden[_unreadable(file, error)] = None


def _groups(told: _Told) -> Iterator[list[str]]:
    """Series whose points fit into memory together."""
    group: list[str] = []
    size = 0
    for name, n in told.points.items():
        if group and size + n > MOST_POINTS:
            yield group
            group, size = [], 0
        group, size = [*group, name], size + n
    if group:
        yield group


def _read(file: Path, mine: ds.Expression, names: list[str], told: _Told) -> Iterator[tuple[np.ndarray, ...]]:
    """(steps * 10**6, times, which of the names, values) of these series in a file."""
    chosen = mine & (ds.field("attribute_type") == SERIES) & ds.field("attribute_path").isin(names)
    held = 0
    try:
        part = ds.dataset(file, format="parquet")
        for batch in _scan(part, ["attribute_path", "step", "timestamp", "float_value"], chosen):
            held += batch.num_rows
            if held > 2 * MOST_POINTS:
                told.hidden[f"Points of {names[0][:80]} beyond the first {2 * MOST_POINTS:,} are left out"] = None
                return
            if batch.num_rows:
                yield _columns(batch, names)
    except _DAMAGED as error:
        told.hidden[_unreadable(file, error)] = None


def _scan(part: ds.Dataset, columns: list[str], chosen: ds.Expression) -> Iterator[pa.RecordBatch]:
    scanner = part.scanner(columns=columns, filter=chosen, batch_size=ROWS_AT_ONCE, use_threads=False,
                           batch_readahead=1, fragment_readahead=1)
    yield from scanner.to_batches()


def _unreadable(file: Path, error: Exception) -> str:
    return f"{file.name} cannot be read to its end ({ascii(str(error))[1:120]})"


def _columns(batch: pa.RecordBatch, names: list[str]) -> tuple[np.ndarray, ...]:
    which = pc.index_in(pc.cast(batch.column(0), pa.string()), pa.array(names)).fill_null(-1)
    digits = _digits(pc.cast(batch.column(1), pa.decimal128(18, MOST_DECIMALS)))
    times = pc.cast(pc.cast(batch.column(2), pa.timestamp("ms", "UTC")), pa.int64())
    values, timed = batch.column(3), batch.column(2).is_valid().to_numpy(zero_copy_only=False)
    there = values.is_valid().to_numpy(zero_copy_only=False)
    number = pc.cast(values, pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    name = which.to_numpy(zero_copy_only=False).astype(np.int64)
    keep = (name >= 0) & batch.column(1).is_valid().to_numpy(zero_copy_only=False) & (there | timed)
    seconds = np.where(timed, times.fill_null(0).to_numpy(zero_copy_only=False) / 1000.0, np.nan)
    return digits[keep], seconds[keep], name[keep], number[keep]


def _digits(steps: pa.Decimal128Array) -> np.ndarray:
    """Steps times 10**6 as 64 bits, which 18 digits fit: the lower half of what Arrow stores of each."""
    words = np.frombuffer(steps.buffers()[1], np.int64)
    return words[2 * steps.offset :: 2][: len(steps)]


def _settings(table: pa.Table, told: _Told) -> None:
    for row in table.to_pylist():
        path, value = str(row["attribute_path"]), row.get(f"{row['attribute_type']}_value")
        if value is None:
            continue
        plain = value if isinstance(value, (bool, int, float, list)) else str(value)
        (told.notes if path.startswith(("sys/", "monitoring/")) else told.config)[path] = plain


def _rows(points: Sequence[tuple[np.ndarray, ...]], named: list[str]) -> Iterator[Item]:
    """The rows by step, and which series have steps that are fractions."""
    digits, times, which, values = (np.concatenate(column) for column in zip(*points, strict=True))
    whole = 10**MOST_DECIMALS
    fractions = np.unique(which[digits % whole != 0])
    places = next(n for n in range(MOST_DECIMALS + 1) if not (digits % 10 ** (MOST_DECIMALS - n)).any())
    if len(fractions):
        yield Facts(blind=scaled_steps(10**places, [named[i] for i in fractions]))
    steps = np.where(np.isin(which, fractions), digits // 10 ** (MOST_DECIMALS - places), digits // whole)
    if len(steps):
        yield from _by_step(steps, times, which, values, named)


def _by_step(steps: np.ndarray, times: np.ndarray, which: np.ndarray, values: np.ndarray, names: list[str]
             ) -> Iterator[Rows]:
    order = np.lexsort((which, steps))
    steps, times, which, values = steps[order], times[order], which[order], values[order]
    first = np.r_[True, steps[1:] != steps[:-1]]
    repeat = np.r_[False, (steps[1:] == steps[:-1]) & (which[1:] == which[:-1])]
    row = np.cumsum(first | repeat) - 1
    n, size = int(row[-1]) + 1, max(MOST_CELLS // max(len(names), 1), 1)
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    for low in range(0, n, size):
        high = min(low + size, n)
        inside = slice(starts[low], starts[high] if high < n else None)
        table = np.full((len(names), high - low), MISSING)
        table[which[inside], row[inside] - low] = values[inside]
        held = np.unique(which[inside])
        yield Rows(steps[starts[low:high]], times[starts[low:high]], {names[i]: table[i] for i in held})
