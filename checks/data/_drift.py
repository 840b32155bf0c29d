"""Follows the token frequencies of one domain: first windows against the newest ones, window after window.

It never looks ahead: what it says after a window is what it would have said live.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from checks.data.two_samples import Gap, OtherText, Pool, clumping_of, gap, single_gap, widest
from checks.robust import best_split

Floats = NDArray[np.float64]

BANKS = (2, 4, 8)
"""Numbers of newest windows that are held against the first ones: few see a large change at once, many a small one."""
SURE = 2.0
"""Deviations beyond the limit at which a change is missed in 2 of 100 cases."""
CALM = 0.5
"""Part of the limit below which an episode is over: a change as large as the limit itself is one, not many."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a drift is one."""

    warn_share: float
    fail_share: float
    own_factor: float
    deviations: float
    reference_windows: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A window that is still in memory."""

    before: int
    step: int
    counts: Floats


@dataclass(slots=True)
class Episode:
    """Windows that left the reference together."""

    onset: tuple[int, int]
    """First and last step at which it may have begun."""
    bank: int
    """Windows that showed it."""
    last: int
    before: Floats
    """[K] counts of the reference."""
    after: Floats
    """[K] counts of the windows that show it most."""
    share: tuple[float, float, float]
    """Share of other text that would move the tokens as far, where it was largest: estimate, and two deviations."""
    failed: bool = False
    ongoing: bool = True


@dataclass(slots=True)
class Course:
    """One domain's windows, and what they have shown."""

    limits: Limits
    episodes: list[Episode] = field(default_factory=list)
    windows: int = 0
    resolves: float = float("inf")
    """Smallest share of other text that would have shown if it stayed, since the reference began anew."""
    largest: float = 0.0
    """Largest share that was estimated from it."""
    single: bool = False
    """Whether lone windows were compared, whose clumping nobody can measure."""
    own: float = 0.0
    """Distance between the windows of the reference, where it is beyond chance."""
    seen: int = 0
    """Windows since the reference began anew."""
    _first: list[Kept] = field(default_factory=list)
    _recent: deque[Kept] = field(default_factory=lambda: deque(maxlen=2 * max(BANKS)))
    _pool: Pool | None = None
    _other: OtherText | None = None
    _clumping: list[float] = field(default_factory=list)
    _by_bank: dict[int, float] = field(default_factory=dict)
    """What each bank resolved when it was last full."""
    _after: int = 0
    """Windows since the last episode, or since the reference began."""

    def begin_anew(self) -> None:
        """Another text is planned from here on."""
        for episode in self.episodes:
            episode.ongoing = False
        self._first, self._pool, self._other, self.own, self.seen = [], None, None, 0.0, 0
        self._recent.clear()
        self._clumping, self._after = [], 0
        self.resolves, self._by_bank = float("inf"), {}

    def add(self, before: int, step: int, counts: Floats) -> None:
        """Look at one more window that holds tokens. counts: [K]."""
        kept = Kept(before, step, counts)
        self.windows += 1
        self.seen += 1
        self._after += 1
        if self._recent and not self._open:
            self._clumping.append(clumping_of(self._recent[-1].counts, counts))
        self._recent.append(kept)
        if self.seen == 1:
            self._first = [kept]
            return
        if self.seen < 4:
            self._lone(kept)
            return
        wanted = min(self.limits.reference_windows, self.seen // 2)
        untouched = self._after == self.seen and not self._open
        if self._pool is None or len(self._first) < wanted and untouched:
            self._refer(wanted)
        for bank in BANKS:
            if bank <= min(self.seen - len(self._first), self._after) and (bank == 2 or self.seen % (bank // 2) == 0):
                self._compare(bank)

    @property
    def _open(self) -> Episode | None:
        return self.episodes[-1] if self.episodes and self.episodes[-1].ongoing else None

    def _refer(self, wanted: int) -> None:
        every = [*self._first, *(k for k in self._recent if k.step > self._first[-1].step)]
        self._first = every[:wanted]
        self._pool = Pool.of([k.counts for k in self._first])
        self._other = OtherText(self._pool.total)
        if wanted >= 4:
            early, late = (Pool.of([k.counts for k in half]) for half in (self._first[:2], self._first[2:]))
            halves = gap(early, late, self._scatter)
            self.own = halves.square if halves.square > self.limits.deviations * halves.sigma else 0.0

    @property
    def _scatter(self) -> float:
        return widest(self._clumping)

    def _lone(self, kept: Kept) -> None:
        """With two or three windows there are no two pools of two."""
        self.single = True
        first, now = Pool.of([self._first[0].counts]), Pool.of([kept.counts])
        self._other = OtherText(first.total)
        found = single_gap(first, now)
        self._resolution(found, 1)
        if found.square > self._limit(found):
            self.resolves = 1.0  # clumped documents may explain it, or not

    def _compare(self, bank: int) -> None:
        assert self._pool is not None and self._other is not None
        newest = list(self._recent)[-bank:]
        found = gap(self._pool, Pool.of([k.counts for k in newest]), self._scatter)
        self.single = False
        self._resolution(found, bank)
        if found.square > self._limit(found) + self.limits.deviations * found.sigma:
            self._alarm(found, bank, newest)
        elif (episode := self._open) and bank >= episode.bank and found.square < CALM * self._limit(found):
            episode.ongoing = False
            self._after = bank  # no bank holds windows of the episode from here on

    def _limit(self, found: Gap) -> float:
        assert self._other is not None
        return max(self._other.square(self.limits.warn_share, found.fraction), self.limits.own_factor * self.own)

    def _resolution(self, found: Gap, bank: int) -> None:
        assert self._other is not None
        least = self._limit(found) + (self.limits.deviations + SURE) * found.sigma
        if bank > 1:
            self._by_bank.pop(1, None)
        self._by_bank[bank] = self._other.share(least, found.fraction)
        self.resolves = min(self._by_bank.values())
        self.largest = max(self.largest, self._other.share(found.square, found.fraction))

    def _alarm(self, found: Gap, bank: int, newest: Sequence[Kept]) -> None:
        assert self._other is not None
        share = tuple(self._other.share(found.square + k * found.sigma, found.fraction) for k in (0, -2, 2))
        episode = self._open
        if episode is None:
            reference = np.sum([k.counts for k in self._first], axis=0)
            episode = Episode(self._onset(newest), bank, 0, reference, reference, (0.0, 0.0, 0.0))
            self.episodes.append(episode)
            if len(self._clumping) > 1:
                self._clumping.remove(max(self._clumping))  # between the windows that the change lies between
        episode.last = newest[-1].step
        episode.bank = min(episode.bank, bank)
        if share[0] >= episode.share[0]:
            episode.after = np.sum([k.counts for k in newest], axis=0)
            episode.share = (share[0], share[1], share[2])
        least = found.square - self.limits.deviations * found.sigma
        bound = max(self._other.square(self.limits.fail_share, found.fraction), self.limits.own_factor * self.own)
        episode.failed |= least > bound

    def _onset(self, newest: Sequence[Kept]) -> tuple[int, int]:
        """The window in which the best two-level split of the windows lies, projected on the change."""
        line = [*self._first, *(k for k in self._recent if k.step > self._first[-1].step)]
        shares = [k.counts / k.counts.sum() for k in line]
        before = np.mean(shares[: len(self._first)], axis=0)
        after = np.sum([k.counts for k in newest], axis=0)
        after = after / after.sum()
        pooled = before + after
        direction = np.divide(after - before, pooled, out=np.zeros_like(pooled), where=pooled > 0)
        score = np.array([s @ direction for s in shares])
        row = len(self._first) + best_split(score[len(self._first) - 1 :]) - 1
        row = min(max(row, len(self._first)), len(line) - 1)
        return line[row].before + 1, line[row].step
