"""loss.fall: a training loss that falls faster than learning explains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.loss._signal import INSTEAD
from checks.loss._stream import (
    AT_MOST,
    SOURCE,
    judged,
    resolution_words,
    span_words,
    tell,
    too_few,
    too_noisy,
    training,
)
from checks.registry import check
from checks.stream.excuse import masked_words
from checks.stream.series import Episode

if TYPE_CHECKING:
    from trainvitals.store import Run

FAIL_FALL = 0.1
"""Convention: no batch, and no planned event that is not in the record, takes a tenth off a loss for good."""
KNOWN_FROM = 128
"""Rows in which a curve has no slope yet that a fall could leave: small models learn in steps at first."""
STEEPEST = 0.2
"""Convention: within a few rows no model learns a fifth of its loss, however young it is."""
LASTING_ROWS = 8
"""Fewer rows are batches of easier text, unless they fall by a tenth."""


@check("loss.fall", area="loss", reads=("loss/train",), uses=("lr/used",), instead=INSTEAD,
       refs=("https://arxiv.org/abs/2503.12811",))  # fmt: skip
def fall(run: Run) -> Iterator[Finding]:
    """The loss drops below its trend without a cause in the plan.

    Why it matters: a sudden fall is more often a leak, repeated data, a shorter text or another reduction of the loss
    than learning. How to read it: the same scan as for rises, from row 128 on; a falling learning rate explains 10 %
    for each factor of ten, and 3 % besides. Earlier only a fall of 20 % within a few rows counts. Fewer than eight rows
    are only counted, unless they are 10 % down.
    """
    stream = training(run)
    if (few := too_few(stream)) is not None:
        yield few
        return
    found, masked, events = judged(run, stream, -1)
    alarms = [e for e in found if _counts(e)]
    early = [e for e in found if not e.lone and e.first_row < KNOWN_FROM and e not in alarms]
    threshold = Threshold(100 * stream.series.bounds.fall, 100 * FAIL_FALL, "% off the trend", SOURCE)
    brief = len(found) - len(alarms) - len(early)
    ground = stream.ground(threshold, events, brief_falls=brief, early_falls=len(early))
    if not alarms:
        seen = stream.series.resolution()
        if seen is None:
            yield ground.unknown(
                "No trend is known yet.", "A fall is judged against the trend of the rows before.", "Wait."
            )
            return
        if too_noisy(stream.series):
            words = resolution_words(stream.series).replace("rise", "change")
            yield ground.unknown(
                f"{stream.signal} shows no fall, but its noise would hide one{stream.words}. {words}",
                "A lasting fall could not be told from noise.",
                "Wait for more steps, or log the mean over more tokens.",
            )
            return
        size = float(np.max([-e.effect for e in masked], initial=0.0))
        yield ground.passed(
            f"{stream.signal} never fell off its trend for {LASTING_ROWS} rows without a cause in the plan"
            f"{stream.words}. "
            f"{resolution_words(stream.series).replace('rise', 'change')}{_early_words(early)}"
            f"{masked_words(masked, events)}",
            Statistic("largest explained fall", 100 * size, "%"),
            "Nothing suggests a leak or another reduction of the loss.",
        )
    worst = sorted(alarms, key=lambda e: e.effect)[:AT_MOST]
    for e in sorted(worst, key=lambda e: e.onset):
        lost = e.failed is not None and e.effect <= np.log1p(-FAIL_FALL) and not e.raw and e.rows >= 8
        yield tell(
            ground,
            stream,
            e,
            f"{stream.name} fell at {span_words(e)}: {e.percent(e.effect)} off its trend, "
            + ("still there." if e.ongoing else f"back after step {e.last:,}.")
            + stream.words,
            "fail" if lost else "warn",
            "The task became easier at this step: seen or leaked text, repeated or shorter sequences, a mask, or "
            "another way to average the loss.",
            f"Compare the batches before and after step {e.onset:,}, and hold validation losses against it.",
        )


def _counts(e: Episode) -> bool:
    if e.lone:
        return False
    if e.first_row < KNOWN_FROM and not e.raw:
        return e.sudden and e.effect <= np.log1p(-STEEPEST)
    return e.rows >= LASTING_ROWS or (not e.raw and e.effect <= np.log1p(-FAIL_FALL))


def _early_words(early: list[Episode]) -> str:
    if not early:
        return ""
    largest = min(early, key=lambda e: e.effect)
    return (f" {len(early)} fall{'s' if len(early) > 1 else ''} in the first {KNOWN_FROM} rows, the largest "
            f"{largest.percent(largest.effect)} at step {largest.onset:,}, may be learning and "
            f"{'are' if len(early) > 1 else 'is'} "
            "not judged.")  # fmt: skip
