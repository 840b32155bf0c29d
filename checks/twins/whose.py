"""Did the data do it, or this run? What the twins' losses do where a fault of the run shows in its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from checks.twins.pair import Pair
from checks.twins.rows import LossRows, deviation

BEFORE_ROWS, AFTER_ROWS, LEAST_BEFORE = 64, 256, 16
"""Rows that say what was to be expected; rows of the fault that are looked at; and how few of the former suffice."""
SHOWN, ANSWERED = 5.0, 4.0
"""Deviations of the mean by which a change shows, and by which the part that a twin answers is known."""
LEAST_GAP = 0.005
"""What two healthy twins part by in the course of some hundred rows: that of loss.twin."""
SAME, NOT = 0.6, 0.25
"""Part of the run's change that a twin's reaches where it does the same, and stays below where it does not."""


@dataclass(frozen=True, slots=True)
class Whose:
    """What the twins say of one stretch of steps."""

    cause: Literal["data", "own", "unknown"]
    recurs: int
    """Twins whose loss does the same."""
    of: int
    """Twins that were trained on the data of these steps, and have little enough noise to tell."""

    @property
    def words(self) -> str:
        """The answer in a sentence."""
        if self.cause == "data":
            return f"The data did it: the loss of {self.recurs} of {_twins(self.of)} does the same on the same batches."
        if self.cause == "own":
            return f"This run alone: the loss of {_twins(self.of)} does not do it on the same batches."
        return f"Data or this run is not known: {self.recurs} of {_twins(self.of)} does the same on the same batches."

    def to_json(self) -> dict[str, Any]:
        """As a finding's `details["whose"]` holds it."""
        return {"cause": self.cause, "recurs_in": self.recurs, "of": self.of, "words": self.words}


def whose(run: LossRows, twins: Sequence[tuple[LossRows, Pair]], first: int, last: int) -> Whose | None:
    """Compare a run's loss from step `first` to `last` with its twins'.

    A change is the mean of those rows less the line through the rows before; its error is that of the rows' spread.

    Returns:
        None where nothing shows in the run's own loss, or no twin saw that data.
    """
    answers = [answer for twin, pair in twins if pair.usable
               and (answer := _answer(run, twin, pair, first, last)) is not None]  # fmt: skip
    if not answers:
        return None
    yes, no = answers.count("same"), answers.count("not")
    cause: Literal["data", "own", "unknown"] = (
        "data" if 2 * yes > len(answers) else "own" if no == len(answers) else "unknown")
    return Whose(cause, yes, len(answers))


def _answer(run: LossRows, twin: LossRows, pair: Pair, first: int, last: int) -> str | None:
    at, other = pair.indices(run.steps, twin.steps)
    steps = run.steps[at]
    begin = int(np.searchsorted(steps, first))
    end = max(int(np.searchsorted(steps, last, side="right")), begin + 1)
    end = min(end, begin + AFTER_ROWS, len(steps))
    before = slice(max(begin - max(BEFORE_ROWS, end - begin), 0), begin)
    if begin >= len(steps) or before.stop - before.start < LEAST_BEFORE:
        return None
    rows = slice(begin, end)
    mine, theirs = run.values[at], twin.values[other]
    own, own_error = _change(mine, before, rows)
    gap, gap_error = _change(mine - theirs, before, rows)
    if abs(own) < SHOWN * own_error:
        # What the noise of the data hides in the loss may show in the gap, where that noise is gone: of the run, where
        # the twin cannot have risen so much that the gap is only what two models differ by on one batch.
        most = abs(own - gap) + 2 * own_error
        shows = abs(gap) >= max(SHOWN * gap_error, LEAST_GAP)
        return "not" if shows and most <= SAME * abs(gap) else None
    if ANSWERED * gap_error >= (SAME - NOT) * abs(own):
        return None
    answered = 1 - gap / own
    return "same" if answered >= SAME else "not" if answered < NOT else "part"


def _change(values: Any, before: slice, rows: slice) -> tuple[float, float]:
    """Mean of the rows less what the line through those before expects there, and its standard error."""
    x = np.arange(before.start, before.stop, dtype=float)
    y = values[before]
    n, m = len(x), rows.stop - rows.start
    line = np.polyfit(x - x.mean(), y, 1)
    ahead = (rows.start + rows.stop - 1) / 2 - x.mean()
    spread = deviation(y - np.polyval(line, x - x.mean()))
    error = spread * np.sqrt(1 / m + 1 / n + ahead**2 / float(np.sum((x - x.mean()) ** 2)))
    return float(np.mean(values[rows]) - np.polyval(line, ahead)), float(error)


def _twins(n: int) -> str:
    return f"{n} twin{'' if n == 1 else 's'}"
