"""The book kept while one slice is read: records, skips, and what was wrong where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from checks.contamination.readers.fields import MOST_NAMES, LeftOut
from checks.contamination.records import Problem, Tally

PLACES = 5
"""Places spelled out per slice and kind of problem; the rest are counted."""
FREE_RECORDS = 2_000_000
"""Records that a slice may hold beside one per stored byte: more are empty, and a few kilobytes can hold billions."""
TOO_MANY = "More records than stored bytes, and next to nothing in them: the rest was not read."
BROKEN_RECORDS = "broken records"
"""Under this name the bytes of records that could not be read count as text that was not searched."""


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
    left: LeftOut = field(default_factory=LeftOut)
    """Strings that were read and not searched."""

    def note(self, what: str, place: str, *, times: int = 1, records: int = 0, gap: bool = False) -> None:
        """Write down a problem; `what` is the same sentence for all of its kind, `place` tells them apart.

        `gap` says that text which is there was not searched.
        """
        kind = self._kinds.setdefault(what, _Kind())
        if place and len(kind.places) < PLACES:
            kind.places.append(place)
        kind.times += times
        kind.records += records
        kind.gap |= gap

    def skip(self, what: str, place: str, records: int = 1, *, gap: bool = True, size: int = 0) -> None:
        """Count records that are not scanned, and say why; `gap` is False where there was nothing to scan.

        `size` is that of their stored text, in bytes, where it is known.
        """
        self.tally.skipped += records
        self.note(what, place, times=records, records=records, gap=gap)
        if gap and size:
            self.left.text[BROKEN_RECORDS] = self.left.text.get(BROKEN_RECORDS, 0) + size

    def skip_many(self, what: str, places: Sequence[str], records: int, *, gap: bool) -> None:
        """`skip` for many records of which the first few are named."""
        for place in places:
            self.skip(what, place, gap=gap)
        if more := records - len(places):
            self.tally.skipped += more
            self.note(what, "", times=more, records=more, gap=gap)

    def is_bomb(self) -> bool:
        """Whether there are too many records for the bytes read; it is named then, and reading has to stop."""
        if self.tally.records <= FREE_RECORDS + self.tally.bytes_read:
            return False
        self.note(TOO_MANY, f"after {self.tally.records:,} records", gap=True)
        return True

    def read_from(self, columns: Iterable[str]) -> None:
        """Remember the columns that records had their text in."""
        if len(self._columns) < MOST_NAMES:
            self._columns.update(columns)

    def close(self) -> None:
        """Hand the problems over to the tally, and the columns that were read."""
        for what, kind in self._kinds.items():
            more = kind.times - len(kind.places)
            place = "; ".join(kind.places) + (f"; and {more:,} more" if more > 0 else "")
            self.tally.problems.append(Problem(self.source, place, what, kind.records, kind.gap))
        self.tally.columns = sorted(self._columns.union(self.tally.columns))[:MOST_NAMES]
        counted = LeftOut(self.tally.no_text, self.tally.unsearched)
        counted.add(self.left)
        self.left = LeftOut()
        self._kinds.clear()
        self._columns.clear()
