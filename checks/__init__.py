"""Health checks of a training run: plain functions that read a run and answer with findings. They draw nothing."""

from __future__ import annotations

from checks.finding import Evidence, Finding, Incident, Level, Masked, Moved, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.judge import Report, Verdict, run_checks
from checks.reading import Rows, scalar, vector
from checks.registry import AREAS, Check, all_checks, check

__all__ = [
    "AREAS",
    "Check",
    "Evidence",
    "Finding",
    "Ground",
    "Incident",
    "Level",
    "Masked",
    "Moved",
    "Report",
    "Rows",
    "Spell",
    "Statistic",
    "Threshold",
    "Verdict",
    "all_checks",
    "check",
    "run_checks",
    "scalar",
    "vector",
]
