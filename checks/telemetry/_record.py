"""What the checks of a run's own record share: the rows of its frames, and how they are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Level, Statistic, Threshold
from checks.ground import Ground
from checks.reading import remember

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run
    from trainvitals.store.series import Logged

SOURCE = "convention: telemetry is whole, or it says so"
ANY = Threshold(1, 1, "places", SOURCE)
MOST_NAMED = 3
"""Places that a sentence names one by one."""


def logged(run: Run) -> Sequence[Logged]:
    """Rows on the main line by frame and attempt."""
    return remember(run, "logged", run.logged)


def count(n: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def one_or_more(sentences: Sequence[str]) -> str:
    """The first of several sentences, and how many there are beside it."""
    more = f" (and {len(sentences) - 1:,} more)" if len(sentences) > 1 else ""
    return f"{sentences[0].rstrip('.')}{more}."


def span(steps: NDArray[np.int64]) -> str:
    """`step 7`, or `steps 400 to 500`. steps: rising [n >= 1]."""
    first, last = int(steps[0]), int(steps[-1])
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def runs_of(steps: NDArray[np.int64], among: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Stretches of steps that follow each other in `among`. Both rising; every step is among them."""
    if len(steps):
        at = np.searchsorted(among, steps)
        yield from np.split(steps, np.flatnonzero(np.diff(at) > 1) + 1)


def no_data() -> Finding:
    """The answer on a run without a row."""
    return Ground().unknown(
        "The run holds no data yet.",
        "Nothing has been written.",
        "Wait for the first flush, or check that this is the run folder of the job.",
    )


def told(level: Level, notes: Sequence[str], what: str, means: str, do: str, last: int | None) -> Finding:
    """What others noticed, in sentences of theirs."""
    return Finding(
        level=level,
        summary=one_or_more(notes),
        n=len(notes),
        steps=(last, last) if last is not None else None,
        ongoing=True,
        statistic=Statistic(what, len(notes), what),
        threshold=ANY,
        what_it_means=means,
        what_to_do=do,
        details={what: list(notes[:50])},
    )
