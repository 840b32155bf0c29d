"""throughput.data_wait: steps that wait for their batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import scalar
from checks.registry import check
from checks.robust import best_split, excursions, rows_near
from checks.throughput._steady import blocks, settled, without_moments

if TYPE_CHECKING:
    from trainvitals.store import Run

UNIT = "share of the step"


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
    the last step to the first forward, over the step's time, worst rank; eight of ten rows must be above the limit.
    """
    rows = settled(run, without_moments(run, scalar(run, "throughput/data_wait_share").finite()))
    ground = Ground(len(rows), Threshold(warn_share, fail_share, UNIT, "convention"))
    if len(rows) < 20:
        yield ground.unknown(
            f"{len(rows)} settled steps are too few.",
            "The first steps fill caches and queues.",
            "Wait for at least 30 steps.",
        )
        return
    edges, share = blocks(rows)
    found = excursions(share, share > warn_share, np.full(len(share), 0.8 * warn_share), k=k, n=n, at_most=at_most)
    if not found:
        usual = float(np.median(share))
        yield ground.passed(
            f"Steps wait {100 * usual:.2g} % of their time for data.",
            Statistic("data wait, median", usual, UNIT),
            "The loader keeps up.",
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
            onset="from the first settled step on"
            if e.first == 0
            else "best two-level split of the share around the first slow rows",
        )
