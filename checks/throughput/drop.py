"""throughput.drop: steps that take longer than they used to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Level, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.masking import quiet
from checks.reading import Rows, scalar
from checks.registry import check
from checks.robust import Excursion, Floats, best_split, excursions, held_level, rows_near
from checks.throughput._steady import (
    LASTING_ROWS,
    blocks,
    expanding_median,
    joined,
    settled,
    wander,
    without_moments,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

SOURCE = (
    "measured on six healthy runs of 130M to 1.2B parameters: 99 % of step times stay below 1.28 times the median; a "
    "run whose speed wanders by itself is held against three times that wander"
)
UNIT = "times the median of the steps before"
BEYOND_WANDER = 3.0
FAST = 0.1
"""Of a slow time even the fastest tenth of the rows is slow; where others use the machine, some steps go as ever."""
FAIL_FAST = 0.8
STEADY = 0.5
"""Interquartile range over median of a slow time that is one; planted slow loaders: 0.05 to 0.09."""


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
    min_rows: int = 40,
    at_most: int = 10,
) -> Iterator[Finding]:
    """Step time stays above `warn_factor` times the run's median.

    Why it matters: a run at half speed costs twice. How to read it: wall time per step, slowest rank, against the
    median of all earlier steps of the same configuration; eight of ten rows must be slow, for `min_rows` rows, and by
    more than three times what the speed of the run wanders by itself, the fastest tenth of the rows too: the noise of a
    shared machine is no drop. Failure: `fail_factor` for 100 rows or more, at a steady step time. Other spells are only
    counted. Checkpoints and
    evaluations are left out; a batch-size change or a resume begins a new median.
    """
    rows = settled(run, without_moments(run, scalar(run, "throughput/step_time").finite()))
    rows = Rows(rows.steps[rows.values > 0], rows.values[rows.values > 0])
    ground = Ground(len(rows), Threshold(warn_factor, fail_factor, UNIT, SOURCE))
    if len(rows) < 40:
        yield ground.unknown(
            f"{len(rows)} settled rows are too few to know the usual speed.",
            "A drop is judged against the run's own past.",
            "Wait for at least 50 rows.",
        )
        return
    edges, times = blocks(rows)
    level_steps = quiet(run, "throughput").level_steps
    starts = [int(s) for s in np.searchsorted(rows.steps[edges[:-1]], [s + 3 for s in level_steps])]
    center = expanding_median(times, starts, min_rows=20)
    with np.errstate(invalid="ignore"):
        over = times > warn_factor * center
    spells = excursions(times, over, (1 + (warn_factor - 1) / 2) * center, k=k, n=n)
    spells = joined(spells, near=n)
    long = [e for e in spells if edges[e.last + 1] - edges[e.first] >= min_rows]
    slow = {e.first: float(np.median(times[e.first : e.last + 1])) / float(center[e.first]) for e in long}
    own = {e.first: float(np.exp(BEYOND_WANDER * wander(rows.values[: edges[e.first]]))) for e in long}
    fastest = {e.first: float(np.quantile(rows.values[_rows_of(edges, e)], FAST)) for e in long}
    found = [
        e
        for e in long
        if slow[e.first] > max(warn_factor, own[e.first]) and fastest[e.first] > warn_factor * center[e.first]
    ][:at_most]
    if not found:
        size = int(edges[1] - edges[0])
        needed = max(n, -(-min_rows // size))
        told = f" {len(spells)} spell{'s' * (len(spells) != 1)} of slow rows came and went" if spells else ""
        why = ", shorter or smaller than what counts as a drop in a run whose speed wanders so." if spells else ""
        yield ground.passed(
            f"Steps take {float(np.median(times)):.3g} s, the middle of {len(rows):,} rows, and stayed near it."
            if not spells
            else f"Steps take {float(np.median(times)):.3g} s, the middle of {len(rows):,} rows.{told}{why}",
            _held(times / center, -(-k * needed // n), needed, size) if not spells else None,
            f"The speed wanders by {100 * wander(rows.values):.2g} % by itself (medians of 20 rows); a lasting drop "
            f"beyond {max(warn_factor, float(np.exp(BEYOND_WANDER * wander(rows.values)))):.2g} times would show.",
            details={"short_spells": len(spells)},
        )
    for e in found:
        near = rows_near(edges, e.first, e.last)
        took = slow[e.first] * float(center[e.first])
        row = near.start + best_split(np.clip(rows.values[near], 0, 3 * took))
        spell = Spell(int(rows.steps[row]), int(rows.steps[edges[e.last + 1] - 1]), not e.recovered)
        fails = slow[e.first] > fail_factor and fastest[e.first] > FAIL_FAST * fail_factor * center[e.first]
        fails = fails and _steady_and_long(rows.values[_rows_of(edges, e)])
        yield _alarm(run, ground, spell, took, float(center[e.first]), "fail" if fails else "warn")


def _rows_of(edges: NDArray[np.int64], e: Excursion) -> slice:
    return slice(int(edges[e.first]), int(edges[e.last + 1]))


def _steady_and_long(times: Floats) -> bool:
    """Whether a slow time has a step time of its own: that of a shared machine goes up and down."""
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return len(times) >= LASTING_ROWS and bool(high - low <= STEADY * middle)


def _held(ratio: np.ndarray, slow: int, blocks: int, size: int) -> Statistic | None:
    """The longest step time that `slow` of `blocks` blocks of `size` rows kept up."""
    held = held_level(ratio, slow, blocks)
    name = f"longest step time held by {slow * size} of {blocks * size} rows"
    return None if np.isnan(held) else Statistic(name, held, UNIT)


def _alarm(run: Run, ground: Ground, spell: Spell, slow: float, before: float, level: Level) -> Finding:
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
        level=level,
    )
