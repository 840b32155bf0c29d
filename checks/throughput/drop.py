"""throughput.drop: steps that take longer than they used to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.reading import Rows, scalar
from checks.registry import check
from checks.robust import best_split, excursions, held_level, rows_near
from checks.throughput._steady import blocks, expanding_median, settled, without_moments

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on six healthy runs of 130M to 1.2B parameters: 99 % of step times stay below 1.28 times the median; "
    "only a sustained excess counts"
)
UNIT = "times the median of the steps before"


@check(
    "throughput.drop",
    area="throughput",
    reads=("throughput/step_time",),
    uses=("throughput/data_wait_share",),
    needs=("sampled", "last"),
    refs=("https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/train/callbacks/speed_monitor.py",),
)
def drop(
    run: Run,
    *,
    warn_factor: float = 1.25,
    fail_factor: float = 2.0,
    k: int = 8,
    n: int = 10,
    min_rows: int = 20,
    at_most: int = 10,
) -> Iterator[Finding]:
    """Step time stays above `warn_factor` times the run's median.

    Why it matters: a run at half speed costs twice. How to read it: wall time per step, slowest rank, against the
    median of all earlier steps of the same configuration; eight of ten rows must be slow, for `min_rows` rows. Shorter
    spells are only counted. Checkpoints and evaluations are left out; a batch-size change or a resume begins a new
    median.
    """
    rows = settled(run, without_moments(run, scalar(run, "throughput/step_time").finite()))
    rows = Rows(rows.steps[rows.values > 0], rows.values[rows.values > 0])
    ground = Ground(len(rows), Threshold(warn_factor, fail_factor, UNIT, SOURCE))
    if len(rows) < 40:
        yield ground.unknown(
            f"{len(rows)} settled steps are too few to know the usual speed.",
            "A drop is judged against the run's own past.",
            "Wait for at least 50 steps.",
        )
        return
    edges, times = blocks(rows)
    level_steps = quiet(run, "throughput").level_steps
    starts = [int(s) for s in np.searchsorted(rows.steps[edges[:-1]], [s + 3 for s in level_steps])]
    center = expanding_median(times, starts, min_rows=20)
    with np.errstate(invalid="ignore"):
        over = times > warn_factor * center
    spells = excursions(times, over, (1 + (warn_factor - 1) / 2) * center, k=k, n=n)
    found = [e for e in spells if edges[e.last + 1] - edges[e.first] >= min_rows][:at_most]
    if not found:
        size = int(edges[1] - edges[0])
        needed = max(n, -(-min_rows // size))
        yield ground.passed(
            f"Steps take {float(np.median(times)):.3g} s throughout.",
            _held(times / center, -(-k * needed // n), needed, size),
            "The speed has not dropped for long.",
            details={"short_spells": len(spells)},
        )
    for e in found:
        near = rows_near(edges, e.first, e.last)
        slow = float(np.median(times[e.first : e.last + 1]))
        row = near.start + best_split(np.clip(rows.values[near], 0, 3 * slow))
        spell = Spell(int(rows.steps[row]), int(rows.steps[edges[e.last + 1] - 1]), not e.recovered)
        yield _alarm(run, ground, spell, slow, float(center[e.first]))


def _held(ratio: np.ndarray, slow: int, blocks: int, size: int) -> Statistic | None:
    """The longest step time that `slow` of `blocks` blocks of `size` rows kept up."""
    held = held_level(ratio, slow, blocks)
    name = f"longest step time held by {slow * size} of {blocks * size} rows"
    return None if np.isnan(held) else Statistic(name, held, UNIT)


def _alarm(run: Run, ground: Ground, spell: Spell, slow: float, before: float) -> Finding:
    factor = slow / before
    wait = scalar(run, "throughput/data_wait_share")
    inside = (wait.steps >= spell.first) & (wait.steps <= spell.last)
    waiting = float(np.median(wait.values[inside])) if inside.any() else 0.0
    return ground.alarm(
        f"Steps {'take' if spell.ongoing else 'took'} {factor:.2g} times as long {spell.words}: "
        f"{before * factor:.3g} s instead of {before:.3g} s.",
        Statistic("median step time since the onset", factor, "times the median before"),
        spell,
        evidence=["throughput/step_time", "throughput/tokens_per_s"],
        means="The same work takes longer."
        + (f" {100 * waiting:.0f} % of the step is spent waiting for data." if waiting > 0.1 else ""),
        do="Look at data wait, at step time by rank, and at what else "
        + ("runs on the machines since then." if spell.ongoing else "ran on the machines in these steps."),
        details={
            "onset": {"method": "best two-level split of the step times around the first slow ones"},
            "data_wait_share": waiting if inside.any() else None,
        },
    )
