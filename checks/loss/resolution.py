"""loss.resolution: a loss that is printed, or computed, more coarsely than before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Spell
from checks.loss._signal import INSTEAD, RETURNED
from checks.loss._stream import Stream, returned, training
from checks.registry import check
from checks.stream.grids import FINE_ROWS, LEAST_RUN, MOST_USUAL, NAMES

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "rows on a coarse grid that the log's own rate of such rows makes rarer than 1 in 10 billion"
THRESHOLD = Threshold(LEAST_RUN, None, "rows on a coarser grid", SOURCE)


@check("loss.resolution", area="loss", reads=("loss/train",), uses=(RETURNED,), instead=INSTEAD)
def resolution(run: Run) -> Iterator[Finding]:
    """The loss has fewer digits from some step on.

    Why it matters: a loss that is suddenly rounded to bfloat16 was computed or averaged in it, and small differences
    are gone; one that loses decimals comes from another logger. How to read it: runs of rows that all lie on a grid of
    one, two or three decimals or of 8 significant bits, where earlier rows did not. What is rounded inside the model,
    before a mean over many tokens, leaves no such trace.
    """
    main, beside = training(run), returned(run)
    told = list(_alarms(main)) + (list(_alarms(beside)) if beside else [])
    yield from told or [_calm(main, beside)]


def _alarms(stream: Stream) -> Iterator[Finding]:
    g = stream.series.grids[0]
    ground = stream.ground(THRESHOLD)
    told = None
    for i in range(int(g["found"])):
        k, first, last = int(g["grid"][i]), int(g["start"][i]), int(g["end"][i])
        if told is not None and first <= told[1]:
            continue  # two decimals are three decimals, too
        told = first, last
        spell = Spell(first, last, last == stream.series.last_step)
        yield ground.alarm(
            f"{stream.signal} has only {NAMES[k]} {spell.words}; before it had more.",
            Statistic("rows on the coarser grid", int(g["length"][i]), "rows"),
            spell,
            level="warn",
            evidence=[stream.signal],
            began=(first, first),
            means="The loss is computed, averaged or logged in another precision: small changes can no longer be seen, "
            "and if the gradient comes from the same numbers, it is as coarse.",
            do=f"Look at what changed at step {first:,}: autocast around the loss, a reduced precision of the mean "
            "over ranks, or the logger.",
            onset="exact: the first row on the grid",
        )


def _calm(stream: Stream, beside: Stream | None) -> Finding:
    g = stream.series.grids[0]
    n, ground = int(g["rows"]), stream.ground(THRESHOLD)
    if n < FINE_ROWS + LEAST_RUN:
        return ground.unknown(
            f"{n} losses are too few to know how finely they are printed.",
            "Digits are judged against those of the rows before.",
            f"Wait for at least {FINE_ROWS + LEAST_RUN} logged steps.",
        )
    usual = [NAMES[k] for k in range(len(NAMES)) if (int(g["on"][k]) + int(g["run"][k])) / n > MOST_USUAL]
    if len(usual) == len(NAMES):
        return ground.unknown(
            "The log is printed too coarsely to tell a change of its digits.",
            "Its numbers lie on every grid that is looked at.",
            "Print the loss with at least four decimals.",
        )
    never = f" It was never finer than {usual[-1]}." if usual else ""
    also = f" and {RETURNED}" if beside and beside.series.rows >= FINE_ROWS + LEAST_RUN else ""
    return ground.passed(
        f"{stream.signal}{also} {'are' if also else 'is'} printed as finely as at {'their' if also else 'its'} start "
        f"over {n:,} rows.{never}",
        Statistic("longest run on a coarser grid", 0, "rows"),
        "No change of precision in the logged number; what is rounded inside the model is not seen here.",
    )
