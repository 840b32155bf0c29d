"""throughput.straggler: one rank that holds up the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.masking import quiet
from checks.reading import Rows, vector
from checks.registry import check
from checks.robust import Floats, best_split, excursions
from checks.throughput._steady import blocks, settled, without_moments

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "a score below 0.75 of the best rank is a straggler: https://github.com/NVIDIA/nvidia-resiliency-ext/blob/main/src/"
    "nvidia_resiliency_ext/attribution/straggler/reporting.py"
)


@check(
    "throughput.straggler",
    area="throughput",
    reads=("throughput/step_time_by_rank",),
    uses=("throughput/data_wait_by_rank",),
    refs=("https://github.com/NVIDIA/nvidia-resiliency-ext",),
)
def straggler(
    run: Run,
    *,
    warn_score: float = 0.75,
    fail_score: float = 0.5,
    late_share: float = 0.1,
    k: int = 8,
    n: int = 10,
) -> Iterator[Finding]:
    """A rank is slower than the others, or its batch is, for most of ten rows.

    Why it matters: synchronous training goes at the pace of its slowest rank. How to read it: score = typical step
    time of the ranks over the rank's own. Ranks that meet in a collective at every step show equal step times;
    there a rank's excess data wait over the others', as a share of the step, gives it away (`late_share`).
    """
    times = without_moments(vector(run, "throughput/step_time_by_rank"), quiet(run, "throughput"))
    threshold = Threshold(warn_score, fail_score, "score of the slowest rank", SOURCE)
    ranks = len(times.labels)
    if ranks < 2:
        yield Finding(
            level="pass",
            n=len(times),
            summary="The run has one rank, so none can lag behind.",
            threshold=threshold,
            what_it_means="Nothing to compare.",
            what_to_do="Nothing.",
        )
        return
    times = _whole(Rows(times.steps[settled(run) :], times.values[settled(run) :], times.labels))
    if len(times) < 20:
        yield Finding(
            level="unknown",
            n=len(times),
            summary=f"{len(times)} rows with every rank's time are too few.",
            threshold=threshold,
            what_it_means="A single slow step is no straggler.",
            what_to_do="Wait for at least 30 steps.",
        )
        return
    edges, medians = blocks(times)
    typical = np.median(medians, axis=1) if ranks > 2 else medians.min(axis=1)
    scores = typical[:, None] / np.maximum(medians, 1e-12)
    found = list(_slow(times, edges, scores, "throughput/step_time_by_rank", warn_score, k, n))
    waits = vector(run, "throughput/data_wait_by_rank")
    if len(waits):
        found += _late(times, waits, warn_score, late_share, k, n)
    if not found:
        yield Finding(
            level="pass",
            n=len(times),
            summary=f"No rank of {ranks} lags behind.",
            threshold=threshold,
            statistic=Statistic("lowest median score", float(np.median(scores, axis=0).min()), "score"),
            what_it_means="Ranks keep pace.",
            what_to_do="Nothing.",
        )
        return
    for rank in dict.fromkeys(f[0] for f in sorted(found, key=lambda f: f[1])):
        yield _finding(
            next(f for f in sorted(found, key=lambda f: f[1]) if f[0] == rank),
            len(times),
            threshold,
            fail_score,
        )


Slow = tuple[str, int, int, bool, float, str]
"""rank, first step, last step, recovered, score, signal"""


def _whole(rows: Rows) -> Rows:
    keep = np.isfinite(rows.values).all(axis=1)
    return Rows(rows.steps[keep], rows.values[keep], rows.labels)


def _slow(rows: Rows, edges: np.ndarray, scores: Floats, signal: str, limit: float, k: int, n: int) -> Iterator[Slow]:
    size = int(edges[1] - edges[0])
    for rank in np.flatnonzero((scores < limit).any(axis=0)):
        slow = -scores[:, rank]
        for e in excursions(slow, slow > -limit, np.full(len(slow), -(limit + 1) / 2), k=k, n=n, at_most=3):
            low, high = (
                max(int(edges[e.first]) - 20 * size, 0),
                min(int(edges[e.first]) + 20 * size, int(edges[e.last + 1])),
            )
            others = np.median(np.delete(rows.values[low:high], rank, axis=1), axis=1)
            row = low + best_split(rows.values[low:high, rank] - others) if e.first > 0 else 0
            yield (
                rows.labels[rank],
                int(rows.steps[row]),
                int(rows.steps[edges[e.last + 1] - 1]),
                e.recovered,
                float(np.median(scores[e.first : e.last + 1, rank])),
                signal,
            )


def _late(times: Rows, waits: Rows, limit: float, late_share: float, k: int, n: int) -> Iterator[Slow]:
    shared, at_times, at_waits = np.intersect1d(times.steps, waits.steps, return_indices=True)
    wait = waits.values[at_waits]
    step_time = np.max(times.values[at_times], axis=1, keepdims=True)
    rows = _whole(Rows(shared, wait / np.maximum(step_time, 1e-12), times.labels))
    if len(rows) < 20:
        return
    edges, share = blocks(rows)
    ranks = np.arange(share.shape[1])
    others = np.stack([np.median(np.delete(share, r, axis=1), axis=1) for r in ranks], axis=1)
    # The step without this rank's excess wait is what the others could run at: a score like that of step times.
    excess = np.maximum(share - others, 0.0)
    scores = np.where(excess > late_share, 1 - excess, 1.0)
    yield from _slow(
        rows,
        edges,
        np.where(excess > late_share, np.minimum(scores, limit - 1e-9), 1.0),
        "throughput/data_wait_by_rank",
        limit,
        k,
        n,
    )


def _finding(slow: Slow, n: int, threshold: Threshold, fail_score: float) -> Finding:
    rank, first, last, recovered, score, signal = slow
    late = signal.endswith("data_wait_by_rank")
    return Finding(
        level="fail" if score < fail_score else "warn",
        n=n,
        steps=(first, last),
        ongoing=not recovered,
        summary=f"Rank {rank} "
        + (
            f"held up the others from step {first:,} to {last:,}"
            if recovered
            else f"holds up the others since step {first:,}"
        )
        + (": it waits for its batch." if late else f": score {score:.2f}."),
        statistic=Statistic("score", score, "speed over that of the other ranks"),
        threshold=threshold,
        evidence=(Evidence(signal, (first, last), rank),),
        what_it_means="Every step waits for this rank.",
        what_to_do="Check this rank's loader and storage."
        if late
        else "Check this rank's device for throttling, errors and neighbours, and drain the node if it stays slow.",
        details={"onset": {"method": "best two-level split of the rank's excess over the others"}},
    )
