"""throughput.straggler: one rank that holds up the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import Rows, vector
from checks.registry import check
from checks.robust import Floats, best_split, excursions, rows_near
from checks.throughput._steady import blocks, settled, without_moments

if TYPE_CHECKING:
    from trainvitals.store import Run

SOURCE = (
    "a score below 0.75 of the best rank is a straggler: https://github.com/NVIDIA/nvidia-resiliency-ext/blob/main/src/"
    "nvidia_resiliency_ext/attribution/straggler/reporting.py"
)

MEET_SHARE = 0.05
"""Step times of ranks that end their steps together differ by less."""


@check(
    "throughput.straggler",
    area="throughput",
    reads=("throughput/step_time_by_rank",),
    uses=("throughput/data_wait_by_rank",),
    needs=("rank", "averaged", "sampled"),
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
    there a rank's excess data wait over the others', as a share of the step, gives it away (`late_share`), and a rank
    that computes slowly does not show: the answer is unknown.
    """
    times = without_moments(run, vector(run, "throughput/step_time_by_rank"))
    ranks = len(times.labels)
    threshold = Threshold(warn_score, fail_score, "score of the slowest rank", SOURCE)
    if ranks < 2:
        yield _alone(run, Ground(len(times), threshold))
        return
    times = _whole(settled(run, times))
    ground = Ground(len(times), threshold)
    if len(times) < 20:
        yield ground.unknown(
            f"{len(times)} rows with every rank's time are too few.",
            "A single slow step is no straggler.",
            "Wait for at least 30 rows.",
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
        lowest = Statistic("lowest median score", float(np.median(scores, axis=0).min()), "score")
        yield _together(ground, ranks, lowest) if _meet(times) else ground.passed(
            f"No rank of {ranks} takes longer for its steps than the others in {len(times):,} rows.",
            lowest,
            "Ranks keep pace.",
        )
    # One alarm for each rank: the first of its spells.
    first: dict[str, Slow] = {}
    for slow in sorted(found, key=lambda s: s.spell.first):
        first.setdefault(slow.rank, slow)
    for slow in first.values():
        yield _alarm(ground, slow)


def _meet(times: Rows) -> bool:
    """Whether ranks wait for each other at every step: their step times are the same, whoever is slow."""
    spread = times.values.max(axis=1) / np.maximum(times.values.min(axis=1), 1e-12) - 1
    varies = np.median(np.abs(times.values / np.median(times.values, axis=0) - 1))
    return bool(np.median(spread) < MEET_SHARE or np.median(spread) < varies)


def _together(ground: Ground, ranks: int, lowest: Statistic) -> Finding:
    return replace(
        ground.unknown(
            f"The {ranks} ranks end every step together, so their step times do not tell who is slow; none waits "
            "longer for its batches than the others.",
            "Ranks that meet in a collective take the time of the slowest one. How long each computed by itself is not "
            "in the record: a device that is slow in its forward or backward would not show.",
            "Where the job is slower than it should be, time the forward and backward of each rank (torch.profiler, or "
            "CUDA events around them).",
        ),
        statistic=lowest,
    )


def _alone(run: Run, ground: Ground) -> Finding:
    if run.imported is not None or (run.card.world_size or 1) > 1:
        return ground.unknown(
            "The record has the step times of one rank only.",
            "Whether another one holds it up is not in it.",
            "Log with tv.attach(model, ...) on every rank.",
        )
    return ground.passed("The run has one rank, so none can lag behind.", None, "Nothing to compare.")


@dataclass(frozen=True, slots=True)
class Slow:
    """A rank behind the others."""

    rank: str
    spell: Spell
    score: float
    """Median of the spell."""
    signal: str
    """What gave it away."""


def _whole(rows: Rows) -> Rows:
    keep = np.isfinite(rows.values).all(axis=1)
    return Rows(rows.steps[keep], rows.values[keep], rows.labels)


def _slow(rows: Rows, edges: np.ndarray, scores: Floats, signal: str, limit: float, k: int, n: int) -> Iterator[Slow]:
    for rank in np.flatnonzero((scores < limit).any(axis=0)):
        slow = -scores[:, rank]
        for e in excursions(slow, slow > -limit, np.full(len(slow), -(limit + 1) / 2), k=k, n=n, at_most=3):
            near = rows_near(edges, e.first, e.last)
            others = np.median(np.delete(rows.values[near], rank, axis=1), axis=1)
            row = near.start + best_split(rows.values[near, rank] - others)
            last = int(rows.steps[edges[e.last + 1] - 1])
            score = float(np.median(scores[e.first : e.last + 1, rank]))
            yield Slow(rows.labels[rank], Spell(int(rows.steps[row]), last, not e.recovered), score, signal)


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


def _alarm(ground: Ground, slow: Slow) -> Finding:
    late = slow.signal.endswith("data_wait_by_rank")
    return ground.alarm(
        f"Rank {slow.rank} {'holds' if slow.spell.ongoing else 'held'} up the others {slow.spell.words}"
        + (": it waits for its batch." if late else f": score {slow.score:.2f}."),
        Statistic("score", slow.score, "speed over that of the other ranks"),
        slow.spell,
        evidence=[Evidence(slow.signal, slow.spell.steps, slow.rank)],
        means="Every step waits for this rank.",
        do="Check this rank's loader and storage."
        if late
        else "Check this rank's device for throttling, errors and neighbours, and drain the node if it stays slow.",
        onset="best two-level split of the rank's excess over the others",
    )
