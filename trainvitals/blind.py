"""What a log cannot tell, so that a check answers `unknown` there instead of `pass`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

Blindness = Literal["nonfinite", "rounded", "averaged", "last", "sampled", "rank", "scaled", "absent", "steps"]
"""What a format cannot tell: NaN and infinity; digits beyond the printed ones; rows between two logged ones, because
it logs their mean, or the last one alone; rows that it leaves out; other ranks; the scale (clipped or not, summed or
averaged); a quantity that is not in it at all; which step a row belongs to."""
BLINDNESS: tuple[str, ...] = get_args(Blindness)


@dataclass(frozen=True, slots=True)
class BlindSpot:
    """Something that a log of this format hides, so that a check answers `unknown` there instead of `pass`."""

    kind: Blindness
    signals: tuple[str, ...]
    """Catalogue names that it concerns; a family as `grad/`."""
    says: str
    """What is hidden and why, one sentence: "Megatron-LM leaves a loss that is NaN out of its line"."""
    remedy: str
    """How the user gets to see it, one sentence."""

    def concerns(self, signals: Iterable[str]) -> bool:
        """Whether any of these signals is one of its own or of its families."""
        return any(name == own or (own.endswith("/") and name.startswith(own)) for own in self.signals
                   for name in signals)


def to_json(spots: Iterable[BlindSpot]) -> list[dict[str, Any]]:
    """Spots as plain data."""
    return [{"kind": s.kind, "signals": list(s.signals), "says": s.says, "remedy": s.remedy} for s in spots]


def from_json(raw: Any) -> tuple[BlindSpot, ...]:
    """The spots that `to_json` gave. Raises ValueError for what is none."""
    if not isinstance(raw, list):
        raise ValueError("blind spots are no list")
    return tuple(_spot(item) for item in raw)


def _spot(raw: Any) -> BlindSpot:
    if not isinstance(raw, Mapping) or raw.get("kind") not in BLINDNESS or not isinstance(raw.get("signals"), list):
        raise ValueError("a blind spot has no kind or no signals")
    return BlindSpot(cast(Blindness, raw["kind"]), tuple(str(name) for name in raw["signals"]),
                     str(raw.get("says", "")), str(raw.get("remedy", "")))
