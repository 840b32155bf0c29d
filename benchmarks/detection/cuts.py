"""Runs cut at random steps: a judge that goes on from what it stored says what one says who reads all from the start.

And what was said is not taken back: of the alarms at a cut, those that later rows moved or withdrew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.cut import Until
from checks import run_checks
from checks.finding import Finding
from trainvitals.store import Run, open_run

RUNS, CUTS = 20, 50
NOT_STREAMED = ("throughput.", "telemetry.")
"""Areas whose answers are about the whole record: levels of a run's speed, gaps, silence."""


class Growing(Until):
    """A run as it was at a step, with what the judge stored beside it at earlier steps."""

    def __init__(self, run: Run, step: int, stored: dict[str, bytes]) -> None:
        super().__init__(run, step)
        self._stored = stored

    def kept(self, name: str, most: int) -> bytes:
        """What was stored."""
        return self._stored.get(name, b"")

    def keep(self, name: str, data: bytes) -> None:
        """Store it for the next step."""
        self._stored[name] = bytes(data)


def print_cuts(below: Path, runs: int = RUNS, cuts: int = CUTS) -> None:
    """Judge `runs` runs at `cuts` random steps each, both ways."""
    folders = sorted(path for path in below.iterdir() if path.is_dir())
    chosen = [folders[i] for i in np.unique(np.linspace(0, len(folders) - 1, runs).astype(int))]
    rng = np.random.default_rng(0)
    same = total = said = kept = 0
    for folder in chosen:
        run = open_run(folder)
        last = int(run.last_step or 0)
        stored: dict[str, bytes] = {}
        at_end = _alarms(run_checks(Until(run, last)).findings)  # type: ignore[arg-type]
        for step in sorted(rng.integers(2, last, cuts).tolist()):
            fresh = run_checks(Until(run, step)).findings  # type: ignore[arg-type]
            on = run_checks(Growing(run, step, stored)).findings  # type: ignore[arg-type]
            equal = _plain(fresh) == _plain(on)
            same, total = same + equal, total + 1
            if not equal:
                print(f"{folder.name} at step {step}: {_differing(fresh, on)}")
            for alarm in _alarms(fresh):
                said += 1
                kept += any(_is(alarm, other) for other in at_end)
    print(f"{len(chosen)} runs, {total:,} cuts: the same findings from stored state and from the start at {same:,}; "
          f"of {said:,} alarms of streaming checks at a cut, {kept:,} are told at the end, at the same onset")


def _plain(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    return [f.to_json() for f in findings]


def _differing(a: tuple[Finding, ...], b: tuple[Finding, ...]) -> str:
    told = {f.check: f.summary for f in a}
    return "; ".join(f"{f.check}: {told.get(f.check)} | {f.summary}" for f in b if told.get(f.check) != f.summary)


def _alarms(findings: tuple[Finding, ...]) -> list[Finding]:
    return [f for f in findings if f.level in ("warn", "fail") and f.steps and not f.check.startswith(NOT_STREAMED)]


def _is(alarm: Finding, other: Finding) -> bool:
    """Whether a later alarm is the same: its onset lies in the interval of the earlier one, or the other way round."""
    if alarm.check != other.check or not alarm.steps or not other.steps:
        return False
    low, high = alarm.onset or (alarm.steps[0], alarm.steps[0])
    lower, higher = other.onset or (other.steps[0], other.steps[0])
    return low <= higher and lower <= high
