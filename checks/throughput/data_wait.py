"""throughput.data_wait: steps that wait for their batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import Rows, scalar
from checks.registry import check
from checks.robust import Excursion, Floats, best_split, excursions, rows_near
from checks.throughput._steady import LASTING_ROWS, blocks, joined, settled, without_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

UNIT = "share of the step"
SOURCE = "convention"
OWN_WORK_SECONDS = 0.05
GROWN = 3.0
GROUND_ROWS = 10


@check(
    "throughput.data_wait",
    area="throughput",
    reads=("throughput/data_wait_share",),
    refs=("https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/train/callbacks/speed_monitor.py",),
)
def data_wait(
    run: Run, *, warn_share: float = 0.1, fail_share: float = 0.3, k: int = 8, n: int = 10, at_most: int = 5
) -> Iterator[Finding]:
    """A sustained part of the step is spent waiting for the batch.

    Why it matters: while the loader is late, every device stands idle. How to read it: wall time from the end of
    the last step to the first forward, over the step's time, worst rank; eight of ten rows must be above the limit. A
    loop's own work between two steps (zeroing, logging, the scheduler) is in that time and takes milliseconds: less
    than 50 ms counts only where it grew to three times what it was in this run. Failure: `fail_share` for 100 rows.
    """
    rows = settled(run, without_moments(run, scalar(run, "throughput/data_wait_share").finite()))
    ground = Ground(len(rows), Threshold(warn_share, fail_share, UNIT, SOURCE))
    if len(rows) < 20:
        yield ground.unknown(
            f"{len(rows)} settled rows are too few.",
            "The first steps fill caches and queues.",
            "Wait for at least 30 rows.",
        )
        return
    edges, share = blocks(rows)
    spells = excursions(share, share > warn_share, np.full(len(share), 0.8 * warn_share), k=k, n=n)
    spells = joined(spells, near=n)
    found = [e for e in spells if _loader(run, rows, edges, share, e)][:at_most]
    if not found:
        usual = float(np.median(share))
        yield ground.passed(
            f"Steps wait {100 * usual:.2g} % of their time for data and for the loop's own work between steps, in the "
            f"middle of {len(rows):,} rows.",
            Statistic("data wait, median", usual, UNIT),
            "The loader keeps up."
            if not spells
            else f"{len(spells)} spell{'s' * (len(spells) != 1)} of more than {100 * warn_share:.0f} % took a few "
            "milliseconds a step, as this loop does by itself.",
        )
    for e in found:
        near = rows_near(edges, e.first, e.last)
        row = near.start + best_split(np.clip(rows.values[near], 0, 1))
        spell = Spell(int(rows.steps[row]), int(rows.steps[edges[e.last + 1] - 1]), not e.recovered)
        level = float(np.median(share[e.first : e.last + 1]))
        yield ground.alarm(
            f"Steps {'wait' if spell.ongoing else 'waited'} for data {100 * level:.0f} % of their time {spell.words}.",
            Statistic("data wait, median since the onset", level, UNIT),
            spell,
            evidence=["throughput/data_wait_share", "throughput/tokens_per_s"],
            means="The devices stand idle while the loader catches up.",
            do="Add loader workers or prefetch, check the storage, and tokenise ahead of the run.",
            level="fail" if level > fail_share and edges[e.last + 1] - edges[e.first] >= LASTING_ROWS else "warn",
            onset="from the first settled step on"
            if e.first == 0
            else "best two-level split of the share around the first slow rows",
        )


def _loader(run: Run, rows: Rows, edges: NDArray[np.int64], share: Floats, e: Excursion) -> bool:
    """Whether a wait is more than what the loop does between two steps."""
    first, last = int(rows.steps[edges[e.first]]), int(rows.steps[edges[e.last + 1] - 1])
    times = scalar(run, "throughput/step_time").finite()
    inside = (times.steps >= first) & (times.steps <= last)
    waited = float(np.median(share[e.first : e.last + 1]))
    if not inside.any() or waited * float(np.median(times.values[inside])) >= OWN_WORK_SECONDS:
        return True
    before = rows.values[: edges[e.first]]
    return len(before) >= GROUND_ROWS and waited >= GROWN * float(np.median(before))
