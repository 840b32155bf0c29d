"""update.lost: updates that the optimizer makes and the weights do not keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.finding import Evidence, Finding, Statistic, Threshold
from checks.ground import Ground, Spell
from checks.optimisation._layers import spoken
from checks.reading import vector
from checks.registry import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trainvitals.store import Run

NORM, UPDATE = "weight/norm_by_layer", "update/ratio_by_layer"
RESOLUTION = 1e-6
SOURCE = (
    "exact: k updates of a share u of the weights, at right angles to them, lengthen them by k u^2 / 2; a norm that is "
    "the same to its last bit where that is above 1e-6, sixteen times the resolution of float32, kept none of them"
)
NAMED = 3


@dataclass(frozen=True, slots=True)
class Still:
    """A layer whose weights are the same at rows that updates lie between."""

    layer: str
    first: int
    """Row from which on they are the same."""
    last: int


@check("update.lost", area="optimisation", reads=(NORM, UPDATE))
def update_lost(run: Run) -> Iterator[Finding]:
    """A layer's weights are the same as before, bit by bit, though the optimizer moved them in between.

    Why it matters: the optimizer's own account is in order (gradients, rate, update), and nothing is learned: it steps
    copies that the model no longer uses, something puts the old weights back, or weights in low precision round each
    update away. How to read it: the norm of each layer's weights at two rows, and the updates measured in between; a
    layer that learns never has the same norm twice. All layers at once point to copies, single ones to rounding.
    Layers without updates are frozen, and not looked at.
    """
    norms, updates = vector(run, NORM), vector(run, UPDATE)
    steps, at_norm, at_update = np.intersect1d(norms.steps, updates.steps, return_indices=True)
    layers = [label for label in norms.labels if label in updates.labels]
    norm = norms.values[at_norm][:, [norms.labels.index(label) for label in layers]]
    update = updates.values[at_update][:, [updates.labels.index(label) for label in layers]]
    ground = Ground(max(len(steps) - 1, 0), Threshold(0, None, "layers that keep no update", SOURCE))
    if run.imported is not None:
        yield ground.unknown(
            "The log's numbers may be rounded, so equal norms of weights prove nothing.",
            "Weights that do not move show as norms that are the same to the last bit.",
            "Log with tv.attach(model, optimizer, ...).",
        )
        return
    told = _told(steps, update)
    moved = [label for i, label in enumerate(layers) if told[:, i].any()]
    if not moved:
        yield ground.unknown(
            f"{len(steps)} rows of weights with updates between them are too few, or their updates too small, to tell.",
            "Two rows are compared, with updates between them that must change the norm.",
        )
        return
    same = (norm[1:] == norm[:-1]) & (norm[1:] > 0)
    found = [still for i, label in enumerate(layers) if (still := _still(label, same[:, i], told[:, i])) is not None]
    if not found:
        yield ground.passed(
            f"The weights of {len(moved)} layers were other ones at each of {len(steps):,} rows.",
            Statistic("layers that keep no update", 0, "layers"),
            "Updates stay in the weights. Layers whose updates are too small to tell by the norm are not among these."
            if len(moved) < len(layers)
            else "Updates stay in the weights of every layer, at least in part: single elements are not looked at.",
        )
        return
    yield _alarm(ground, steps, found, len(moved))


def _told(steps: NDArray[np.int64], update: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs of rows between which updates must have changed the norm [rows - 1, layers]."""
    smaller = np.fmin(np.nan_to_num(update[1:]), np.nan_to_num(update[:-1]))
    told: NDArray[np.bool_] = np.diff(steps)[:, None] * smaller**2 / 2 > RESOLUTION
    return told


def _still(label: str, same: NDArray[np.bool_], told: NDArray[np.bool_]) -> Still | None:
    """The first stretch of equal rows in which updates must have shown."""
    proofs = np.flatnonzero(same & told)
    if not len(proofs):
        return None
    first = last = int(proofs[0])
    while first > 0 and same[first - 1]:
        first -= 1
    while last + 1 < len(same) and same[last + 1]:
        last += 1
    return Still(label, first, last + 1)


def _alarm(ground: Ground, steps: NDArray[np.int64], found: list[Still], moved: int) -> Finding:
    first = min(found, key=lambda still: still.first)
    last = max(still.last for still in found)
    spell = Spell(int(steps[first.first]), int(steps[last]), ongoing=last == len(steps) - 1)
    whole = len(found) >= moved
    names = ", ".join(spoken(still.layer) for still in found[:NAMED])
    which = f"all {moved} layers" if whole and moved > 1 else names + " and others" * (len(found) > NAMED)
    before = int(steps[first.first - 1]) + 1 if first.first else int(steps[0])
    return ground.alarm(
        f"The weights of {which} are the same to the last bit of their norm {spell.words}, though the optimizer moved "
        "them at the steps that were looked at.",
        Statistic("layers that keep no update", len(found), "layers"),
        spell,
        evidence=[
            *(Evidence(NORM, (int(steps[s.first]), int(steps[s.last])), s.layer) for s in found[:10]),
            *(Evidence(UPDATE, (int(steps[s.first]), int(steps[s.last])), s.layer) for s in found[:10]),
        ],
        began=(before, int(steps[first.first])),
        means="Nothing that the optimizer does stays in the model: it steps other tensors than those of the forward, "
        "or the old weights come back after each step."
        if whole
        else "The updates of these layers are smaller than the steps between neighbouring numbers of their weights, "
        "and are rounded away; or something puts their old weights back.",
        do="Compare optimizer.param_groups with model.parameters() (by identity), and look at what copies weights: a "
        "wrapper made after the optimizer, weights loaded by assignment, an average of weights that is swapped in."
        if whole
        else "Keep these weights in float32 (master weights), or round stochastically.",
        onset="exact to one interval: the first row that equals the next",
        details={"layers": [[s.layer, int(steps[s.first]), int(steps[s.last])] for s in found[:100]]},
        level="fail" if whole else "warn",
    )
