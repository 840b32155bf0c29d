"""DVCLive's folder (`dvclive/plots/metrics/**/*.tsv`, `metrics.json`, `params.yaml`): a table per metric.

Layout: `dvclive/plots/metric.py` of https://github.com/iterative/dvclive (3.49): a header, then `step<TAB>value`, with
a time in milliseconds in front where the metric was logged with `timestamp=True`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collectors.importers._blind import no_rank
from collectors.importers._growing import files_below, lines_of
from collectors.importers._points import Point, Points, Unread, as_step, as_time, as_value, together
from collectors.importers._runs import news
from collectors.importers._settings import flat, read_settings
from collectors.importers.importer import BlindSpot, Facts, Importer, Item, Note, Replaced, RunOf
from trainvitals.errors import UsageError

METRICS = Path("plots", "metrics")
SUFFIXES = (".tsv", ".csv")


class DvcLive(Importer):
    """The folder that `Live(dir=...)` wrote, `dvclive` by default."""

    format = "dvclive"
    title = "DVCLive"
    rewritten = True
    blind = (
        BlindSpot("steps", ("loss/", "grad/", "lr/"),
                  "The step of DVCLive counts live.next_step(), which may be called once per epoch or evaluation",
                  "Set live.step to the optimizer's step"),
        no_rank("DVCLive"),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        """Tables with a step below plots/metrics."""
        if not path.is_dir():
            return ""
        files, _ = files_below(path / METRICS, 64)
        fits = any(_columns(file)[1] is not None for name, file in files.items() if name.endswith(SUFFIXES))
        return "DVCLive's folder (tables below plots/metrics)" if fits else ""

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Facts where they are new, then the lines behind those that were read."""
        facts = Facts({"name": run.name}, flat(read_settings(run.path / "params.yaml")))
        yield from news(facts, state)
        files, too_many = files_below(run.path / METRICS)
        tables = {name.rpartition(".")[0]: file for name, file in files.items() if name.endswith(SUFFIXES)}
        if not tables:
            raise UsageError(f"{run.path} has no tables in plots/metrics. Give the folder that DVCLive wrote.")
        if too_many:
            yield Note("unreadable", f"Only {len(files):,} of the tables in {run.path / METRICS} are read", hides=True)
        for name, end in state.get("ends", {}).items():
            if name not in tables or tables[name].stat().st_size < end:
                raise Replaced(f"Table {name[:80]} is gone or became shorter since it was last read")
        unread = Unread(state)
        series = [_points(name, file, state, unread) for name, file in tables.items()]
        yield from together(series, state, Points(state))
        yield from unread.told("lines are not a step and a number")


def _points(name: str, file: Path, state: dict[str, Any], unread: Unread) -> Iterator[Point]:
    time_at, step_at, value_at = _columns(file)
    if step_at is None:
        unread.met(name, 0)
        return
    latest = -math.inf
    for line, end in lines_of(file, state.get("ends", {}).get(name, 0)):
        cells = _cells(line, file)
        if cells[step_at : step_at + 1] == ["step"]:
            continue
        wide = len(cells) > max(step_at, value_at)
        step, value = (as_step(cells[step_at]), as_value(cells[value_at])) if wide else (None, None)
        if step is None or value is None:
            unread.met(name, end)
            continue
        latest = max(latest, step)
        time = as_time(as_step(cells[time_at]), 1000.0) if time_at is not None else math.nan
        yield Point(latest, step, name, value, time, end)


def _columns(file: Path) -> tuple[int | None, int | None, int]:
    """Where a table has its time, its step and its value, by its header."""
    line, _ = next(lines_of(file, 0), (b"", 0))
    names = _cells(line, file)
    if "step" not in names or len(names) < 2:
        return None, None, 0
    others = [i for i, name in enumerate(names) if name not in ("step", "timestamp")]
    if not others:
        return None, None, 0
    return names.index("timestamp") if "timestamp" in names else None, names.index("step"), others[0]


def _cells(line: bytes, file: Path) -> list[str]:
    text = line.decode("utf-8", "replace").rstrip("\r\n").lstrip("\ufeff")
    try:
        return next(csv.reader([text], delimiter="," if file.suffix == ".csv" else "\t"), [])
    except csv.Error:
        return []
