"""throughput.data_wait: steps that wait for their batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.masking import quiet
from checks.reading import Rows, scalar
from checks.registry import check
from checks.robust import best_split, excursions
from checks.throughput._steady import blocks, settled, without_moments

if TYPE_CHECKING:
    from trainvitals.store import Run


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
    rows = scalar(run, "throughput/data_wait_share").finite()
    rows = without_moments(rows, quiet(run, "throughput"))
    rows = Rows(rows.steps[settled(run) :], rows.values[settled(run) :])
    threshold = Threshold(warn_share, fail_share, "share of the step", "convention")
    if len(rows) < 20:
        yield Finding(
            level="unknown",
            n=len(rows),
            summary=f"{len(rows)} settled steps are too few.",
            threshold=threshold,
            what_it_means="The first steps fill caches and queues.",
            what_to_do="Wait for at least 30 steps.",
        )
        return
    edges, share = blocks(rows)
    size = int(edges[1] - edges[0])
    found = excursions(share, share > warn_share, np.full(len(share), 0.8 * warn_share), k=k, n=n, at_most=at_most)
    if not found:
        yield Finding(
            level="pass",
            n=len(rows),
            summary=f"Steps wait {100 * float(np.median(share)):.2g} % of their time for data.",
            statistic=Statistic("data wait, median", float(np.median(share)), "share of the step"),
            threshold=threshold,
            what_it_means="The loader keeps up.",
            what_to_do="Nothing.",
        )
    for e in found:
        low, high = (
            max(int(edges[e.first]) - 20 * size, 0),
            min(int(edges[e.first]) + 20 * size, int(edges[e.last + 1])),
        )
        row = low + best_split(np.clip(rows.values[low:high], 0, 1)) if e.first > 0 else 0
        step, last = int(rows.steps[row]), int(rows.steps[edges[e.last + 1] - 1])
        level = float(np.median(share[e.first : e.last + 1]))
        yield Finding(
            level="fail" if level > fail_share else "warn",
            n=len(rows),
            steps=(step, last),
            ongoing=not e.recovered,
            summary=f"Steps {'waited' if e.recovered else 'wait'} for data {100 * level:.0f} % of their time "
            + (f"from step {step:,} to {last:,}." if e.recovered else f"since step {step:,}."),
            statistic=Statistic("data wait, median since the onset", level, "share of the step"),
            threshold=threshold,
            evidence=(
                Evidence("throughput/data_wait_share", (step, last)),
                Evidence("throughput/tokens_per_s", (step, last)),
            ),
            what_it_means="The devices stand idle while the loader catches up.",
            what_to_do="Add loader workers or prefetch, check the storage, and tokenise ahead of the run.",
            details={
                "onset": {
                    "method": "from the first settled step on"
                    if e.first == 0
                    else "best two-level split of the share around the first slow rows"
                }
            },
        )
