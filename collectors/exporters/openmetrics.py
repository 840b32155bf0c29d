"""A run as OpenMetrics text, which Prometheus takes in by `promtool tsdb create-blocks-from openmetrics`.

https://prometheus.io/docs/specs/om/open_metrics_spec: a gauge per signal, its labels as labels, and `trainvitals_step`
for the step at each time, since time is the only axis there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collectors.exporters.lines import Line
from trainvitals.errors import UsageError

PREFIX = "trainvitals_"
STEP = "step"
LEAST_APART = 1e-6
"""Seconds between two values of a series: those of one step of a log can have the same time."""


def write(path: Path, lines: Iterable[Line], run: str) -> int:
    """Write a text file; how many values it holds. Raises OSError; UsageError for a run without times."""
    count, used, longest = 0, {STEP}, None
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        for name, group in groupby(lines, key=lambda line: line.name):
            family = _family(name, used)
            for nth, line in enumerate(group):
                if not nth:
                    file.write(_head(family, f"{name}: {line.meaning} [{line.unit}]"))
                file.writelines(_samples(family, {"run": run} | ({"label": line.label} if line.label else {}), line))
                count += len(line.steps)
                if longest is None or len(line.steps) > len(longest.steps):
                    longest = line
        if longest is not None:
            file.write(_head(PREFIX + STEP, "the step at each time"))
            steps = Line(STEP, "", "", "", longest.steps, longest.steps.astype(np.float64), longest.times)
            file.writelines(_samples(PREFIX + STEP, {"run": run}, steps))
        file.write("# EOF\n")
    return count


def _family(name: str, used: set[str]) -> str:
    """A name of letters, digits and underscores, and of no other signal."""
    plain = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    found = next(spelled for spelled in (plain, *(f"{plain}_{n}" for n in range(2, 10**6))) if spelled not in used)
    used.add(found)
    return PREFIX + found


def _head(family: str, words: str) -> str:
    return f"# TYPE {family} gauge\n# HELP {family} {_escaped(words)}\n"


def _samples(family: str, labels: dict[str, str], line: Line) -> Iterator[str]:
    head = family + "{" + ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items()) + "} "
    for value, time in zip(line.values.tolist(), _rising(line.times, line.name).tolist(), strict=True):
        yield f"{head}{_number(value)} {time:.6f}\n"


def _rising(times: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The times, each at least `LEAST_APART` after the one before, as the format asks."""
    if np.isnan(times).any():
        raise UsageError(f"{name} has steps without a time, and OpenMetrics has no other axis. Export it with --format "
                         "parquet or csv.")
    spread = np.arange(len(times)) * LEAST_APART
    return np.asarray(np.maximum.accumulate(times - spread) + spread)


def _number(value: float) -> str:
    return "NaN" if value != value else {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(value) or repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
