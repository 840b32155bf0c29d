"""What a check says: findings, and the incidents that related findings make up. Plain data, as strict JSON too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from trainvitals.catalogue import FIELDS, SIGNALS

Level = Literal["pass", "warn", "fail", "unknown"]
LEVELS: tuple[str, ...] = get_args(Level)
Steps = tuple[int, int]
"""First and last step, both included."""

_AXIS_WORDS = {"router_layer": "layer", "layer": "layer", "domain": "domain", "rank": "rank", "group": "group"}

_SPOKEN = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class Evidence:
    """A slice of a signal that shows what the finding is about; a board can open it."""

    signal: str
    steps: Steps | None = None
    label: str | None = None
    """Layer, expert (`layer.expert`), domain or rank; None for the whole signal."""

    @property
    def place(self) -> str:
        """The label in words, such as `expert 3 of layer 1`; "" for the whole signal."""
        known = SIGNALS.get(self.signal) or FIELDS.get(self.signal)
        axes = known.axes if known else ()
        if self.label is None:
            return ""
        if axes == ("router_layer", "expert"):
            layer, _, expert = self.label.rpartition(".")
            return f"expert {expert} of layer {layer}"
        return f"{_AXIS_WORDS[axes[0]]} {self.label}" if len(axes) == 1 and axes[0] in _AXIS_WORDS else self.label


@dataclass(frozen=True, slots=True)
class Statistic:
    """The observed number, with an interval where one is known."""

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """What the statistic is held against, and where that number comes from."""

    warn: float | None
    fail: float | None
    unit: str
    source: str
    """A URL, or the words "convention" or "measured" and on what."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A planned event whose window kept an excursion from raising an alarm."""

    kind: str
    step: int
    until: int
    """Last step of the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer of one check. `check` and `area` may be left empty by a check: the registry fills them in."""

    check: str = ""
    area: str = ""
    level: Level
    summary: str
    """One sentence: what, where, since which step."""
    steps: Steps | None = None
    """From the onset to the last step that shows it; None where no range applies."""
    onset: Steps | None = None
    """First and last step at which it may have begun, where that was estimated."""
    ongoing: bool = False
    """Still there at the last row. A recovered spike is history, an ongoing one is an alarm."""
    n: int = 0
    """Points the answer rests on."""
    statistic: Statistic | None = None
    threshold: Threshold | None = None
    evidence: tuple[Evidence, ...] = ()
    what_it_means: str = ""
    what_to_do: str = ""
    masked: tuple[Masked, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything more; JSON types and numpy numbers. `onset` says how the first step was located."""
    certificate: str = ""
    """How often the check was wrong where it was measured, in words; the registry fills it in."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"A finding has no level {self.level!r}. Use one of {', '.join(LEVELS)}.")

    def to_json(self) -> dict[str, Any]:
        """Strict JSON types: NaN and the infinities become the strings "NaN", "Infinity" and "-Infinity"."""
        return dict(_plain(asdict(self)))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Finding:
        """The finding that `to_json` gave. Numbers inside `details` that are not finite stay strings."""
        known = {**raw, "certificate": str(raw.get("certificate", ""))}
        known["steps"], known["onset"] = _steps(raw.get("steps")), _steps(raw.get("onset"))
        for key, kind in (("statistic", Statistic), ("threshold", Threshold)):
            value = raw.get(key)
            known[key] = kind(**{k: _number(v) if k in _NUMBERS else v for k, v in value.items()}) if value else None
        known["evidence"] = tuple(
            Evidence(e["signal"], _steps(e["steps"]), e["label"]) for e in raw.get("evidence", ())
        )
        known["masked"] = tuple(Masked(**m) for m in raw.get("masked", ()))
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One signal's place in the order of an incident."""

    check: str
    label: str | None
    step: int
    """Its onset."""
    lag_steps: int
    """Steps after the first mover; 0 for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Findings that belong together in time and cause: one alarm."""

    level: Level
    summary: str
    steps: Steps
    ongoing: bool
    areas: tuple[str, ...]
    order: tuple[Moved, ...]
    """What moved first, then the rest."""
    findings: tuple[int, ...]
    """Positions in `Report.findings`, in the order of `order`."""
    twins: str = ""
    """Whether the data did it or this run, in a sentence; empty where no twin can tell (`checks.twins.whose`)."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return dict(_plain(asdict(self)))


_NUMBERS = {"value", "low", "high", "warn", "fail"}


def _steps(raw: Any) -> Steps | None:
    return None if raw is None else (int(raw[0]), int(raw[1]))


def _number(raw: Any) -> Any:
    return _SPOKEN.get(raw, raw) if isinstance(raw, str) else raw


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
