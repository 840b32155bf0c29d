"""Quiet hours: `22:00-07:00 Europe/Berlin`. Warnings wait for their end; failures never do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trainvitals.errors import UsageError

_FORM = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)(?:\s+(\S+))?")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Minutes of the day between which warnings wait."""

    first: int
    end: int
    zone: tzinfo

    def holds(self, now: float) -> bool:
        """Whether a moment (Unix seconds) lies within."""
        at = datetime.fromtimestamp(now, self.zone)
        minute = at.hour * 60 + at.minute
        return self.first <= minute < self.end if self.first <= self.end else not self.end <= minute < self.first


def quiet_hours(text: str) -> QuietHours:
    """Read `HH:MM-HH:MM [ZONE]`; UTC where no time zone is named. Raises UsageError."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--quiet is {text[:40]!r}. Give hours as 22:00-07:00, or with a zone: '22:00-07:00 "
                         "Europe/Berlin'.")
    h1, m1, h2, m2, name = found.groups()
    try:
        zone: tzinfo = ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"{name[:40]!r} is no time zone that this machine knows. Give one as Europe/Berlin.") \
            from error
    return QuietHours(int(h1) * 60 + int(m1), int(h2) * 60 + int(m2), zone)
