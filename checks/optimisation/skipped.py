"""grad.skipped: optimizer steps that were skipped, again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import has, scalar, vector
from checks.registry import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

SOURCE = (
    "convention: a loss scaler that doubles every 2,000 good steps skips about one step in 2,000; with one in 1,000, "
    "the third within 50 steps is chance in 1 of 1,000 skips (Poisson)"
)
SKIPPED, BY_RANK = "skipped/gradients", "skipped/gradients_by_rank"
SEARCH_STEPS = 20
"""A loss scaler starts at 2**16 and halves until nothing overflows: skips of the first steps are its search."""
SEARCH_SKIPS = 24
MANY = 100
"""Expected skips beyond which five deviations of a normal variable stand for the Poisson tail."""


@check(
    "grad.skipped",
    area="optimisation",
    reads=("grad/norm",),
    uses=(SKIPPED, BY_RANK),
    refs=("https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling",),
)
def skipped(
    run: Run, *, warn_skips: int = 3, within_steps: int = 50, fail_share: float = 0.5, fail_skips: int = 10
) -> Iterator[Finding]:
    """Optimizer steps are skipped more often than a loss scaler at its best scale skips them.

    Why it matters: a skipped step costs its batch, and steps that are skipped again and again are gradients that
    overflow or a guard that is always hit, while the loss curve stands still and looks calm. How to read it:
    `warn_skips` gradients thrown away within `within_steps` steps warn; `fail_skips` or more of which at least
    `fail_share` of the gradients of that time were thrown away fail. The first 20 steps may hold the scaler's
    search. A log whose rows stand for more steps is held to a count that is as rare. Skips are counted where a tap
    saw them; an imported log without such a column does not tell.
    """
    steps = len(scalar(run, "grad/norm"))
    ground = Ground(steps, Threshold(warn_skips, fail_share, f"skips within {within_steps} steps", SOURCE))
    if not has(run, SKIPPED) and run.imported is not None:
        yield ground.unknown(
            f"{run.imported.title} does not tell which steps were skipped.",
            "A skipped step leaves no row in most logs.",
            "Log with tv.attach(model, optimizer, ...), which counts gradients that no update used.",
        )
        return
    rows = scalar(run, SKIPPED)
    counts = np.nan_to_num(rows.values)
    # A tap writes a row where something was skipped; a log writes how many were since its last row.
    spacing = int(np.median(np.diff(rows.steps))) if run.imported is not None and len(rows) > 1 else 1
    window = max(within_steps, spacing)
    least = warn_skips if window == within_steps else needed(window, warn_skips, within_steps)
    at, counts = rows.steps[counts > 0], counts[counts > 0]
    search = at <= max(SEARCH_STEPS, spacing)
    if counts[search].sum() <= SEARCH_SKIPS:
        at, counts = at[~search], counts[~search]
    found = list(_clusters(at, counts, least, window, spacing))
    if not found:
        never = f", never {least} within {window:,} steps" if len(at) else ""
        yield ground.passed(
            f"{int(counts.sum()):,} gradient{'' if counts.sum() == 1 else 's'} thrown away beside {steps:,} rows of "
            f"gradients that were used{never}.",
            Statistic("largest number of skips close together", _most(at, counts, window), "skips"),
            "Updates are made as they come.",
        )
    for spell in found:
        yield _alarm(run, ground, spell, fail_share, fail_skips)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Skips that follow each other closely."""

    steps: NDArray[np.int64]
    skips: float
    spacing: int
    """Steps that a row stands for."""

    @property
    def share(self) -> float:
        """Of the gradients of that time, those that were thrown away; updates are one a step."""
        updates = float(self.steps[-1] - self.steps[0]) + (self.spacing if self.spacing > 1 else 0)
        return self.skips / (self.skips + updates)


def needed(window: int, skips: int, within: int) -> int:
    """Skips within a longer window that are as rare, at one skip in 1,000 steps, as `skips` within `within` steps."""
    mean = window / 1000
    if mean > MANY:
        return math.ceil(mean + 5 * math.sqrt(mean))
    rare = _tail(within / 1000, skips)
    return next(n for n in range(skips, window + skips) if _tail(window / 1000, n) <= rare)


def _tail(mean: float, n: int) -> float:
    """P(X >= n) of a Poisson variable."""
    return 1.0 - sum(math.exp(-mean) * mean**i / math.factorial(i) for i in range(n))


def _clusters(
    at: NDArray[np.int64], counts: NDArray[np.float64], least: int, within: int, spacing: int = 1
) -> Iterator[Cluster]:
    if not len(at):
        return
    for group in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) > within) + 1):
        if _most(at[group], counts[group], within) >= least:
            yield Cluster(at[group], float(counts[group].sum()), spacing)


def _most(at: NDArray[np.int64], counts: NDArray[np.float64], within: int) -> float:
    """The largest number of skips in a window."""
    total = np.concatenate([[0.0], np.cumsum(counts)])
    begins = np.searchsorted(at, at - within + 1)
    return float((total[1:] - total[begins]).max(initial=0.0))


def _alarm(run: Run, ground: Ground, cluster: Cluster, fail_share: float, fail_skips: int) -> Finding:
    last_row = int(run.last_step or 0)
    spell = Spell(int(cluster.steps[0]), int(cluster.steps[-1]), ongoing=bool(cluster.steps[-1] >= last_row - 1))
    by_rank = vector(run, BY_RANK)
    inside = (by_rank.steps >= spell.first) & (by_rank.steps <= spell.last)
    ranks = dict(zip(by_rank.labels, np.nan_to_num(by_rank.values[inside]).sum(axis=0).tolist(), strict=True))
    alone = [rank for rank, n in ranks.items() if n] if len(ranks) > 1 else []
    who = f", on rank {alone[0]} alone" if len(alone) == 1 else ""
    fails = cluster.skips >= fail_skips and cluster.share >= fail_share
    return ground.alarm(
        f"{cluster.skips:,.0f} gradients were thrown away {spell.words}{who}: {100 * cluster.share:.2g} % of those of "
        "that time.",
        Statistic("gradients thrown away", cluster.skips, "gradients"),
        spell,
        evidence=[Evidence(BY_RANK, spell.steps, rank) for rank in alone] or [SKIPPED],
        means="These batches taught nothing. A loss scaler skips what overflows at its scale; a guard of the loop "
        "skips what it takes for broken.",
        do=f"Look at the gradients and the loss scale before step {spell.first:,}; a rank alone points to its device "
        "or its data. Move to bf16 where the hardware has it.",
        onset="exact: the first skip of the cluster",
        details={"skips_by_rank": ranks},
        level="fail" if fails else "warn",
    )
