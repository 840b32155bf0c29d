"""update.stopped: layers whose weights no longer move while those of the others do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground
from checks.optimisation._layers import LARGEST, Moved, Norms, alarm, grouped, moved, order_text, spell, spoken, too_few
from checks.registry import check
from checks.stream.book import open_book
from checks.stream.layout import LEAST_ROWS

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention: a tenth of the share of its weights that a layer usually moves; a falling rate moves all layers less, "
    "so what the middle layer lost is taken off"
)
UNIT = "of its trend"
LASTING_ROWS = 2
"""Weights are compared every so many steps, so that a row already stands for many."""


@check("update.stopped", area="optimisation", reads=("update/ratio_by_layer",), uses=("lr/used",))
def update_stopped(run: Run, *, warn_factor: float = 10.0, fail_factor: float = 100.0) -> Iterator[Finding]:
    """A layer's weights stop moving while other layers go on.

    Why it matters: a frozen layer can have a healthy gradient: a parameter that left the optimizer, a rate of zero in
    one group, an update that low precision rounds away. How to read it: the change of a layer's weights over their
    size, against its own trend, less what the middle layer lost at the same time; two rows below a `warn_factor`-th
    warn, below a `fail_factor`-th they fail.
    """
    signal = "update/ratio_by_layer"
    known = [Norms(signal, label, s) for label, s in open_book(run).of(signal).items() if s.rows]
    ground = Ground(
        max((of.series.rows for of in known), default=0), Threshold(1 / warn_factor, 1 / fail_factor, UNIT, SOURCE)
    )
    if ground.n < LEAST_ROWS or len(known) < 2:
        yield too_few(ground)
        return
    found, _, events = moved(run, known, -1)
    usual = [0.0] * (len(known) - len({m.of.label for m in found})) + [-m.episode.effect for m in found]
    common = float(np.median(usual))
    still = [m for m in found if m.episode.rows >= LASTING_ROWS and _depth(m) - common > np.log(warn_factor)]
    ground = Ground(ground.n, ground.threshold, events, {"layers": len(known)})
    if not still:
        yield ground.passed(
            f"The weights of all {len(known)} layers keep moving ({ground.n:,} comparisons).",
            None,
            "No layer is frozen.",
        )
    for group in grouped(still)[:10]:
        when, deepest = spell(group), max(group, key=_depth)
        share = float(np.exp(-_depth(deepest)))
        yield alarm(
            ground,
            group,
            f"Weights stopped moving at step {when.first:,}, {order_text(group)}: the updates of "
            f"{spoken(deepest.of.label)} fell to {share:.2g} {UNIT}"
            f"{' and stay there' if when.ongoing else f', back after step {when.last:,}'}.",
            Statistic("mean update since", share, UNIT),
            failed=any(_depth(m) - common > np.log(fail_factor) for m in group),
            means="These layers learn nothing, whatever their gradients say.",
            do=f"Look at what the optimizer holds since step {when.first:,}: parameter groups, their rates, a resume, "
            "the precision of the weights.",
            details={},
        )


def _depth(m: Moved) -> float:
    return min(-m.episode.effect, LARGEST)
