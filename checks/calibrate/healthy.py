"""Runs that a user calls healthy: how often each check alarms on them, at any setting of a dial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.calibrate.dials import Dial, dials
from checks.finding import Finding
from checks.reading import Snapshot, has
from checks.registry import Check, all_checks

if TYPE_CHECKING:
    from trainvitals.store import Run

ALARMS = {"warn": ("warn", "fail"), "fail": ("fail",)}
"""Level of a dial -> levels of the findings that it counts: a warning that became a failure was one, too."""


@dataclass
class Healthy:
    """One run under the shipped thresholds, opened again where other settings are tried."""

    run: Run
    findings: list[Finding] = field(default_factory=list)
    tried: dict[tuple[str, str, float], int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Healthy:
        """Judge it once."""
        snapshot: Any = Snapshot(run)
        return cls(run, [f for check in all_checks() if check.area != "scaling" for f in check.run(snapshot)])

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.run.path)

    def rows(self, dial: Dial) -> int:
        """Rows that the dial's checks looked at; 0 where none of them had an answer."""
        answered = {f.check for f in self.findings if f.level != "unknown"}
        asked = [check for check in all_checks() if check.name in dial.checks and check.name in answered]
        return max((_rows(self.run, check) for check in asked), default=0)

    def alarms(self, dial: Dial, scale: float = 1.0) -> int:
        """Alarms of the dial's level at a scale."""
        key = (dial.name, dial.level, scale)
        if key not in self.tried:
            found = self.findings if scale == 1 else self._judged(dial, scale)
            self.tried[key] = sum(f.check in dial.checks and f.level in ALARMS[dial.level] for f in found)
        return self.tried[key]

    def unexplained(self) -> list[Finding]:
        """Failures that no dial could have prevented: what has them is not healthy."""
        turned = {name for dial in dials() if dial.level == "fail" for name in dial.checks}
        return [f for f in self.findings if f.level == "fail" and f.check not in turned]

    def _judged(self, dial: Dial, scale: float) -> list[Finding]:
        settings = {dial.name: dial.at(scale)}
        snapshot: Any = Snapshot(self.run, settings)
        chosen = [check for check in all_checks() if check.name in dial.checks]
        return [f for check in chosen for f in check.run(snapshot, settings.get(check.name))]


def _rows(run: Run, check: Check) -> int:
    for name in (*check.reads, *check.instead.values()):
        if has(run, name):
            return len(run.array(name).steps)
    return 0 if check.reads or run.first_step is None else (run.last_step or 0) - run.first_step + 1


def counted(runs: Sequence[Healthy], dial: Dial, scale: float = 1.0) -> tuple[int, int]:
    """Alarms and rows of all runs together."""
    return sum(run.alarms(dial, scale) for run in runs), sum(run.rows(dial) for run in runs)
