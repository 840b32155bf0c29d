"""What can be turned: the thresholds of one check or scan that make it warn, or fail, looser or tighter together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from checks.policy import SHARES, pairs, shipped
from checks.registry import Check, all_checks

SCANNED = {"scan.loss": ("loss/",), "scan.gradient": ("grad/", "update/"), "scan.validation_gap": ("loss/val",)}
"""Scan -> how the signals begin whose checks it serves."""
SCAN_WARNS = ("warn", "fall", "lone", "brief", "raw_warn", "raw_fall", "raw_lone")
SCAN_FAILS = ("fail", "raw_fail")


@dataclass(frozen=True, slots=True)
class Dial:
    """Thresholds that are turned together."""

    name: str
    """A check, or `scan.NAME`."""
    level: Literal["warn", "fail"]
    keys: tuple[str, ...]
    down: frozenset[str]
    """Those that are looser where they are smaller."""
    checks: tuple[str, ...]
    """Whose alarms it moves."""

    def at(self, scale: float) -> dict[str, float]:
        """Its settings, `scale` times as loose as the shipped ones; tighter below 1."""
        defaults = shipped()[self.name]
        return {key: loosened(key, float(defaults[key]), 1 / scale if key in self.down else scale) for key in self.keys}


def loosened(key: str, value: float, scale: float) -> float:
    """A threshold scaled in its own unit: factors by their excess over 1, shares by their odds, others as they are."""
    if scale == 1:
        return value
    if key.endswith("factor") and value > 1:
        scaled = 1 + scale * (value - 1)
    elif any(word in key for word in SHARES) and 0 < value < 1:
        scaled = scale * value / (1 - value + scale * value)
    else:
        scaled = value * scale
    return float(f"{scaled:.4g}")


@cache
def dials() -> tuple[Dial, ...]:
    """Every dial there is. A check whose settings are not a warning and a failure has none."""
    found = [dial for check in all_checks() if check.area != "scaling" for dial in _of(check.name, (check.name,))]
    for name, starts in SCANNED.items():
        served = tuple(c.name for c in all_checks() if _serves(c, starts))
        found.append(Dial(name, "fail", SCAN_FAILS, frozenset(), served))
        found.append(Dial(name, "warn", SCAN_WARNS, frozenset(), served))
    return tuple(found)


def _serves(check: Check, starts: tuple[str, ...]) -> bool:
    return any(signal.startswith(starts) for signal in check.reads) and check.name not in shipped()


def _of(name: str, checks: tuple[str, ...]) -> list[Dial]:
    settings: Any = shipped().get(name, {})
    found = [(a, b) for a, b in pairs(settings) if isinstance(settings[a], float)]
    if not found:
        return []
    down = frozenset(key for a, b in found if settings[a] > settings[b] for key in (a, b))
    return [Dial(name, "fail", tuple(b for _, b in found), down, checks),
            Dial(name, "warn", tuple(a for a, _ in found), down, checks)]
