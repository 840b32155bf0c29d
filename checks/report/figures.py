"""Numbers of a run as people read them, each with its unit; the full number travels beside it for machines."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from checks.contamination.report.text import Html, tag, text

DIGITS = 4


def short(value: float | None) -> str:
    """Four significant digits: 0.001234, 4.567, 12,350, 1.2e-05, NaN; a dash for None."""
    if value is None:
        return "–"
    value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    size = abs(value)
    if value == int(value) and size < 1e6:
        return f"{int(value):,}"
    if size >= 1e15 or size < 1e-4:
        return f"{value:.{DIGITS - 1}g}"
    for scale, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if size >= scale:
            return f"{value / scale:.{DIGITS}g}{suffix}"
    return f"{round(value):,}" if size >= 10_000 else f"{value:.{DIGITS}g}"


def quantity(value: float | None, unit: str) -> Html:
    """A number and its unit, in an element that holds the number to its last bit."""
    said = tag("data", short(value), value="" if value is None else repr(float(value)))
    return said if value is None or unit in ("", "1") else Html(f"{said} {text(unit, 80)}")


def span(steps: tuple[int, int] | None, ongoing: bool = False) -> str:
    """Where a finding lies, in words."""
    if steps is None:
        return "whole run"
    first, last = steps
    if ongoing:
        return f"since step {first:,}"
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def date(seconds: float | None) -> str:
    """A day and minute in UTC; "unknown" for None."""
    if not seconds:
        return "unknown"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return "unknown"
