"""What of a run could not be read or was not written, in sentences that name the place and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trainvitals.store.attempts import Attempt, overlaps
from trainvitals.store.contents import Contents
from trainvitals.store.events import Event

LOSSES = ("rows_dropped", "rows_gone", "events_dropped", "samples_dropped", "folder_lost")
"""Kinds of event that say that something is not in the record."""
MOST_NAMED = 10
"""Ranks, or problems of one kind, that are named one by one."""


def damage(contents: Contents, live: bool) -> list[str]:
    """One sentence for each file that is damaged, as far as it was read."""
    found = [f"{path} {wrong.rstrip('.')}." for path, wrong in contents.wrong.items()]
    newest: dict[tuple[str, str], int] = {}
    for part in contents.parts.values():
        key = part.name.frame, part.name.writer
        newest[key] = max(newest.get(key, -1), part.name.last)
    for path, part in contents.parts.items():
        growing = live and newest[part.name.frame, part.name.writer] == part.name.last
        found += [f"{path} {problem}." for problem in part.problems(growing)]
    if not live:
        found += [f"{path} ends in {torn:,} bytes that are no whole event." for path, torn in
                  contents.torn_events().items()]
    return found + [f"{problem}." for problem in contents.document_problems()]


def losses(events: Iterable[Event]) -> list[str]:
    """One sentence for each loss that a writer told of."""
    return [f"Rank {event.rank}: {event.message}." for event in events if event.kind in LOSSES]


def overlap_sentences(attempts: Sequence[Attempt], last_row: Callable[[str], float], events: Sequence[Event]
                      ) -> list[str]:
    """Jobs that wrote the same rank at once: as their rows show, or as one of them noticed."""
    closed = {event.writer: event.time for event in events if event.kind == "closed"}
    pairs = {(older.name, newer.name): (older, newer) for older, newer in overlaps(attempts, last_row, closed)}
    writers = {writer.name: writer for attempt in attempts for writer in attempt.writers}
    for event in events:
        ends = str(event.data.get("first", "")), str(event.data.get("second", ""))
        if event.kind == "overlap" and ends[0] in writers and ends[1] in writers:
            pairs.setdefault(ends, (writers[ends[0]], writers[ends[1]]))
    return few([f"Two jobs wrote rank {newer.rank} at once: {older.who} went on after {newer.who} had begun. The main "
                f"line shows the latter after step {newer.start_step:,}; the former's rows from there on are a branch."
                for older, newer in pairs.values()])


def few(sentences: Iterable[str]) -> list[str]:
    """Different sentences, the first of many, and how many more there are."""
    found = list(dict.fromkeys(sentences))
    more = len(found) - MOST_NAMED
    return found if more <= 0 else [*found[:MOST_NAMED], f"There are {more:,} more like the last."]


def lacking_sentence(frame: str, rank: int, steps: NDArray[np.int64]) -> str:
    """Says at which steps a rank has no row though others have one."""
    return (f"Frame {frame}: rank {rank} has no row at {len(steps):,} of the steps {int(steps[0]):,} to "
            f"{int(steps[-1]):,}, which others have. Sums over ranks are unknown there, means are over the others.")


def printable(sentence: str) -> str:
    """A sentence that may quote names and messages from a folder that anybody may have written, on one line."""
    return sentence if sentence.isprintable() else ascii(sentence)[1:-1]


def silent_ranks(attempts: Sequence[Attempt]) -> Iterator[str]:
    """Ranks that attempts state and that have written nothing, one sentence an attempt."""
    for attempt in attempts:
        wrote = set(attempt.ranks)
        count = attempt.world_size - sum(rank < attempt.world_size for rank in wrote)
        if count > 0:
            # A world size is a number from a file: it may be a billion.
            candidates = (rank for rank in range(attempt.world_size) if rank not in wrote)
            named = [str(rank) for rank, _ in zip(candidates, range(MOST_NAMED), strict=False)]
            more = f" and {count - len(named):,} more" if count > len(named) else ""
            yield (f"Ranks {', '.join(named)}{more} of {attempt.world_size:,} have written nothing: sums are over the "
                   "others.")
