"""throughput.drop: steps that take longer than they used to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.masking import quiet
from checks.reading import Rows, scalar
from checks.registry import check
from checks.robust import Excursion, best_split, excursions, held_level
from checks.throughput._steady import blocks, expanding_median, settled, without_moments

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "measured on six healthy runs of 130M to 1.2B parameters: 99 % of step times stay below 1.28 times the median; "
    "only a sustained excess counts"
)


@check(
    "throughput.drop",
    area="throughput",
    reads=("throughput/step_time",),
    uses=("throughput/data_wait_share",),
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
    rows = scalar(run, "throughput/step_time").finite()
    mask = quiet(run, "throughput")
    rows = without_moments(rows, mask)
    rows = Rows(rows.steps[settled(run) :], rows.values[settled(run) :])
    rows = Rows(rows.steps[rows.values > 0], rows.values[rows.values > 0])
    threshold = Threshold(warn_factor, fail_factor, "times the median of the steps before", SOURCE)
    if len(rows) < 40:
        yield Finding(
            level="unknown",
            n=len(rows),
            summary=f"{len(rows)} settled steps are too few to know the usual speed.",
            threshold=threshold,
            what_it_means="A drop is judged against the run's own past.",
            what_to_do="Wait for at least 50 steps.",
        )
        return
    edges, times = blocks(rows)
    starts = [int(s) for s in np.searchsorted(rows.steps[edges[:-1]], [s + 3 for s in mask.level_steps])]
    center = expanding_median(times, starts, min_rows=20)
    with np.errstate(invalid="ignore"):
        over = times > warn_factor * center
    spells = excursions(times, over, (1 + (warn_factor - 1) / 2) * center, k=k, n=n)
    found = [e for e in spells if edges[e.last + 1] - edges[e.first] >= min_rows][:at_most]
    usual = float(np.median(times))
    size = int(edges[1] - edges[0])
    blocks_needed = max(n, -(-min_rows // size))
    slow_needed = -(-k * blocks_needed // n)
    held = held_level(times / center, slow_needed, blocks_needed)
    if not found:
        yield Finding(
            level="pass",
            n=len(rows),
            summary=f"Steps take {usual:.3g} s throughout.",
            threshold=threshold,
            statistic=None
            if np.isnan(held)
            else Statistic(
                f"longest step time held by {slow_needed * size} of {blocks_needed * size} rows",
                held,
                "times the median of the steps before",
            ),
            details={"short_spells": len(spells)},
            what_it_means="The speed has not dropped for long.",
            what_to_do="Nothing.",
        )
        return
    for e in found:
        yield _finding(run, rows, edges, times, float(center[e.first]), e, threshold)


def _finding(
    run: Run,
    rows: Rows,
    edges: np.ndarray,
    times: np.ndarray,
    before: float,
    e: Excursion,
    threshold: Threshold,
) -> Finding:
    size = int(edges[1] - edges[0])
    low, high = max(int(edges[e.first]) - 20 * size, 0), min(int(edges[e.first]) + 20 * size, int(edges[e.last + 1]))
    row = low + best_split(np.clip(rows.values[low:high], 0, 3 * float(np.median(times[e.first : e.last + 1]))))
    step, last = int(rows.steps[row]), int(rows.steps[edges[e.last + 1] - 1])
    factor = float(np.median(times[e.first : e.last + 1]) / before)
    wait = scalar(run, "throughput/data_wait_share")
    inside = (wait.steps >= step) & (wait.steps <= last)
    waiting = float(np.median(wait.values[inside])) if inside.any() else None
    return Finding(
        level="fail" if threshold.fail is not None and factor > threshold.fail else "warn",
        n=len(rows),
        steps=(step, last),
        ongoing=not e.recovered,
        summary=f"Steps {'took' if e.recovered else 'take'} {factor:.2g} times as long "
        + (f"from step {step:,} to {last:,}" if e.recovered else f"since step {step:,}")
        + f": {before * factor:.3g} s instead of {before:.3g} s.",
        statistic=Statistic("median step time since the onset", factor, "times the median before"),
        threshold=threshold,
        evidence=(
            Evidence("throughput/step_time", (step, last)),
            Evidence("throughput/tokens_per_s", (step, last)),
        ),
        masked=(),
        what_it_means="The same work takes longer."
        + (
            f" {100 * waiting:.0f} % of the step is spent waiting for data."
            if waiting is not None and waiting > 0.1
            else ""
        ),
        what_to_do="Look at data wait, at step time by rank, and at what else "
        + ("ran on the machines in these steps." if e.recovered else "runs on the machines since then."),
        details={
            "onset": {"method": "best two-level split of the step times around the first slow ones"},
            "data_wait_share": waiting,
        },
    )
