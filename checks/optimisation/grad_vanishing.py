"""grad.vanishing: layers that no gradient reaches any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground
from checks.optimisation._layers import (
    LARGEST,
    Moved,
    alarm,
    frozen,
    grouped,
    moved,
    norms,
    order_text,
    spell,
    spoken,
    too_few,
)
from checks.registry import check
from checks.stream.excuse import masked_words
from checks.stream.layout import LEAST_ROWS

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "convention, and measured: a healthy 19,560-step run never fell below a fifth of its trend once its first 32 steps "
    "were over"
)
UNIT = "of its trend"
LASTING_ROWS = 8
AT_MOST = 10


@check(
    "grad.vanishing",
    area="optimisation",
    reads=("grad/norm",),
    uses=("grad/norm_by_layer",),
    needs=("rounded", "scaled"),
    refs=("https://proceedings.mlr.press/v9/glorot10a.html",),
)
def grad_vanishing(run: Run, *, warn_factor: float = 10.0, fail_factor: float = 100.0) -> Iterator[Finding]:
    """A gradient norm, of the model or of one layer, falls to a small part of its trend and stays there.

    Why it matters: a layer without gradient does not learn, while the loss may look well for long. How to read it:
    the scan of logarithms of norms before clipping; eight rows below a `warn_factor`-th of the trend (failure: a
    `fail_factor`-th, or zero). A norm that comes back from a rise has recovered, not vanished. Layers whose norm was
    zero from the start are frozen on purpose and only counted.
    """
    known = norms(run)
    ground = Ground(
        known[0].series.rows if known else 0, Threshold(1 / warn_factor, 1 / fail_factor, UNIT, SOURCE)
    )
    if ground.n < LEAST_ROWS:
        yield too_few(ground)
        return
    found, excused, events = moved(run, known, -1)
    deep = [m for m in found if m.episode.rows >= LASTING_ROWS and _depth(m) > np.log(warn_factor)]
    still = frozen(known)
    ground = Ground(ground.n, ground.threshold, events, {"frozen": still})
    if not deep:
        depth = max((_depth(m) for m in found if m.episode.rows >= LASTING_ROWS), default=None)
        yield ground.passed(
            _kept(ground.n, len(known) - 1)
            + (f" {len(still)} layers never had one: frozen." if still else "")
            + masked_words(excused, events),
            None if depth is None else Statistic("smallest norm held by 8 rows", float(np.exp(-depth)), UNIT),
            "No layer has stopped learning.",
        )
    for group in grouped(deep)[:AT_MOST]:
        when, deepest = spell(group), max(group, key=_depth)
        share = float(np.exp(-_depth(deepest)))
        yield alarm(
            ground,
            group,
            f"Gradients vanished at step {when.first:,}, {order_text(group)}: {spoken(deepest.of.label)} fell to "
            f"{'nothing' if share < 1e-12 else f'{share:.2g} {UNIT}'}"
            f"{' and stays there' if when.ongoing else f', back after step {when.last:,}'}.",
            Statistic("mean norm since", share, UNIT),
            failed=any(_depth(m) > np.log(fail_factor) for m in group),
            means="These layers get no signal and stop learning.",
            do=f"Look for what changed at step {when.first:,}: a detached branch, saturated activations, a loss term "
            "that went away, an expert that gets no tokens.",
            details={},
        )


def _kept(rows: int, layers: int) -> str:
    if layers:
        return f"All {layers:,} layers keep their gradient over {rows:,} rows."
    return f"The gradient norm of all layers together keeps its size over {rows:,} rows; that of each was not logged."


def _depth(m: Moved) -> float:
    return min(-m.episode.effect, LARGEST)
