"""weights.replicas: ranks that should hold the same weights and do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.reading import Rows, has, vector
from checks.registry import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

SOURCE = "exact: equal weights have equal checksums, bit by bit (collectors/signals/replicas.py)"
DIFFER, BY_RANK = "weight/replicas_differ", "weight/checksum_by_rank"
NAMED = 3
"""Layers and ranks that a sentence names one by one."""


@check("weights.replicas", area="optimisation", uses=(DIFFER, BY_RANK))
def replicas(run: Run) -> Iterator[Finding]:
    """Ranks that should hold copies of the same weights hold others.

    Why it matters: a bit that flipped in one device's memory, or a rank that skipped an update, never shows in a mean
    loss; the ranks train different models from there on, and which one a checkpoint holds is chance. How to read it:
    every rank writes a checksum of each layer's weights, once in many steps and without talking to the others; one bit
    changed changes it. Of three ranks or more the one that stands against a majority is named; of two either may be
    the wrong one. Of shards nothing can be compared, and the answer is unknown.
    """
    if not has(run, BY_RANK) or not has(run, DIFFER):
        yield _nothing(run)
        return
    ranks = vector(run, BY_RANK)
    compared = np.isfinite(ranks.values).sum(axis=1) >= 2
    ranks = Rows(ranks.steps[compared], ranks.values[compared], ranks.labels)
    layers = vector(run, DIFFER)
    layers = Rows(layers.steps[compared], layers.values[compared], layers.labels)
    ground = Ground(len(ranks), Threshold(None, 0, "comparisons that differ", SOURCE))
    if not len(ranks):
        yield ground.unknown(
            "No two ranks wrote checksums of one step.",
            "Weights are compared where at least two ranks wrote.",
        )
        return
    apart = np.nan_to_num(layers.values) > 0
    rows = np.flatnonzero(apart.any(axis=1))
    if not len(rows):
        yield ground.passed(
            f"{len(ranks.labels)} ranks held the same weights, bit by bit, at each of {len(ranks):,} comparisons, "
            f"steps {int(ranks.steps[0]):,} to {int(ranks.steps[-1]):,}.",
            Statistic("comparisons that differ", 0, "comparisons"),
            "No rank drifted from the others, up to the last comparison.",
        )
        return
    yield _alarm(ground, ranks, layers, apart, rows)


def _alarm(ground: Ground, ranks: Rows, layers: Rows, apart: NDArray[np.bool_], rows: NDArray[np.int64]) -> Finding:
    first, last = int(rows[0]), int(rows[-1])
    names = [layers.labels[i] for i in np.flatnonzero(apart[first])]
    odd = odd_ones(ranks.values[first])
    who = [ranks.labels[i] for i in odd]
    present = int(np.isfinite(ranks.values[first]).sum())
    if not who and present == 2:
        which = "two ranks differ, and either may be the wrong one"
    elif not who:
        which = f"{present} ranks differ without a majority"
    elif len(who) == 1:
        which = f"rank {who[0]} differs from the {present - 1} others"
    else:
        which = f"ranks {', '.join(who[:NAMED])}{' and others' * (len(who) > NAMED)} differ from the majority"
    before = int(ranks.steps[first - 1]) if first else None
    spell = Spell(int(ranks.steps[first]), int(ranks.steps[last]), ongoing=last == len(ranks) - 1)
    where = ", ".join(names[:NAMED]) + f" and {len(names) - NAMED} more layers" * (len(names) > NAMED)
    since = f"after step {before:,}, where they were equal" if before is not None else "at the first comparison"
    return ground.alarm(
        f"Ranks hold different weights {spell.words}: {which}, first in {where}; it happened {since}.",
        Statistic("comparisons that differ", len(rows), "comparisons"),
        spell,
        evidence=[
            *(Evidence(DIFFER, spell.steps, name) for name in names[:20]),
            *(Evidence(BY_RANK, spell.steps, rank) for rank in (who or ranks.labels)[:20]),
        ],
        began=(before + 1 if before is not None else int(ranks.steps[first]), int(ranks.steps[first])),
        means="These ranks train different models: memory or arithmetic of one device is wrong, a rank skipped an "
        "update, or weights were not broadcast at the start.",
        do=(f"Go back to a checkpoint of step {before:,} or earlier" if before is not None else "Stop the job")
        + (f", drain the node of rank {', '.join(who[:NAMED])} and test its device." if who else ", and test both "
           "devices: compare each rank's weights with the checkpoint." if present == 2 else ", and test the devices."),
        onset="exact to one interval: the first comparison that differs",
        details={"layers": names[:100], "ranks": who[:100]},
        level="fail",
    )


def odd_ones(sums: NDArray[np.float64]) -> list[int]:
    """Positions of the ranks that stand against a strict majority; none without one. sums: checksums [ranks]."""
    there = np.flatnonzero(np.isfinite(sums))
    value, votes = Counter(sums[there].tolist()).most_common(1)[0]
    return [int(i) for i in there if sums[i] != value] if 2 * votes > len(there) else []


def _nothing(run: Run) -> Finding:
    events = run.events()
    said = [str(m) for m in events[events["kind"] == "replicas_unknown"]["message"]]
    if said:
        return Ground().unknown(
            said[0],
            "No rank holds a copy of what another one holds, or nobody knows that it should.",
            "Compare gradients or losses of the ranks by other means; a job under DistributedDataParallel is looked at "
            "by itself.",
        )
    if run.last_step is not None and run.imported is None and run.extent().ranks == 1 and run.card.world_size in (
        None, 1
    ):
        return Ground().unknown(
            "One rank wrote, so there is no other copy of its weights to compare.",
            "Silent corruption of the only device would show in the loss or not at all.",
            "Nothing, for a job of one rank.",
        )
    return Ground().unknown(
        "No checksum of the weights is in the record.",
        "Whether ranks that should hold the same weights do was not looked at.",
        "Attach a tap on every rank of a DistributedDataParallel job: tv.attach(model, optimizer, ...).",
    )
