"""grad.loss_scale: a loss scaler that falls again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import scalar
from checks.registry import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

SOURCE = (
    "convention: an overflow halves the scale once, 2,000 good steps double it; OPT-175B diverged where its dynamic "
    "loss scale fell to 0 (https://arxiv.org/abs/2205.01068, 2.5), and Megatron-LM's smallest scale is 1"
)
SEARCH_STEPS = 20
"""A scaler starts at 2**16 and halves until nothing overflows: the falls of the first steps are its search."""
MEMORY_ROWS = 1000
LEAST_ROWS = 10
SIGNAL = "grad/loss_scale"


@check("grad.loss_scale", area="optimisation", reads=(SIGNAL,), refs=("https://arxiv.org/abs/2205.01068",))
def loss_scale(run: Run, *, warn_halvings: int = 5, fail_halvings: int = 10) -> Iterator[Finding]:
    """The factor of the loss scaler falls far below where it used to be, or below 1.

    Why it matters: every fall is a step whose fp16 gradients overflowed; a scale that falls again and again chases
    gradients that grow, and below 1 small gradients are rounded to nothing. How to read it: the scale against its
    median over the last 1,000 rows, in halvings; `warn_halvings` below it warn, `fail_halvings`, or a scale below 1,
    fail. The first 20 steps, in which a scaler looks for its scale, are left out.
    """
    rows = scalar(run, SIGNAL).finite()
    keep = (rows.values > 0) & (rows.steps > SEARCH_STEPS)
    steps, scale = rows.steps[keep], rows.values[keep]
    ground = Ground(len(steps), Threshold(warn_halvings, fail_halvings, "halvings below its median", SOURCE))
    if len(steps) < LEAST_ROWS:
        yield ground.unknown(
            f"{len(steps)} loss scales after the first {SEARCH_STEPS} steps are too few.",
            "A scale is judged against its own past.",
        )
        return
    usual = _median_before(scale)
    below = np.log2(usual / scale)
    low = (below >= warn_halvings) | (scale < 1)
    if not low.any():
        yield ground.passed(
            f"The loss scale lies between {scale.min():.6g} and {scale.max():.6g} in {len(steps):,} rows, at most "
            f"{max(below.max(), 0):.2g} halvings below its usual one.",
            Statistic("most halvings below its median", float(max(below.max(), 0.0)), "halvings"),
            "The scaler keeps its scale.",
        )
        return
    first = int(np.argmax(low))
    # The fall began at the last row at the usual scale.
    start = int(np.flatnonzero(below[: first + 1] <= 0.5)[-1]) + 1 if (below[: first + 1] <= 0.5).any() else 0
    back = np.flatnonzero((scale[first:] >= usual[first] / 4) & (scale[first:] >= 1))
    end = first + int(back[0]) - 1 if len(back) else len(steps) - 1
    inside = slice(first, end + 1)
    depth = float(below[inside].max())
    smallest = float(scale[inside].min())
    spell = Spell(int(steps[min(start, first)]), int(steps[end]), ongoing=end == len(steps) - 1)
    yield ground.alarm(
        f"The loss scale fell to {smallest:.6g}, {depth:.2g} halvings below its usual {usual[first]:.6g}, "
        f"{spell.words}{' and stays down' if spell.ongoing else ''}.",
        Statistic("halvings below its median", depth, "halvings"),
        spell,
        evidence=[SIGNAL],
        means="Gradients in fp16 overflow again and again. Below 1 the scale no longer keeps small ones from being "
        "rounded to nothing.",
        do=f"Look at what grew from step {spell.first:,} on: gradient norms, activations, the rate. Move to bf16 where "
        "the hardware has it.",
        onset="first row below the usual scale before the fall",
        level="fail" if depth >= fail_halvings or smallest < 1 else "warn",
    )


def _median_before(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of the rows before each one, as many as are remembered [n]; of the first, its own."""
    import pandas as pd

    before = pd.Series(scale).rolling(MEMORY_ROWS, min_periods=1).median().shift(1).to_numpy().copy()
    before[0] = scale[0]
    return np.asarray(before)
