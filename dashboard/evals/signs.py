"""How a comparison looks in a cell, a list and a chart: a shape and a word beside the colour."""

from __future__ import annotations

from dataclasses import dataclass

from checks.evals.compare import Compared
from dashboard.charts.levels import LEVELS


@dataclass(frozen=True, slots=True)
class Sign:
    """One state of a comparison."""

    mark: str
    word: str
    hue: str
    """Colour of a mark; "" for none."""
    rank: int
    """What is wrong comes first."""


SIGNS = {
    "fail": Sign("▼▼", "lost beyond chance, over all tasks together", LEVELS["fail"].hue, 0),
    "warn": Sign("▼", "lost by itself; chance over all tasks together", LEVELS["warn"].hue, 1),
    "unknown": Sign("?", "not known", "", 2),
    "pending": Sign("…", "being compared", "", 3),
    "gain": Sign("▲", "gained by itself", LEVELS["pass"].hue, 4),
    "pass": Sign("=", "no loss beyond chance", "", 5),
    "none": Sign("", "not asked", "", 6),
}
TINT = "38"
"""Alpha of a cell's colour, so that the text reads on light and on dark."""


def sign_of(one: Compared | None) -> str:
    """The name of the sign; a comparison that is not known yet is pending."""
    if one is None:
        return "pending"
    if one.level == "pass":
        return "gain" if one.interval is not None and one.interval[0] > 0 else "pass"
    return one.level if one.level in SIGNS else "unknown"


def points(one: Compared) -> bool:
    """Whether the scores are shares, so that a difference is in percentage points."""
    return one.shares


def amount(value: float | None, share: bool) -> str:
    """A difference with its sign and unit: "-3.25 points"."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f} points" if share else f"{value:+.4g}"
