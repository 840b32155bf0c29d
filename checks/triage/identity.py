"""Which incident is which, while a run grows and is judged again: what people and watchers remember it by.

A later look may find an earlier first mover, move an onset by some steps, add members, or name the same steps by
another check (a spike becomes a divergence). The incident stays the same as long as it shares a member with what is
remembered of it, or the steps at which a member of the same cause began.

    known = match(known, report.incidents, report.findings)   # one for each incident, in their order
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from checks.finding import Finding, Incident
from checks.judge import CAUSES, ONSET_ERROR_STEPS
from trainvitals.untrusted import MOST_STEP, shown, whole

MOST_MEMBERS = 200
MOST_NAME = 200
"""Characters of an id, a cause or a check's name."""


@dataclass(frozen=True, slots=True)
class Member:
    """One check's part in an incident."""

    check: str
    first: int
    last: int
    """The steps between which it began."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of an incident."""

    id: str
    """Cause and first step as they were when it was first told, as `learning-412`. It never changes."""
    cause: str
    members: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> Known:
        """What `to_json` gave. Raises ValueError."""
        if not isinstance(raw, dict) or not isinstance(raw.get("members"), list | tuple):
            raise ValueError(f"an incident is {shown(raw)}")
        members = tuple(_member(m) for m in raw["members"][:MOST_MEMBERS])
        return cls(_name(raw.get("id")), _name(raw.get("cause")), members)


def match(known: Sequence[Known], incidents: Sequence[Incident], findings: Sequence[Finding]) -> list[Known]:
    """What is to be remembered of each incident: the id of the known one that it continues, else one of its own.

    Of several incidents that continue one known, the one that shares most members keeps its id; where two known have
    grown together, the one told first (the first in `known`) names them. What is in `known` and in no incident any
    more is left out: the caller decides whether it is over.
    """
    looks = [_members(incident, findings) for incident in incidents]
    pairs = [(k, -_shared(old.members, members), i) for k, old in enumerate(known)
             for i, (cause, members) in enumerate(looks) if old.cause == cause and _meet(old.members, members)]
    heir: dict[int, int] = {}
    for k, _, i in sorted(pairs):
        if i not in heir and k not in heir.values():
            heir[i] = k
    taken = {old.id for old in known}
    told: list[Known] = []
    for i, (cause, members) in enumerate(looks):
        name = known[heir[i]].id if i in heir else _unused(f"{cause}-{incidents[i].steps[0]}", taken)
        taken.add(name)
        told.append(Known(name, cause, members))
    return told


def named(incident: Known, id: str) -> bool:
    """Whether an id means this incident: its own, or another look's, of a step at which a member began."""
    cause, _, rest = id.partition("-")
    step = rest.partition("-")[0]
    return id == incident.id or (cause == incident.cause and step.isdecimal() and len(step) < MOST_NAME and any(
        _at_once(m, Member(m.check, int(step), int(step))) for m in incident.members))


def _members(incident: Incident, findings: Sequence[Finding]) -> tuple[str, tuple[Member, ...]]:
    group = [findings[i] for i in incident.findings]
    return CAUSES[group[0].area], tuple(_as_member(f) for f in group[:MOST_MEMBERS])


def _as_member(finding: Finding) -> Member:
    at = finding.steps[0] if finding.steps else 0
    first, last = finding.onset or (at, at)
    return Member(finding.check, min(first, at), max(last, at))


def _shared(old: Sequence[Member], new: Sequence[Member]) -> int:
    return sum(any(o.check == m.check and _at_once(o, m) for o in old) for m in new)


def _meet(old: Sequence[Member], new: Sequence[Member]) -> bool:
    return any(_at_once(o, m) for o in old for m in new)


def _at_once(one: Member, other: Member) -> bool:
    return one.first <= other.last + ONSET_ERROR_STEPS and other.first <= one.last + ONSET_ERROR_STEPS


def _unused(name: str, taken: set[str]) -> str:
    return name if name not in taken else next(n for i in range(2, len(taken) + 3) if (n := f"{name}-{i}") not in taken)


def _member(raw: Any) -> Member:
    if not isinstance(raw, dict):
        raise ValueError(f"a member is {shown(raw)}")
    first, last = (whole(raw.get(name), name, -MOST_STEP, MOST_STEP) for name in ("first", "last"))
    return Member(_name(raw.get("check")), first, last)


def _name(raw: Any) -> str:
    if not isinstance(raw, str) or not 0 < len(raw) <= MOST_NAME:
        raise ValueError(f"a name is {shown(raw)}")
    return raw
