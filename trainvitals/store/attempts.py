"""Attempts: which writers ran together, which came later, and which rows of each are on the main line.

A job that is resumed from step s makes everything that earlier attempts stored after s obsolete (the rule of
TensorBoard's reader). Those rows stay readable as a branch. The order of attempts is that of the numbers which their
writers claimed in the folder (`trainvitals/store/claims.py`), not that of anybody's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainvitals.store.segment import Header

ENDLESS = 2**62
CLOCKS_AGREE_SECONDS = 5.0
"""Clocks of two hosts may differ so much before that is named; NTP keeps them within milliseconds."""
STARTS_TOGETHER_SECONDS = 60.0
"""Ranks of one job start within this, else their clocks or their start are named."""


@dataclass(frozen=True, slots=True)
class Writer:
    """One process's part of one attempt."""

    name: str
    rank: int
    world_size: int
    start_step: int
    started: float
    """Unix time by the clock of its host."""
    attempt: int = 0
    """Rises from 1; 0 for writers of earlier versions, which are older than all with a number."""
    rewind: int = 0
    launch: str = ""
    clock_ahead: float = 0.0
    """Seconds by which the clock of its host was ahead of the file system's, as far as it could tell."""

    @classmethod
    def of(cls, header: Header, clock_ahead: float = 0.0) -> Writer:
        return cls(header.writer, header.rank, header.world_size, header.start_step, header.started, header.attempt,
                   header.rewind, header.launch, clock_ahead)

    @property
    def host(self) -> str:
        return self.name.split("-")[0]

    @property
    def process(self) -> str:
        """Host and process id."""
        return "-".join(self.name.split("-")[:3:2])

    @property
    def who(self) -> str:
        """Host, process and attempt in words."""
        words = self.name.split("-")
        process = f", process {words[2]}" if len(words) > 3 else ""
        return f"{words[0]}{process}" + (f" (attempt {self.attempt})" if self.attempt else "")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Writers that ran together from one start step."""

    start_step: int
    started: float
    """Unix time at which its first writer began."""
    world_size: int
    writers: tuple[Writer, ...]
    kept_until: int = ENDLESS
    """Last step that is on the main line; later rows are a branch."""

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted(writer.rank for writer in self.writers))


def group(writers: Iterable[Writer], first_rows: Mapping[str, int]) -> tuple[Attempt, ...]:
    """Group writers into attempts, oldest first.

    `first_rows` maps a writer to its first stored step; an attempt cuts earlier ones only once it has a row. Ranks of
    one attempt may start at different steps: it cuts at the smallest.
    """
    attempts: list[Attempt] = []
    limit = ENDLESS
    for team in reversed(_teams(writers)):
        start = min(w.start_step for w in team)
        attempts.append(Attempt(start, min(w.started for w in team), max(w.world_size for w in team), tuple(team),
                                limit))
        rows = [first_rows[w.name] for w in team if w.name in first_rows]
        if rows:
            limit = min(limit, start, min(rows) - 1)
    return tuple(reversed(attempts))


def _teams(writers: Iterable[Writer]) -> list[list[Writer]]:
    """Writers that ran together, oldest first: those of one attempt number and as many rollbacks.

    Two of one rank with the same number are two jobs that began at once; the later one is a team of its own. Writers
    without a number come from versions that had none; among them, in order of time, a new team begins when a rank
    appears again or when the start step differs.
    """
    teams: list[list[Writer]] = []
    ranks: set[int] = set()
    for writer in sorted(writers, key=lambda w: (w.attempt, w.rewind, w.started, w.rank)):
        last = teams[-1][0] if teams else None
        same = last is not None and (
            (writer.attempt, writer.rewind) == (last.attempt, last.rewind) if writer.attempt
            else not last.attempt and writer.start_step == last.start_step)
        if same and writer.rank not in ranks:
            teams[-1].append(writer)
        else:
            teams.append([writer])
            ranks = set()
        ranks.add(writer.rank)
    return teams


def overlaps(attempts: Sequence[Attempt], last_row: Callable[[str], float], closed: Mapping[str, float]
             ) -> list[tuple[Writer, Writer]]:
    """Pairs of writers of one rank of which the older wrote on after the newer had begun.

    `last_row` gives the time of a writer's newest row by its own clock; it is asked only where `closed`, when writers
    ended, does not tell that all was over before. One host has one clock; across hosts, the writers' offsets from the
    file system's are taken out, and `CLOCKS_AGREE_SECONDS` are allowed for.
    """
    found = []
    newest: dict[int, Writer] = {}
    for attempt in attempts:
        for writer in attempt.writers:
            older = newest.get(writer.rank)
            newest[writer.rank] = writer
            if older is None or (older.process, older.attempt) == (writer.process, writer.attempt):
                continue  # the first of its rank, or one process before and after a rollback
            same = older.host == writer.host
            limit = writer.started + (0.0 if same else CLOCKS_AGREE_SECONDS + older.clock_ahead - writer.clock_ahead)
            if closed.get(older.name, ENDLESS) > limit and last_row(older.name) > limit:
                found.append((older, writer))
    return found


def clock_notes(attempts: Sequence[Attempt]) -> list[str]:
    """What shows that the clocks of hosts do not agree, one sentence each."""
    found = []
    for earlier, later in pairwise(attempts):
        if earlier.writers[0].attempt and later.started < earlier.started - CLOCKS_AGREE_SECONDS:
            found.append(f"Attempt {later.writers[0].attempt} on {later.writers[0].host} began "
                         f"{earlier.started - later.started:,.0f} s before attempt {earlier.writers[0].attempt} on "
                         f"{earlier.writers[0].host}, by their clocks: one of them is wrong. The order of the attempts "
                         "is that of their numbers.")
    for attempt in attempts:
        first = min(attempt.writers, key=lambda w: w.started)
        last = max(attempt.writers, key=lambda w: w.started)
        if first.host != last.host and last.started - first.started > STARTS_TOGETHER_SECONDS:
            found.append(f"Ranks of attempt {max(first.attempt, 1)} began {last.started - first.started:,.0f} s apart, "
                         f"by the clocks of {first.host} and {last.host}: those differ, or the job started slowly.")
    return found
