"""loss.divergence: a loss that leaves its trend, or the best it had reached, and stays there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic
from checks.ground import Ground
from checks.loss._signal import INSTEAD
from checks.loss._stream import (
    AT_MOST,
    COARSEST,
    Stream,
    brief,
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


@check(
    "loss.divergence",
    area="loss",
    reads=("loss/train",),
    instead=INSTEAD,
    needs=("nonfinite",),
    refs=("https://arxiv.org/abs/2107.08296", "https://github.com/huggingface/datablations"),
)
def divergence(run: Run) -> Iterator[Finding]:
    """The loss rises above its trend, or above the best it had reached, for longer than a spike takes.

    Why it matters: slow divergence shows no spike, and it rarely turns by itself. How to read it: means of 2 rows up to
    a ninth of the run, each held against a line in log time through the rows before and against the lowest mean so far,
    in units of the errors that such lines made before. It warns from +0.5 %, and fails where at least +2 % is sure.
    A planned event explains a rise within its bound while its window lasts.
    """
    stream = training(run)
    if (few := too_few(stream)) is not None:
        yield few
        return
    found, masked, events = judged(run, stream, 1)
    alarms = [e for e in found if not brief(e)]
    ground = stream.ground(masked=events, changes=len(alarms))
    worst = sorted(alarms, key=lambda e: (e.failed is None, not e.ongoing, -abs(e.effect)))[:AT_MOST]
    for e in sorted(worst, key=lambda e: e.onset):
        yield _alarm(ground, stream, e)
    if not alarms:
        yield _calm(ground, stream, masked_words(masked, events))


def _calm(ground: Ground, stream: Stream, explained: str) -> Finding:
    seen, words = stream.series.resolution(), resolution_words(stream.series)
    if too_noisy(stream.series):
        return ground.unknown(
            f"{stream.signal} shows no change of level, but its noise would hide one: "
            f"{words[0].lower()}{words[1:]}{explained}",
            f"A lasting rise of {100 * COARSEST:g} % could not be told from noise here.",
            "Wait for more steps, or log the mean over more tokens.",
        )
    smallest = 0.0 if seen is None else seen[0] if stream.series.raw else 100 * seen[0]
    unit = "deviations of a row" if stream.series.raw else "%"
    return ground.passed(
        f"{stream.signal} stays on its trend and with its best over {stream.series.rows:,} rows{stream.words}. {words}"
        + explained,
        Statistic("smallest lasting rise that would show", smallest, unit),
        "No sustained climb of that size.",
    )


def _alarm(ground: Ground, stream: Stream, e: Episode) -> Finding:
    off = e.percent(e.lasting if e.ongoing else e.effect)
    since = f"{'has been' if e.ongoing else 'was'} {off} off its trend"
    state = "and is still there" if e.ongoing else f"until step {e.last:,}"
    parts = f", in {e.parts} steps" if e.parts > 1 else ""
    return tell(
        ground,
        stream,
        e,
        f"{stream.name} {since} since {span_words(e)}{parts}, {state}{stream.words}.",
        "fail" if e.failed is not None else "warn",
        "The model is getting worse, not only noisier." if e.ongoing else "The model was worse for a while.",
        f"Go back to a checkpoint before step {e.onset_low:,} if it does not turn, and look there for what changed: "
        "learning rate, data, gradient norms by layer.",
    )
