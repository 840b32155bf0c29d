"""MLflow's file store (`mlruns/<experiment>/<run>/`): a file per metric with a line `timestamp_ms value step` each.

Layout: https://github.com/mlflow/mlflow/blob/v3.1.0/mlflow/store/tracking/file_store.py. A key with slashes is a path.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.importers._growing import files_below, lines_of, text_of
from collectors.importers._mlflow import BLIND, Stepless, facts_of, status_note
from collectors.importers._points import Point, Points, Unread, as_step, as_time, as_value, together
from collectors.importers._runs import news, titles
from collectors.importers._settings import read_settings
from collectors.importers.importer import Facts, Importer, Item, Note, Replaced, RunOf
from trainvitals.errors import UsageError

MOST_RUNS = 10_000
MOST_TEXT_BYTES = 64 << 10
"""A parameter or tag."""


class MlflowFiles(Importer):
    """`mlruns`, one experiment in it, or one run."""

    format = "mlflow-files"
    title = "MLflow file store"
    blind = BLIND
    rewritten = True

    def recognises(self, path: Path, head: bytes) -> str:
        """Folders and meta.yaml files as MLflow makes them."""
        if not path.is_dir():
            return ""
        if _is_run(path):
            return "a run of MLflow's file store (meta.yaml beside metrics)"
        return "MLflow's file store (runs with meta.yaml and metrics)" if next(_run_folders(path), None) else ""

    def runs(self, path: Path) -> list[RunOf]:
        """The runs that are not deleted, oldest first."""
        found, deleted = [], 0
        for folder in [path] if _is_run(path) else _run_folders(path):
            meta = _meta(folder)
            if meta.get("lifecycle_stage") == "deleted":
                deleted += 1
                continue
            start = as_step(meta.get("start_time")) or 0
            name = meta.get("run_name") or text_of(folder / "tags" / "mlflow.runName", MOST_TEXT_BYTES)
            found.append((start, str(folder), str(name)))
            if len(found) >= MOST_RUNS:
                break
        if not found:
            raise UsageError(f"{path} holds {deleted:,} runs, all of them deleted. Bring one back with "
                             "`mlflow runs restore`." if deleted else f"{path} holds no run of MLflow's. Give mlruns.")
        named = titles((folder, name or Path(folder).name) for _, folder, name in sorted(found))
        return [RunOf(Path(folder), name, Path(folder).name) for folder, name in named]

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Facts where they are new, then the lines behind those that were read."""
        facts = _facts(run)
        yield from news(facts, state)
        files, too_many = files_below(run.path / "metrics")
        if too_many:
            yield Note("unreadable", f"Only {len(files):,} of the metrics of {run.path} are read", hides=True)
        yield from _metrics(files, state)
        yield from status_note(facts, state)


def _metrics(files: dict[str, Path], state: dict[str, Any]) -> Iterator[Item]:
    unread, stepless = Unread(state), Stepless(state)
    ends = state.get("ends", {})
    for name, end in ends.items():
        if name not in files or files[name].stat().st_size < end:
            raise Replaced(f"Metric {name[:80]} is gone or became shorter since it was last read")

    def logged(name: str, file: Path) -> Iterator[Point]:
        latest = -math.inf
        for line, end in lines_of(file, ends.get(name, 0)):
            point = _point(name, line, end, latest)
            if point is None:
                unread.met(name, end)
                continue
            stepless.met(name, point.step)
            latest = point.order
            yield point

    # MLflow appends to every file as it logs: by time, the lines of all files are the log.
    yield from together([logged(name, file) for name, file in files.items()], state, Points(state))
    yield from unread.told("lines of metrics are not `timestamp value step`")
    yield from stepless.told()


def _point(name: str, line: bytes, end: int, latest: float) -> Point | None:
    parts = line.split()
    if len(parts) not in (2, 3, 5):  # two: written before MLflow 1.0; five: with a data set
        return None
    try:
        words = [part.decode("ascii") for part in parts]
    except UnicodeDecodeError:
        return None
    time, value = as_time(as_step(words[0]), 1000.0), as_value(words[1])
    step = as_step(words[2]) if len(words) > 2 else 0
    if step is None or value is None or not math.isfinite(time):
        return None
    return Point(max(time, latest), step, name, value, time, end)


def _is_run(path: Path) -> bool:
    return (path / "meta.yaml").is_file() and (path / "metrics").is_dir()


def _run_folders(path: Path) -> Iterator[Path]:
    """Run folders in a store or in one experiment of it."""
    for folder in _folders(path):
        if _is_run(folder):
            yield folder
        elif (folder / "meta.yaml").is_file():
            yield from (run for run in _folders(folder) if _is_run(run))


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry.path) for entry in entries
                          if entry.name != ".trash" and entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _meta(folder: Path) -> dict[str, Any]:
    return read_settings(folder / "meta.yaml")


def _facts(run: RunOf) -> Facts:
    told = _meta(run.path)
    experiment = _meta(run.path.parent)
    told["experiment"] = experiment.get("name")
    params, tags = ({name: text_of(file, MOST_TEXT_BYTES) for name, file in files_below(run.path / folder)[0].items()}
                    for folder in ("params", "tags"))
    return facts_of(run, told, params, tags)
