"""Violations of a checkpoint, per safety task and category, with the share that they leave possible.

The numbers are those of the release review's own rows (`checks.review.safety_rows`), asked with a limit that is not
shown: bounds depend on what was seen, and only the answer on the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from checks.review.evidence import Evidence
from checks.review.policy import Policy, SafetyRule
from checks.review.row import Row
from checks.review.safety_rows import safety_rows
from trainvitals.evals import Evals, Sheet

FAMILIES = ("jailbreak", "harmful content", "secrets", "hallucination", "privacy", "bias")
"""Families whose tasks are gates rather than capabilities, as importers name them."""
MOST_CATEGORIES = 40
_ANY_LIMIT = 0.5


@dataclass(frozen=True, slots=True)
class Gate:
    """One task, or one category of it."""

    task: str
    category: str
    """"" for the whole task."""
    n: int
    families: int
    violations: int | None
    share: float | None
    high: float | None
    """One-sided 95 % bound."""
    why: str
    """Why nothing is known; "" where something is."""

    @property
    def row(self) -> str:
        """The name of its row in a review."""
        return f"safety.{self.task}" + (f".{self.category}" if self.category else "")


def safety_tasks(evals: Evals) -> list[str]:
    """Tasks of the safety families."""
    return sorted({s.task for s in evals.summaries if s.family in FAMILIES})


def gates(evals: Evals, checkpoint: str, tasks: Sequence[str]) -> list[Gate]:
    """Every task that the checkpoint was asked, each followed by its categories."""
    found: list[Gate] = []
    for task in tasks:
        sheet = evals.sheet(task, checkpoint)
        if sheet is not None:
            found += _of(sheet)
    return found


def _of(sheet: Sheet) -> list[Gate]:
    groups = [str(g) for g in sheet.items["group"].dropna().value_counts().index[:MOST_CATEGORIES]]
    policy = Policy(safety={sheet.task: SafetyRule(limit=_ANY_LIMIT, categories=dict.fromkeys(groups, _ANY_LIMIT))})
    rows = list(safety_rows(policy, Evidence({sheet.task: sheet}, {}, {})))
    return [_gate(sheet.task, name, row) for name, row in zip(["", *groups], rows, strict=True)]


def _gate(task: str, category: str, row: Row) -> Gate:
    if row.value is None:
        return Gate(task, category, row.n, 0, None, None, None, row.sentence)
    return Gate(task, category, row.n, row.clusters, round(row.value * row.n), row.value, row.high, "")
