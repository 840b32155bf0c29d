"""Several runs of one data order: steps that stand out in more than one of them name the data.

PaLM's spikes did not recur when the same batches were fed to another state of the model
(https://arxiv.org/abs/2204.02311, section 5.1); a step that stands out in many runs of one order is the opposite case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from checks.stream.book import Book, open_book

if TYPE_CHECKING:
    from trainvitals.store import Run

RARE = 1e-3
"""Probability, over all steps together, that chance alone makes so many runs stand out at one step."""
SHIFTS = (0, -1, 1)
"""Steps by which two logs may be numbered apart: before or after the update."""
AT_MOST = 50


def shared_steps(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Steps at which more runs stand out than chance explains: step, runs, and the probability, most runs first.

    A run stands out where a row of its loss is 5 deviations off, or an episode or a lone row begins. With rates r of
    such rows, the number of runs that share one step by chance is binomial.
    """
    marks = [_marks(open_book(run)) for run in runs]
    steps = max((last for _, last, _ in marks), default=0)
    rows = [max(n, 1) for _, _, n in marks]
    rate = float(np.mean([len(m) / n for (m, _, _), n in zip(marks, rows, strict=True)]))
    shift = [_numbering(marks[0][0], m) for m, _, _ in marks]
    at: dict[int, set[int]] = defaultdict(set)
    for i, (found, _, _) in enumerate(marks):
        for step in found:
            at[step + shift[i]].add(i)
    told: list[dict[str, Any]] = []
    for step, who in at.items():
        chance = float(binom.sf(len(who) - 1, len(runs), min(max(rate, 1e-9), 1.0))) * max(steps, 1)
        if len(who) > 1 and chance < RARE:
            told.append({"step": step, "runs": sorted(who), "chance": chance})
    return sorted(told, key=lambda t: (-len(t["runs"]), t["step"]))[:AT_MOST]


def shared_words(shared: list[dict[str, Any]]) -> str:
    """The answer in a sentence."""
    if not shared:
        return "No step stands out in more of these runs than chance explains."
    named = ", ".join(f"{t['step']:,} ({len(t['runs'])} runs)" for t in shared[:10])
    return (f"{len(shared)} step{'s' if len(shared) > 1 else ''} stand out in several runs: {named}. "
            "Look at the data of these steps, not at the optimizer.")  # fmt: skip


def _marks(book: Book) -> tuple[set[int], int, int]:
    """Steps at which a run's loss stands out, its last step, and its rows."""
    series = book.one("loss/train") or book.one("loss/returned")
    if series is None or not series.rows:
        return set(), 0, 0
    steps, z = series.notes()
    found = {int(s) for s, score in zip(steps, z, strict=True) if score > 0}
    found |= {e.onset for e in series.episodes() if e.side > 0 and e.sudden}
    return found, series.last_step, series.rows


def _numbering(first: set[int], other: set[int]) -> int:
    """The shift of step numbers under which two runs agree most; 0 where none is better by two steps."""
    hits = {shift: len(first & {step + shift for step in other}) for shift in SHIFTS}
    best = max(SHIFTS, key=lambda shift: hits[shift])
    return best if hits[best] >= hits[0] + 2 else 0
