"""grad.explosion: gradient norms far above their trend, by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground
from checks.optimisation._layers import (
    Moved,
    alarm,
    grouped,
    moved,
    norms,
    order_text,
    spell,
    spoken,
    too_few,
)
from checks.registry import check
from checks.stream.book import open_book
from checks.stream.excuse import masked_words
from checks.stream.layout import LEAST_ROWS

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured: BLOOM-176B rose 3.9, 9.9 and 66 times before its loss did; in 19,560 healthy steps of llm.c's 124M run "
    "no failure, 2-3 high norms 11 times (counted, not told), x1.5 and x3 over 200 rows found 30 of 30"
)
UNIT = "times its trend"
LASTING_ROWS = 8
"""Healthy runs have two or three high norms in a row; alone they are no alarm before there are eight."""
BLIND = 10.0
"""Norms in which a rise of this factor, that fails at once, could hide allow no pass."""
AT_MOST = 10


@check(
    "grad.explosion",
    area="optimisation",
    reads=("grad/norm",),
    uses=("grad/norm_by_layer", "loss/train"),
    needs=("nonfinite", "sampled", "last", "averaged", "scaled"),
    refs=(
        "https://github.com/bluorion-com/ZClip",
        "https://github.com/bigscience-workshop/bigscience/blob/master/train/tr11-176B-ml/chronicles.md",
    ),
)
def grad_explosion(run: Run) -> Iterator[Finding]:
    """A gradient norm, of the model or of one layer, rises far above its trend.

    Why it matters: gradients move a few steps before the loss does, and the layer that moves first says where to
    look. How to read it: the scan of logarithms of norms before clipping. Two to seven rows are an alarm above ten
    times the trend, which fails, or together with the loss; eight rows warn from x1.5 and fail from x3; one row alone
    warns above x10. Planned events excuse what stays below x10 and ends in their window.
    """
    known = norms(run)
    ground = Ground(known[0].series.rows if known else 0, Threshold(1.5, 3.0, UNIT, SOURCE))
    found, excused, events = moved(run, known, 1)
    if ground.n < LEAST_ROWS and not found:
        yield too_few(ground)
        return
    with_loss = list(_loss_spans(run))
    alarms = [m for m in found if _counts(m, with_loss)]
    groups = grouped(alarms)
    notes = len(grouped([m for m in found if m not in alarms]))
    ground = Ground(ground.n, ground.threshold, events, {"brief_rises": notes, "layers": len(known) - 1})
    if not groups:
        beyond = open_book(run).left_out.get("grad/norm_by_layer", 0)
        unseen = f" {beyond:,} layers beyond the first {len(known) - 1:,} are not watched." if beyond else ""
        brief = f" {notes} brief rise{'s' if notes > 1 else ''} of two to seven rows came back." if notes else ""
        seen = known[0].series.resolution()
        if seen is None or 1 + seen[0] > BLIND:
            rise = "no rise" if seen is None else f"only one of {1 + seen[0]:.3g} times over {seen[1]} rows"
            yield ground.unknown(
                f"No gradient norm left its range in {ground.n:,} rows, but {rise} would have shown nine times in ten."
                + masked_words(excused, events),
                "The norms are too few or too noisy for their trend.",
            )
            return
        yield ground.passed(
            f"No gradient norm left its range in {ground.n:,} rows.{brief}{unseen}{masked_words(excused, events)}",
            None if seen is None else Statistic(f"smallest rise of {seen[1]} rows that would show", 1 + seen[0], UNIT),
            "Gradients are in proportion to their recent past.",
        )
        return
    worst = sorted(groups, key=lambda g: (not any(_failed(m) for m in g), -max(m.factor for m in g)))[:AT_MOST]
    for group in sorted(worst, key=lambda g: g[0].episode.onset):
        when, top = spell(group), max(group, key=lambda m: m.factor)
        yield alarm(
            ground,
            group,
            f"Gradients rose at step {when.first:,}, {order_text(group)}: up to {_times(top.factor)} {UNIT} "
            f"({spoken(top.of.label)}), {'and are still up' if when.ongoing else f'back after step {when.last:,}'}.",
            Statistic("largest norm", top.factor, UNIT),
            failed=any(_failed(m) for m in group),
            means="The model is being pushed hard by a batch or is leaving the region where its rate is stable.",
            do=f"Look at the batches just before step {when.first:,} and at the first layer's weights and activations; "
            "if it does not come back, restart before it with a lower rate or tighter clipping.",
            details={"explosions": len(groups)},
        )


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"


def _failed(m: Moved) -> bool:
    return m.episode.failed is not None


def _counts(m: Moved, loss: list[tuple[int, int]]) -> bool:
    e = m.episode
    if e.lone or _failed(m) or e.rows >= LASTING_ROWS or not e.sudden:
        return e.lone or _failed(m) or e.effect >= m.of.series.bounds.warn
    return any(e.onset_low <= last and first <= e.last for first, last in loss)


def _loss_spans(run: Run) -> Iterator[tuple[int, int]]:
    """Spans in which the training loss left its trend for more than one row."""
    for name in ("loss/train", "loss/returned"):
        series = open_book(run).one(name)
        for e in series.episodes() if series else ():
            if e.side > 0 and not e.lone:
                yield e.onset_low, e.last


