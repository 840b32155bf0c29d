"""Attempts: which writers ran together, which came later, and which rows of each are on the main line.

A job that is resumed from step s makes everything that earlier attempts stored after s obsolete (the rule of
TensorBoard's reader). Those rows stay readable as a branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainvitals.store.segment import Header

ENDLESS = 2**62


@dataclass(frozen=True, slots=True)
class Writer:
    """One process's part of one attempt."""

    name: str
    rank: int
    world_size: int
    start_step: int
    started: float

    @classmethod
    def of(cls, header: Header) -> Writer:
        return cls(header.writer, header.rank, header.world_size, header.start_step, header.started)


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

    Ranks never talk to each other through us, so this is read off their start: in order of time, a new attempt begins
    when a rank appears again or when the start step differs. `first_rows` maps a writer to its first stored step; an
    attempt cuts earlier ones only once it has a row.
    """
    teams: list[list[Writer]] = []
    for writer in sorted(writers, key=lambda w: (w.started, w.rank)):
        team = teams[-1] if teams else None
        if team is None or writer.start_step != team[0].start_step or writer.rank in {w.rank for w in team}:
            teams.append([writer])
        else:
            team.append(writer)
    attempts: list[Attempt] = []
    limit = ENDLESS
    for team in reversed(teams):
        attempts.append(Attempt(team[0].start_step, team[0].started, max(w.world_size for w in team), tuple(team),
                                limit))
        rows = [first_rows[w.name] for w in team if w.name in first_rows]
        if rows:
            limit = min(limit, team[0].start_step, min(rows) - 1)
    return tuple(reversed(attempts))
