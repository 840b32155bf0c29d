"""loss.validation: a validation loss that leaves the training loss, or its own trend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground
from checks.loss._stream import (
    AT_MOST,
    SOURCE,
    Stream,
    judged,
    resolution_words,
    span_words,
    streams,
    tell,
    too_noisy,
)
from checks.masking import quiet
from checks.reading import has
from checks.registry import check
from checks.stream.book import VALIDATION_GAP, open_book
from checks.stream.excuse import masked_words
from checks.stream.gap import GAP
from checks.stream.layout import LEAST_ROWS
from checks.stream.series import Episode

if TYPE_CHECKING:
    from trainvitals.store import Run

NOISE = "see docs/checks.md: gap noise 0.13 % with evaluations 250 rows apart"


@check("loss.validation", area="loss", reads=("loss/val",), uses=("loss/train", "loss/returned"),
       instead={"loss/val": "loss/val_set"}, refs=("https://arxiv.org/abs/2107.08296",))  # fmt: skip
def validation(run: Run) -> Iterator[Finding]:
    """The validation loss rises against the training loss, or above its own trend.

    Why it matters: training loss goes on falling while a model overfits, reads repeated data, or its evaluation set or
    code has changed. How to read it: first the gap, validation over the training loss extrapolated to the evaluation,
    in which trend and noise of the run cancel; then the level. A gap that falls is told as well: leaked text. Sets with
    a name are judged by their level, each for itself.
    """
    if has(run, "loss/val"):
        yield from _one(run, next(iter(streams(run, "loss/val")), None), gap_too=True)
    for stream in streams(run, "loss/val_set"):
        yield from _one(run, stream, gap_too=False)


def _one(run: Run, level: Stream | None, gap_too: bool) -> Iterator[Finding]:
    """The answers on one evaluation set."""
    name = level.name if level else "loss/val"
    gap = open_book(run).one(VALIDATION_GAP) if gap_too else None
    mask = quiet(run, "loss")
    gaps = None if gap is None or not gap.rows else Stream("loss/val", "", gap, mask)
    if level is None or (level.series.rows < LEAST_ROWS and not level.series.episodes()):
        n = level.series.rows if level else 0
        yield Ground(n).unknown(
            f"{n} values of {name} are too few to know their trend and noise.",
            "They are judged against those before.",
            f"Wait for at least {LEAST_ROWS} evaluations.",
        )
        return
    bounds = gap.bounds if gap else GAP
    threshold = Threshold(100 * bounds.warn, 100 * bounds.fail, "% off the trend", f"{NOISE}; {SOURCE}")
    told: list[Episode] = []
    explained = ""
    for stream, of in ((gaps, "the gap to training"), (level, "the loss")):
        if stream is None:
            continue
        for side in (1, -1) if stream is gaps else (1,):
            found, masked, events = judged(run, stream, side)
            explained += masked_words(masked, events)
            ground = stream.ground(threshold, events)
            for e in found[-AT_MOST:]:
                if (e.lone and side < 0) or any(e.onset_low <= t.last and t.onset_low <= e.last for t in told):
                    continue  # the gap has said it
                told.append(e)
                yield _alarm(ground, stream, e, of, name)
    if told:
        return
    best = gaps if gaps is not None and gaps.series.resolution() is not None else level
    ground = best.ground(threshold)
    words = resolution_words(best.series)
    if too_noisy(best.series):
        yield ground.unknown(
            f"{name} shows no change, but its noise would hide one. {words}{explained}",
            "Too few evaluations, or too noisy ones.",
            "Evaluate more often, or on more text.",
        )
        return
    seen = best.series.resolution()
    yield ground.passed(
        f"{name} stays with {'the training loss' if best is gaps else 'its own trend'} over {best.series.rows} "
        f"evaluations. {words}{explained}",
        Statistic("smallest lasting rise that would show", 100 * seen[0] if seen else 0.0, "%"),
        "No overfitting and no change of the evaluation of that size.",
    )


def _alarm(ground: Ground, stream: Stream, e: Episode, of: str, name: str) -> Finding:
    where = "still there" if e.ongoing else f"back after step {e.last:,}"
    rise = e.side > 0
    return tell(
        ground,
        stream,
        e,
        f"{name}: {of} is {e.percent(e.effect)} off its trend since {span_words(e)}, {where}.",
        "fail" if e.failed is not None and rise else "warn",
        "The model fits its training text and not the rest, or the evaluation changed." if rise
        else "Validation became easier than training: its text may have entered the training data, or it changed.",
        f"Compare training data, epochs and the evaluation set before and after step {e.onset:,}; "
        "check contamination." ,
        evidence=["loss/train"] if of.startswith("the gap") else [],
    )  # fmt: skip
