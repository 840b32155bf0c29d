"""The certificate of every check: false alarms and recall, on the recorded runs and on published logs.

A check's false alarms are counted on healthy steps of runs on which it had an answer. Its recall is counted on the
faults that are its own to find (`FINDERS`), whatever else found them.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.detection import published, small
from benchmarks.detection.kinds import FINDERS
from benchmarks.detection.score import Score, false_alarms, score_run, scores
from checks.certificates import FILE, Certificate
from checks.judge import Report, run_checks
from checks.registry import all_checks

COMMAND = "python -m benchmarks.detection certify --runs DIR"


def write(below: Path | None, out: Path = FILE) -> None:
    """Judge the recorded runs, the published logs and the small set, and write what was counted.

    Without recorded runs, what the file says of them and of the published logs is kept.
    """
    large = json.loads(out.read_text(encoding="utf-8")) if below is None else _large(below)
    found = large | {"small": _plain(count_small())}
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _large(below: Path) -> dict[str, Any]:
    if not published.CURVES.is_dir():
        raise SystemExit(f"The published logs are not at {published.CURVES}, and certificates need them.")
    recorded = list(scores(below))
    with tempfile.TemporaryDirectory() as folder:
        logs = [score_run(run, truth) for run, truth in published.runs(Path(folder))]
    finders = {check: (*FINDERS.get(check, ()), *published.FINDERS.get(check, ())) for check in names()}
    kinds = len({score.truth.kind for score in recorded})
    return {
        "made": {"command": COMMAND, "on": f"{len(recorded)} recorded runs of {kinds} kinds and {len(logs)} published "
                                           f"logs; alarms about throughput only where they are the fault"},
        "checks": _plain(count([*recorded, *logs], finders)),
    }  # fmt: skip


def count_small() -> dict[str, Certificate]:
    """The same of the small set, which is made anew wherever this runs."""
    with tempfile.TemporaryDirectory() as folder:
        known = [score_run(run, truth, _without_plans, small.LOOKS) for run, truth in small.runs(Path(folder))]
    return count(known, small.FINDERS)


def count(known: Iterable[Score], finders: Mapping[str, Iterable[str]]) -> dict[str, Certificate]:
    """Certificate of each check that was measured."""
    known = list(known)
    each = {name: _certificate(name, known, set(finders.get(name, ()))) for name in names()}
    return {name: found for name, found in each.items() if found.steps or found.of}


def _without_plans(run: Any, only: Iterable[str] | None = None) -> Report:
    return run_checks(run, names() if only is None else only)


def names() -> list[str]:
    """Of all checks, but for those of the plan: what they judge is no run but a forecast."""
    return [check.name for check in all_checks() if check.area != "scaling"]


def _certificate(name: str, known: list[Score], kinds: set[str]) -> Certificate:
    area = next(check.area for check in all_checks() if check.name == name)
    # The machine that recorded the runs did other work: its true hiccups say nothing of false ones.
    quiet = [s for s in known if name in s.answered and (area != "throughput" or s.truth.quiet_machine)]
    false = [f.level for f in false_alarms(quiet) if f.check == name]
    own = [score for score in known if score.truth.kind in kinds]
    found = [score for score in own if any(f.check == name for f in score.own)]
    delays = [score.delays[name] for score in found if name in score.delays]
    return Certificate(
        steps=sum(score.truth.rows for score in quiet), runs=sum(score.truth.rows > 0 for score in quiet),
        fail=false.count("fail"), warn=false.count("warn"), found=len(found), of=len(own),
        delay=float(statistics.median(delays)) if delays else None)


def _plain(found: Mapping[str, Certificate]) -> dict[str, Any]:
    return {name: asdict(one) for name, one in found.items()}
