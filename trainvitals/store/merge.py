"""Adding up what ranks wrote: one value per step from the rows of all writers of an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.catalogue import Field
from trainvitals.store.parts import Part, damaged, values

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = Mapping[str, tuple[str, ...]]

_REDUCE: dict[str, np.ufunc] = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True, slots=True)
class Merged:
    """One value per step of a field; where a row that belongs to it is damaged or missing, that is said."""

    values: Array
    """[n, *axes]"""
    damaged: Mask | None = None
    """Steps of which a stored value cannot be read [n]; None: none. The value is NaN there."""
    missing: Mask | None = None
    """Steps at which a rank that should be in the value has no row [n]; None: none. The value is over the others."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one attempt holds of the fields that a signal reads."""

    steps: NDArray[np.int64]
    """[n]"""
    columns: list[Array]
    """One per field [n, *axes]."""
    unknown: Mask | None = None
    """Where what is stored does not make up the value: damaged, or a sum without one of its ranks.
    [n], or [n, ranks] by rank; None: nowhere."""
    partial: Mask | None = None
    """Steps whose value is over some of the ranks [n]; None: none."""

    @classmethod
    def of(cls, steps: NDArray[np.int64], merged: Sequence[Merged], keep: slice, fields: Sequence[Field], mean: bool,
           alone: bool) -> Piece:
        """The kept part of merged fields. `mean`: without some ranks it stands for the others. `alone`: ranks that
        belong to the attempt have written nothing at all.
        """
        missing = _either([m.missing for m in merged], keep)
        unknown = _either([m.damaged for m in merged], keep)
        partial = missing if mean else None
        if not mean:
            unknown = _either([unknown, missing], slice(None))
        if alone and any(field.merge != "same" for field in fields):
            partial = np.ones(len(steps), bool)
        return cls(steps, [m.values[keep] for m in merged], unknown, partial)

    @classmethod
    def by_rank(cls, steps: NDArray[np.int64], tables: Sequence[tuple[Array, Mask]], keep: slice) -> Piece:
        """The kept part of fields by rank; a rank without a row has no value."""
        unknown = _either([~known for _, known in tables], keep)
        return cls(steps, [values[keep] for values, _ in tables], unknown)

    @classmethod
    def join(cls, pieces: Sequence[Piece]) -> Piece:
        """Pieces one behind the other."""
        columns = [np.concatenate(column) for column in zip(*(piece.columns for piece in pieces), strict=True)]
        return cls(np.concatenate([piece.steps for piece in pieces]), columns,
                   _joined([piece.unknown for piece in pieces], pieces),
                   _joined([piece.partial for piece in pieces], pieces))


def _either(masks: Sequence[Mask | None], keep: slice) -> Mask | None:
    found = [mask[keep] for mask in masks if mask is not None]
    either = np.logical_or.reduce(found) if found else None
    return either if either is not None and either.any() else None


def _joined(masks: Sequence[Mask | None], pieces: Sequence[Piece]) -> Mask | None:
    shapes = {mask.shape[1:] for mask in masks if mask is not None}
    if not shapes:
        return None
    shape = shapes.pop()
    return np.concatenate([np.zeros((len(piece.steps), *shape), bool) if mask is None else mask
                           for mask, piece in zip(masks, pieces, strict=True)])


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
    missing: Mask | None
    """Steps at which not all ranks that take part in the frame have a row [n]; None: none."""

    def merged(self, item: Field, labels: Labels) -> Merged:
        """One value per step, ranks merged as the field says."""
        stored, bad = self._sorted(item, labels)
        missing = None if item.merge == "same" else self.missing
        if self.starts is None:
            return Merged(stored, bad, missing)
        if item.merge == "same":
            return _first_whole(stored, bad, self.starts)
        values = np.asarray(_REDUCE[item.merge].reduceat(stored, self.starts, axis=0))
        return Merged(values, None if bad is None else np.logical_or.reduceat(bad, self.starts), missing)

    def summed(self, item: Field, labels: Labels, edges: NDArray[np.int64]) -> Merged:
        """Sums over the steps after each of `edges` [w + 1] up to the next, one part in memory at a time.

        Only for fields that merge by addition.
        """
        out = np.zeros((len(edges) - 1, *(len(labels[axis]) for axis in item.axes)))
        bad = np.zeros(len(out), bool)
        for part in self.parts:
            window = np.searchsorted(edges, part.column("step")) - 1
            stored, lost = _stored(part, item, labels)
            for w in np.unique(window[(window >= 0) & (window < len(out))]):
                out[w] += stored[window == w].sum(axis=0)
                bad[w] |= lost is not None and bool(lost[window == w].any())
        missing = None
        if self.missing is not None:
            window = np.searchsorted(edges, self.steps[self.missing]) - 1
            missing = np.isin(np.arange(len(out)), window)
        return Merged(out, bad if bad.any() else None, missing)

    def by_rank(self, item: Field, ranks: Sequence[int]) -> tuple[Array, Mask]:
        """A scalar field's value per step and rank [n, ranks], and whether there is one; NaN where there is none."""
        sizes = np.diff(np.append(self.starts, len(self.ranks))) if self.starts is not None else 1
        table = np.full((len(self.steps), len(ranks)), np.nan)
        known = np.zeros(table.shape, bool)
        at = np.repeat(np.arange(len(self.steps)), sizes), np.searchsorted(np.asarray(ranks), self.ranks)
        stored, bad = self._sorted(item, {})
        table[at], known[at] = stored, True if bad is None else ~bad
        return table, known

    def lacking(self, expected: Sequence[int], inside: slice) -> list[tuple[int, NDArray[np.int64]]]:
        """Ranks, and the steps of a range at which each has no row though another has one."""
        if self.missing is None or not self.missing[inside].any():
            return []
        within = np.zeros(len(self.steps), bool)
        within[inside] = self.missing[inside]
        sizes = np.diff(np.append(self.starts, len(self.ranks))) if self.starts is not None else 1
        at = np.repeat(np.arange(len(self.steps)), sizes)
        asked = within[at]
        found = {rank: at[asked & (self.ranks == rank)] for rank in expected}
        steps = np.flatnonzero(within)
        gone = {rank: np.setdiff1d(steps, rows) for rank, rows in found.items()}
        return [(rank, self.steps[rows]) for rank, rows in gone.items() if len(rows)]

    def _sorted(self, item: Field, labels: Labels) -> tuple[Array, Mask | None]:
        """A field's stored rows by step, and which of them are damaged."""
        pieces = [_stored(part, item, labels) for part in self.parts]
        stored = pieces[0][0] if len(pieces) == 1 else np.concatenate([piece[0] for piece in pieces])
        bad = None
        if any(lost is not None for _, lost in pieces):
            bad = np.concatenate([np.zeros(len(rows), bool) if lost is None else lost for rows, lost in pieces])
        if self.order is None:
            return stored, bad
        return stored[self.order], None if bad is None else bad[self.order]


def _first_whole(stored: Array, bad: Mask | None, starts: NDArray[np.int64]) -> Merged:
    """The first row of each step that is not damaged."""
    if bad is None:
        return Merged(np.asarray(stored[starts]))
    first = np.minimum.reduceat(np.where(bad, len(stored), np.arange(len(stored))), starts)
    lost = first == len(stored)
    return Merged(np.asarray(stored[np.where(lost, starts, first)]), lost if lost.any() else None)


def gather(parts: Sequence[Part], expected: int = 1) -> Rows:
    """Group the rows of parts (of one attempt, each writer's in sequence) by step.

    `expected`: how many ranks take part in the frame, so have a row at every step at which one of them has.
    """
    pieces = [part.column("step") for part in parts]
    steps = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    ranks = np.repeat([part.header.rank for part in parts], [len(piece) for piece in pieces])
    if len(steps) < 2 or (steps[1:] > steps[:-1]).all():
        missing = np.ones(len(steps), bool) if expected > 1 and len(steps) else None
        return Rows(parts, steps, None, None, ranks, missing)
    order = np.argsort(steps, kind="stable")
    ordered, ranks = steps[order], ranks[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] > ordered[:-1]))
    return Rows(parts, ordered[starts], order, starts, ranks, _missing(starts, ranks, expected))


def _missing(starts: NDArray[np.int64], ranks: NDArray[np.int64], expected: int) -> Mask | None:
    """Steps with rows of fewer than `expected` ranks. A rank that logged a step twice counts once."""
    if expected < 2:
        return None
    again = np.append(False, ranks[1:] == ranks[:-1])  # the sort is stable: a rank's rows of one step are neighbours
    again[starts] = False
    found = np.diff(np.append(starts, len(ranks)))
    if again.any():
        found = found - np.add.reduceat(again, starts, dtype=np.int64)
    missing: Mask = found < expected
    return missing if missing.any() else None


def _stored(part: Part, item: Field, labels: Labels) -> tuple[Array, Mask | None]:
    """A part's values of a field on the given labels, and which rows are damaged.

    A field or label that the part lacks is NaN, or 0 if added.
    """
    missing = 0.0 if item.merge == "sum" and item.axes else np.nan
    shape = tuple(len(labels[axis]) for axis in item.axes)
    own = next((f for f in part.header.fields if f.name == item.name), None)
    if own is None or own.axes != item.axes:
        return np.full((part.rows, *shape), missing), None
    found = values(part, own)
    lost = damaged(part, own)
    if all(part.header.labels[axis] == labels[axis] for axis in item.axes):
        return found, lost
    table = np.full((part.rows, *shape), missing)
    where = [[labels[axis].index(name) for name in part.header.labels[axis]] for axis in item.axes]
    table[np.ix_(range(part.rows), *where)] = found
    return table, lost


def common_labels(parts: Sequence[Part], item: Field) -> dict[str, tuple[str, ...]]:
    """Labels of every axis over all parts, in order of first appearance."""
    labels: dict[str, tuple[str, ...]] = {}
    for axis in item.axes:
        variants = dict.fromkeys(part.header.labels.get(axis, ()) for part in parts)
        labels[axis] = tuple(dict.fromkeys(name for variant in variants for name in variant))
    return labels
