"""The book kept while one slice is read: records, skips, and what was wrong where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from checks.contamination.records import Problem, Tally

PLACES = 5
"""Places spelled out per slice and kind of problem; the rest are counted."""
EVERY_COLUMN = "*"
"""Stands for all columns of a record none of which is known to hold text."""


@dataclass(slots=True)
class _Kind:
    places: list[str] = field(default_factory=list)
    times: int = 0
    records: int = 0
    gap: bool = False


@dataclass(slots=True)
class Ledger:
    """Counts into `tally`; problems of the same kind become one line when the ledger is closed."""

    source: str
    tally: Tally
    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _columns: set[str] = field(default_factory=set)

    def note(self, what: str, place: str, *, times: int = 1, records: int = 0, gap: bool = False) -> None:
        """Write down a problem; `what` is the same sentence for all of its kind, `place` tells them apart.

        `gap` says that text which is there was not searched.
        """
        kind = self._kinds.setdefault(what, _Kind())
        if len(kind.places) < PLACES:
            kind.places.append(place)
        kind.times += times
        kind.records += records
        kind.gap |= gap

    def skip(self, what: str, place: str, records: int = 1, *, gap: bool = True) -> None:
        """Count records that are not scanned, and say why; `gap` is False where there was nothing to scan."""
        self.tally.skipped += records
        self.note(what, place, times=records, records=records, gap=gap)

    def read_from(self, columns: Iterable[str]) -> None:
        """Remember the columns that records had their text in."""
        self._columns.update(columns)

    def close(self) -> None:
        """Hand the problems over to the tally, and the columns that were read."""
        for what, kind in self._kinds.items():
            more = kind.times - len(kind.places)
            place = "; ".join(kind.places) + (f"; and {more:,} more" if more > 0 else "")
            self.tally.problems.append(Problem(self.source, place, what, kind.records, kind.gap))
        self.tally.columns = sorted(self._columns.union(self.tally.columns))
        self._kinds.clear()
        self._columns.clear()
