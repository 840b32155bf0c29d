"""One row of a review: a requirement, what was seen, what it is held against, and what would change the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeGuard

Verdict = Literal["pass", "warn", "fail", "unknown", "waived"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A requirement of the policy and the answer. Shares, scores and margins run from 0 to 1."""

    name: str
    """As a waiver names it: `task.mmlu`, `latency.search.p95`."""
    kind: str
    verdict: Verdict
    sentence: str
    """What was seen, in words."""
    n: int = 0
    """Items, prompts or requests that the answer rests on."""
    clusters: int = 0
    statistic: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """One-sided 95 % bounds."""
    threshold: float | None = None
    se_kind: str = ""
    p: float | None = None
    """One-sided p of a regression, before Holm; None where the row tests none."""
    p_holm: float | None = None
    source: str = ""
    masked: tuple[str, ...] = ()
    """Planned events whose windows kept alarms quiet."""
    change: str = ""
    """What would change the verdict."""

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: infinite and missing numbers are null."""
        return {
            k: list(v) if isinstance(v, tuple) else v if not isinstance(v, float) or math.isfinite(v) else None
            for k, v in asdict(self).items()
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Row:
        """The row that `to_json` gave."""
        return cls(**{**raw, "masked": tuple(raw.get("masked", ()))})

    def but(self, **changes: Any) -> Row:
        """This row with other values."""
        return replace(self, **changes)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def unknown(name: str, kind: str, why: str, change: str, **more: Any) -> Row:
    """A row that cannot be answered."""
    return Row(name=name, kind=kind, verdict="unknown", sentence=why, change=change, **more)


def points(share: float) -> str:
    """A difference of scores in percentage points, signed."""
    return f"{100 * share:+.2f} points".replace("+0.00", "0.00").replace("-0.00", "0.00")


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.3g} %"


def figure(row: Row, value: float | None) -> str:
    """A number of a row with its unit."""
    if value is None:
        return "–"
    if row.statistic == "difference":
        return points(value)
    if row.statistic in ("share", "p95 change"):
        return percent(value)
    unit = " s" if row.kind == "latency" else f" {row.statistic.split()[0]}" if row.kind == "cost" else ""
    return f"{value:.4g}{unit}"
