"""loss.divergence: a loss that climbs away from the best it had reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.loss._signal import INSTEAD, training_loss
from checks.masking import quiet, window_steps
from checks.reading import Rows, validation
from checks.registry import check
from checks.robust import best_split, block_edges, block_medians, difference_sigma, k_of_n

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured: fires on all 4 clear blow-ups of the 19 runs in "
    "https://github.com/huggingface/datablations (stability_study), while 15 healthy curves stay below 1.001"
)
UNIT = "of the best"


@dataclass(frozen=True, slots=True)
class Climb:
    """The loss over its best so far, in blocks of rows."""

    signal: str
    rows: Rows
    block: int
    """Rows per block."""
    edges: np.ndarray
    ratio: np.ndarray
    """[blocks] block median over the best block median before it, in the same segment."""
    best: np.ndarray
    """[blocks]"""
    noise: float
    """Relative error of a block median."""


@check(
    "loss.divergence",
    area="loss",
    reads=("loss/train",),
    uses=("loss/val", "loss/val_set"),
    instead=INSTEAD,
    needs=("nonfinite",),
    refs=("https://github.com/huggingface/datablations",),
)
def divergence(
    run: Run,
    *,
    warn_ratio: float = 1.02,
    fail_ratio: float = 1.05,
    blocks_in_a_row: int = 3,
    noise_deviations: float = 4.0,
) -> Iterator[Finding]:
    """The smoothed loss climbs above the best it had reached and stays there.

    Why it matters: slow divergence shows no spike, and it rarely turns by itself. How to read it: training and
    validation loss, in blocks long enough that a block's noise is small, over the lowest block so far; three blocks
    in a row above the ratio plus the noise count. A planned change of data, batch or learning rate begins a new
    comparison.
    """
    answers = []
    known = training_loss(run)
    for name, rows in {known.signal: known.rows, **validation(run)}.items():
        climb = _climb(run, name, rows.finite(), training=name == known.signal)
        if climb is not None:
            answers.append(_judge(run, climb, warn_ratio, fail_ratio, blocks_in_a_row, noise_deviations))
    if not answers:
        yield Ground(len(known.rows)).unknown(
            "Too few finite losses to see a trend.",
            "A trend needs at least 24 logged training losses or 6 validation losses.",
        )
    alarms = [f for f in answers if f.level != "pass"]
    yield from alarms or answers[:1]


def _climb(run: Run, name: str, rows: Rows, training: bool) -> Climb | None:
    n = len(rows)
    if n < (24 if training else 6):
        return None
    level = max(float(np.median(np.abs(rows.values))), 1e-12)
    sigma = difference_sigma(rows.values) / level if n >= 24 else 0.0
    # The standard error of a median is 1.25 sigma / sqrt(rows); blocks make it 0.5 % where the run is long enough.
    wanted = int(np.ceil((1.25 * sigma / 0.005) ** 2))
    block = int(np.clip(max(wanted, n // 500), 1, max(n // 24, 1))) if training else 1
    edges = block_edges(n, block)
    medians = block_medians(rows.values, edges)
    first_steps = rows.steps[edges[:-1]]
    best = np.empty_like(medians)
    starts = np.searchsorted(first_steps, _new_comparisons(run))
    for a, b in zip([0, *starts], [*starts, len(medians)], strict=True):
        best[a:b] = np.minimum.accumulate(medians[a:b])
    before = np.concatenate([best[:1], best[:-1]])
    before[[s for s in starts if s < len(before)]] = best[[s for s in starts if s < len(best)]]
    return Climb(
        name,
        rows,
        block,
        edges,
        medians / np.where(before > 0, before, np.nan),
        before,
        float(1.25 * sigma / np.sqrt(block)),
    )


def _new_comparisons(run: Run) -> list[int]:
    # What an event sets going takes its window to settle; the comparison begins after it.
    return [step + window_steps(run) for step in quiet(run, "loss").level_steps]


def _judge(run: Run, c: Climb, warn_ratio: float, fail_ratio: float, in_a_row: int, deviations: float) -> Finding:
    allowance = deviations * c.noise
    with np.errstate(invalid="ignore"):
        over = (c.ratio > warn_ratio + allowance) & ~quiet(run, "loss").covers(c.rows.steps[c.edges[:-1]])
        far = over & (c.ratio > fail_ratio + allowance)
    alarmed = np.flatnonzero(k_of_n(over, in_a_row, in_a_row))
    threshold = Threshold(warn_ratio + allowance, fail_ratio + allowance, UNIT, SOURCE)
    ground = Ground(len(c.rows), threshold, details={"rows_per_block": c.block, "noise_of_a_block": c.noise})
    if not len(alarmed):
        worst = float(np.nanmax(c.ratio)) if np.isfinite(c.ratio).any() else float("nan")
        return ground.passed(
            f"{c.signal} stays with the best it has reached.",
            Statistic("largest ratio to best", worst, UNIT),
            "No sustained climb.",
        )
    trigger = int(alarmed[0])
    onset, method = _onset(c, trigger - in_a_row + 1, trigger)
    end = len(over) if over[-1] else int(np.flatnonzero(over)[-1]) + 1
    spell = Spell(onset, int(c.rows.steps[c.edges[end] - 1]), bool(over[-1]))
    peak = float(np.nanmax(c.ratio[trigger - in_a_row + 1 :]))
    return replace(ground, masked=quiet(run, "loss").touching(onset, onset)).alarm(
        f"{c.signal} has climbed since step {onset:,}, to {peak:.3g} times its best"
        + (", and is still up." if spell.ongoing else f"; it was back after step {spell.last:,}."),
        Statistic("largest ratio to best", peak, UNIT),
        spell,
        level="fail" if k_of_n(far, in_a_row, in_a_row).any() else "warn",
        evidence=[c.signal],
        means="The model is getting worse, not only noisier.",
        do=f"Stop, go back to a checkpoint before step {onset:,}, and look there for what changed: learning rate, "
        "data, gradient norms by layer.",
        details={"onset": {"method": method, "alarmed_at": int(c.rows.steps[c.edges[trigger + 1] - 1])}},
    )


def _onset(c: Climb, first_over: int, trigger: int) -> tuple[int, str]:
    """Step of the jump where the climb is one, else of the turning point before it."""
    best_row = int(c.edges[max(first_over - 3, 0)])
    end = int(c.edges[trigger + 1])
    values = c.rows.values[best_row:end]
    level, top = float(c.best[first_over]), float(np.median(values[-max(c.block, 1) :]))
    clipped = np.clip(values, level - abs(top - level), top)
    split = best_split(clipped)
    near = max(min(5, split), 1)
    jump = np.median(clipped[split : split + 5]) - np.median(
        clipped[max(split - near, 0) : split] if split else clipped[:1]
    )
    if split and jump > 0.5 * (top - level):
        return int(c.rows.steps[best_row + split]), "best two-level split of the rows before the alarm: a jump"
    lows = np.flatnonzero(c.best[: first_over + 1] == c.best[first_over])
    turning = int(c.edges[max(int(lows[0]) - 1, 0)])
    low_block = c.rows.values[turning : int(c.edges[first_over])]
    low_row = turning + int(np.argmin(low_block)) if len(low_block) else int(c.edges[first_over])
    return int(c.rows.steps[low_row]), "lowest row before the climb: a gradual turn"
