"""What is wrong now, what was told of it, and what therefore is to be told: one message per incident, no flapping.

Nothing in here reads a clock or a file: `tell(told, alarms, now)` is the whole rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from checks.finding import LEVELS
from trainvitals.untrusted import MOST_STEP, number, shown, whole

OVER_LOOKS = 3
"""Looks in sequence that must find an incident at an end before that is told: a level that comes and goes is one."""
MOST_TOLD = 500
"""Incidents of one run that are remembered, the newest."""
MOST_TEXT = 600
_RANK: Mapping[str, int] = {"unknown": 0, "pass": 0, "warn": 1, "fail": 2}

Kind = Literal["opened", "worse", "over"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that is wrong, or was."""

    id: str
    level: str
    """`warn` or `fail`."""
    what: str
    """First mover in two or three words, as `loss.divergence`."""
    step: int
    """Where it began."""
    words: str
    """What is known of it."""
    remedy: str
    ongoing: bool
    areas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What people have heard of one incident."""

    id: str
    level: str
    """The worst that was told; "" where it is history from before the watch, of which nothing was told."""
    areas: tuple[str, ...]
    over: bool = False
    at_end: int = 0
    """Looks in sequence that found it at an end."""
    since: float = 0.0
    """When it was first told, Unix seconds."""
    what: str = ""
    step: int = 0

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> Told:
        """What `to_json` gave. Raises ValueError."""
        if not isinstance(raw, dict) or raw.get("level") not in ("", *LEVELS):
            raise ValueError(f"what was told is {shown(raw)}")
        areas = raw.get("areas")
        if not isinstance(areas, list) or not isinstance(raw.get("id"), str) or not isinstance(raw.get("what"), str):
            raise ValueError(f"what was told is {shown(raw)}")
        return cls(raw["id"], raw["level"], tuple(str(a) for a in areas), bool(raw.get("over")),
                   whole(raw.get("at_end"), "at_end", 0, 10**6), number(raw.get("since"), "since"), raw["what"],
                   whole(raw.get("step"), "step", -MOST_STEP, MOST_STEP))


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell."""

    kind: Kind
    alarm: Alarm


def tell(
    told: Iterable[Told], alarms: Iterable[Alarm], now: float, first_look: bool = False
) -> tuple[list[Told], list[News]]:
    """What was told after this look, and the news.

    An incident is told when it is first seen, again when its level rises above every level told or when it reaches an
    area that was never named, and once when `OVER_LOOKS` looks in sequence found it at an end. One that comes back
    after that is told again only where it is worse than before. What is at an end when it is first seen is told by one
    message, and not at all where the look is the first at its run: it is history.
    """
    known = {t.id: t for t in told}
    news: list[News] = []
    present = {a.id: a for a in alarms}
    for alarm in present.values():
        before = known.get(alarm.id)
        if before is None:
            history = first_look and not alarm.ongoing
            level = "" if history else alarm.level
            known[alarm.id] = Told(alarm.id, level, alarm.areas, not alarm.ongoing, 0, now, alarm.what, alarm.step)
            if not history:
                news.append(News("opened", alarm))
        elif alarm.ongoing:
            risen, spread = _RANK[alarm.level] > _RANK.get(before.level, 0), set(alarm.areas) - set(before.areas)
            if risen or spread:
                news.append(News("worse" if before.level else "opened", alarm))
                level = alarm.level if risen else before.level
                areas = tuple(dict.fromkeys((*before.areas, *alarm.areas)))
                known[alarm.id] = replace(before, level=level, areas=areas, over=False, at_end=0)
            elif before.at_end:
                known[alarm.id] = replace(before, at_end=0)
    for t in list(known.values()):
        alarm_now = present.get(t.id)
        if t.over or not t.level or (alarm_now is not None and alarm_now.ongoing):
            continue
        at_end = t.at_end + 1
        known[t.id] = replace(t, at_end=at_end, over=at_end >= OVER_LOOKS)
        if at_end >= OVER_LOOKS:
            ended = alarm_now or Alarm(t.id, t.level, t.what, t.step, "It is no longer found.", "", False, t.areas)
            news.append(News("over", ended))
    return list(known.values())[-MOST_TOLD:], news
