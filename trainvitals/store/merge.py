"""Adding up what ranks wrote: one value per step from the rows of all writers of an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.catalogue import Field
from trainvitals.formulas import MISSING, given
from trainvitals.store.parts import Part, values

Array = NDArray[np.float64]
Labels = Mapping[str, tuple[str, ...]]

_REDUCE: dict[str, np.ufunc] = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one frame in one attempt, and how they group into steps."""

    parts: Sequence[Part]
    steps: NDArray[np.int64]
    """Distinct steps in rising order [n]."""
    order: NDArray[np.int64] | None
    """Permutation that sorts the stored rows by step; None where they are in order."""
    starts: NDArray[np.int64] | None
    """Where each step's rows begin after sorting [n]; None where every step has one row."""
    ranks: NDArray[np.int64]
    """Rank of every stored row, sorted."""

    def merged(self, item: Field, labels: Labels) -> Array:
        """One value per step [n, *axes], ranks merged as the field says."""
        stored = self._sorted(item, labels)
        if self.starts is None:
            return stored
        if item.merge == "same":
            return _last_given(stored, self.starts)
        return np.asarray(_REDUCE[item.merge].reduceat(stored, self.starts, axis=0))

    def summed(self, item: Field, labels: Labels, edges: NDArray[np.int64]) -> Array:
        """Sums over the steps after each of `edges` [w + 1] up to the next [w, *axes], one part in memory at a time.

        Only for fields that merge by addition.
        """
        out = np.zeros((len(edges) - 1, *(len(labels[axis]) for axis in item.axes)))
        for part in self.parts:
            window = np.searchsorted(edges, part.column("step")) - 1
            stored = _stored(part, item, labels)
            for w in np.unique(window[(window >= 0) & (window < len(out))]):
                out[w] += stored[window == w].sum(axis=0)
        return out

    def by_rank(self, item: Field, ranks: Sequence[int]) -> Array:
        """A scalar field's value per step and rank [n, ranks]; NaN where a rank has no row."""
        sizes = np.diff(np.append(self.starts, len(self.ranks))) if self.starts is not None else 1
        table = np.full((len(self.steps), len(ranks)), MISSING)
        column = np.searchsorted(np.asarray(ranks), self.ranks)
        table[np.repeat(np.arange(len(self.steps)), sizes), column] = self._sorted(item, {})
        return table

    def _sorted(self, item: Field, labels: Labels) -> Array:
        stored = np.concatenate([_stored(part, item, labels) for part in self.parts])
        return stored if self.order is None else stored[self.order]


def gather(parts: Sequence[Part]) -> Rows:
    """Group the rows of parts (of one attempt, each writer's in sequence) by step."""
    # Of a value that is the same everywhere, the last row is taken: let that be the lowest rank's.
    parts = sorted(parts, key=lambda part: -part.header.rank)
    steps = np.concatenate([part.column("step") for part in parts])
    ranks = np.repeat([part.header.rank for part in parts], [part.rows for part in parts])
    if len(steps) < 2 or (np.diff(steps) > 0).all():
        return Rows(parts, steps, None, None, ranks)
    order = np.argsort(steps, kind="stable")
    ordered = steps[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) > 0))
    return Rows(parts, ordered[starts], order, starts, ranks[order])


def _last_given(stored: Array, starts: NDArray[np.int64]) -> Array:
    """Of every step's rows the last that gives a value: a script may log twice at one step."""
    rows = np.arange(len(stored)).reshape(-1, *[1] * (stored.ndim - 1))
    last = np.maximum.reduceat(np.where(given(stored), rows, -1), starts, axis=0)
    return np.where(last >= 0, np.take_along_axis(stored, np.maximum(last, 0), axis=0), MISSING)


def _stored(part: Part, item: Field, labels: Labels) -> Array:
    """A part's values of a field on the given labels; a field or label that the part lacks is NaN, or 0 if added."""
    missing = 0.0 if item.merge == "sum" and item.axes else MISSING
    shape = tuple(len(labels[axis]) for axis in item.axes)
    own = next((f for f in part.header.fields if f.name == item.name), None)
    if own is None:
        return np.full((part.rows, *shape), missing)
    if all(part.header.labels[axis] == labels[axis] for axis in item.axes):
        return values(part, own)
    table = np.full((part.rows, *shape), missing)
    where = [[labels[axis].index(name) for name in part.header.labels[axis]] for axis in item.axes]
    table[np.ix_(range(part.rows), *where)] = values(part, own)
    return table


def common_labels(parts: Sequence[Part], item: Field) -> dict[str, tuple[str, ...]]:
    """Labels of every axis over all parts, in order of first appearance."""
    labels: dict[str, tuple[str, ...]] = {}
    for axis in item.axes:
        variants = dict.fromkeys(part.header.labels.get(axis, ()) for part in parts)
        labels[axis] = tuple(dict.fromkeys(name for variant in variants for name in variant))
    return labels
