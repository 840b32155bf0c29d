"""Batches that come again, told from passes over the data by counting.

A pass takes every batch once before any comes again, in whatever order. So while passes are all there is, no batch has
come two times more often than another, and no unseen one follows before a pass that has begun is whole. A row that
breaks this shows that what came again before it was no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

LEAST_PASS = 20
"""Batches of a pass that may be followed by other data, as a stage is by the next. Fewer are a loader that hung."""


@dataclass(slots=True)
class Repeats:
    """Reads fingerprints in order and never looks ahead."""

    rows: list[tuple[int, int]] = field(default_factory=list)
    """Rows that came again and belong to no pass, and for each the row at which that was known."""
    pending: list[int] = field(default_factory=list)
    """Rows at the end that came again and may be a pass that has begun."""
    whole: list[int] = field(default_factory=list)
    """Rows of second and later passes that are whole."""
    _count: dict[int, int] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)
    _hash: dict[int, int] = field(default_factory=dict)
    """Pending row -> its fingerprint."""
    _passes: int = 1
    """How often every batch came."""
    _left: int = 0
    """Batches that came no more often than that."""

    @property
    def distinct(self) -> int:
        """Batches that differ, since the data last changed as a whole."""
        return len(self._count)

    def add(self, row: int, fingerprint: int) -> None:
        """Look at one more row."""
        count = self._count.get(fingerprint)
        if count is None:
            self._unseen(row, fingerprint)
        elif count == self._passes:
            self._come_again(row, fingerprint)
        else:
            # Twice within one pass: what lies between the two times is a circle of its own.
            since = self._last[fingerprint]
            self._blame([r for r in self.pending if r > since], row)
            self.rows.append((row, row))
        self._last[fingerprint] = row

    def begin_anew(self) -> None:
        """Other data is planned from here on."""
        self.pending, self.whole = [], []
        self._count, self._last, self._hash, self._passes, self._left = {}, {}, {}, 1, 0

    def _unseen(self, row: int, fingerprint: int) -> None:
        self._blame(list(self.pending), row)
        if self._passes > 1:
            if len(self._count) < LEAST_PASS:
                self.rows += [(r, row) for r in self.whole]
            self.begin_anew()
        self._count[fingerprint] = 1
        self._left += 1

    def _come_again(self, row: int, fingerprint: int) -> None:
        self._count[fingerprint] += 1
        self.pending.append(row)
        self._hash[row] = fingerprint
        self._left -= 1
        if self._left == 0:
            self.whole += self.pending
            self.pending, self._hash = [], {}
            self._passes += 1
            self._left = len(self._count)

    def _blame(self, rows: list[int], at: int) -> None:
        """Count these pending rows as no pass, and as if they had not been."""
        for row in rows:
            self._count[self._hash.pop(row)] -= 1
            self._left += 1
        blamed = set(rows)
        self.pending = [row for row in self.pending if row not in blamed]
        self.rows += [(row, at) for row in rows]


def repeats(fingerprints: Sequence[int], starts: Sequence[int] = ()) -> Repeats:
    """All rows at once; `starts` are rows from which on other data is planned."""
    found, anew = Repeats(), set(starts)
    for row, fingerprint in enumerate(fingerprints):
        if row in anew:
            found.begin_anew()
        found.add(row, int(fingerprint))
    return found
