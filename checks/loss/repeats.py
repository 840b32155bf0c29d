"""loss.repeats: a loss that prints the same number again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Spell
from checks.loss._signal import INSTEAD
from checks.loss._stream import too_few, training
from checks.registry import check
from checks.stream.slope import COARSE

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = "a run of ties that the log's own rate of ties makes rarer than 1 in 100,000; 4 decimals: 30 of 30 found"
LONG = 100
"""Equal rows that are a failure (convention): no training step leaves a loss of four decimals as it was so often."""


@check("loss.repeats", area="loss", reads=("loss/train",), instead=INSTEAD)
def repeats(run: Run) -> Iterator[Finding]:
    """The loss is exactly the same in many rows on end.

    Why it matters: a logger that is stuck, a batch that is fed over and over in evaluation mode, or weights that no
    update reaches look like a calm run. How to read it: equal neighbours against the log's own rate of them; where the
    log is printed so coarsely that every fourth pair is equal, nothing can be said.
    """
    stream = training(run)
    r = stream.series.repeats[0]
    found = int(r["found"])
    if not found and (few := too_few(stream)) is not None:
        yield few
        return
    rate = (int(r["ties"]) + 1) / (int(r["rows"]) + 2)
    ground = stream.ground(Threshold(None, LONG, "equal rows", SOURCE), rate_of_ties=rate)
    longest = Statistic("longest run of equal values", int(r["longest"]), "rows")
    if found:
        at = int(r["length"][:found].argmax())
        first, last, length = int(r["start"][at]), int(r["end"][at]), int(r["length"][at])
        spell = Spell(first, last, bool(last == stream.series.last_step))
        yield ground.alarm(
            f"{stream.signal} printed the same number in {length:,} rows {spell.words}"
            + (f"; {found - 1} more such runs." if found > 1 else "."),
            Statistic("longest run of equal values", length, "rows"),
            spell,
            evidence=[stream.signal],
            began=(first, first),
            level="fail" if length >= LONG else "warn",
            means="The number does not come from new training steps.",
            do=f"Look at what the loop did at step {first:,}: the logger, the data loader, and whether weights move.",
        )
    elif rate > COARSE:
        yield ground.unknown(
            f"The log is printed too coarsely to tell a stuck value: {100 * rate:.0f} % of neighbours are equal.",
            "Equal numbers are usual at this resolution.",
            "Print the loss with at least four decimals.",
        )
    else:
        yield ground.passed(
            f"{stream.signal} never repeats a number for longer than chance.", longest, "The record is of new steps."
        )
