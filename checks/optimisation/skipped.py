"""grad.skipped: optimizer steps that were skipped, again and again."""

from __future__ import annotations

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
    `fail_share` of the gradients of that time were thrown away fail. The first 20 steps may hold the scaler's search.
    Skips are counted where a tap saw them; an imported log without such a column does not tell.
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
    at, counts = rows.steps[counts > 0], counts[counts > 0]
    search = at <= SEARCH_STEPS
    if counts[search].sum() <= SEARCH_SKIPS:
        at, counts = at[~search], counts[~search]
    found = list(_clusters(at, counts, warn_skips, within_steps))
    if not found:
        never = f", never {warn_skips} within {within_steps} steps" if len(at) else ""
        yield ground.passed(
            f"{int(counts.sum()):,} gradient{'' if counts.sum() == 1 else 's'} thrown away beside {steps:,} rows of "
            f"gradients that were used{never}.",
            Statistic("largest number of skips close together", _most(at, counts, within_steps), "skips"),
            "Updates are made as they come.",
        )
    for spell in found:
        yield _alarm(run, ground, spell, fail_share, fail_skips)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Skips that follow each other closely."""

    steps: NDArray[np.int64]
    skips: float

    @property
    def share(self) -> float:
        """Of the gradients of that time, those that were thrown away; updates are one a step."""
        return self.skips / (self.skips + float(self.steps[-1] - self.steps[0]))


def _clusters(at: NDArray[np.int64], counts: NDArray[np.float64], least: int, within: int) -> Iterator[Cluster]:
    if not len(at):
        return
    for group in np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) > within) + 1):
        if _most(at[group], counts[group], within) >= least:
            yield Cluster(at[group], float(counts[group].sum()))


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
