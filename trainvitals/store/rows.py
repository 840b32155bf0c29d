"""Adding up what ranks wrote: one value per step from the rows of all writers of an attempt.

Ranks add up; rows that one rank wrote twice for one step do not: its last one counts. The frames of evaluations are the
exception, where two passes may belong to one step.

Values are merged part by part, so what is held at a time is one value per step, whatever the number of ranks. Parts
with the same steps, as those of most ranks are, share the work of finding where their rows go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainvitals.catalogue import Field
from trainvitals.formulas import MISSING, given
from trainvitals.store.merge import Array, Mask, Merged
from trainvitals.store.parts import Part, damaged, values

Labels = Mapping[str, tuple[str, ...]]
Steps = NDArray[np.int64]
T = TypeVar("T")

READERS = 8
"""Threads that read parts where there are more: a store behind a network answers them side by side."""

_REDUCE: dict[str, np.ufunc] = {"sum": np.add, "max": np.maximum, "min": np.minimum}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a part go."""

    at: slice | NDArray[np.int64]
    """Index of each of the part's distinct steps among all steps."""
    order: NDArray[np.int64] | None
    """Permutation that sorts the part's rows by step; None where every step has one row, in order."""
    starts: NDArray[np.int64] | None
    """Where each distinct step's rows begin after sorting; None as `order`."""

    def reduced(self, stored: NDArray[Any], reduce: np.ufunc) -> NDArray[Any]:
        """One value per distinct step."""
        if self.order is None or self.starts is None:
            return stored
        return np.asarray(reduce.reduceat(stored[self.order], self.starts, axis=0))

    def without(self, steps: NDArray[np.bool_], count: int) -> Place:
        """The rows that count, where those of some steps (of all [count]) are superseded by a later part's."""
        at = np.arange(count)[self.at]
        order, starts = self.order, self.starts
        if order is None or starts is None:
            order, starts = np.arange(len(at)), np.arange(len(at))
        newest = order[np.append(starts[1:], len(order)) - 1] if len(order) else order
        keep = ~steps[at]
        return Place(at[keep], newest[keep], np.arange(int(keep.sum())))

    def last(self, stored: Array, usable: Mask) -> tuple[Array, Mask]:
        """The last usable value of each distinct step, and where there is one."""
        if self.order is None or self.starts is None:
            return stored, usable
        stored, usable = stored[self.order], usable[self.order]
        rows = np.arange(len(stored)).reshape(-1, *[1] * (stored.ndim - 1))
        found = np.maximum.reduceat(np.where(usable, rows, -1), self.starts, axis=0)
        return np.take_along_axis(stored, np.maximum(found, 0), axis=0), found >= 0


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one frame in one attempt, and how they group into steps."""

    parts: Sequence[Part]
    """Those of the lowest rank last, each writer's in sequence."""
    places: Sequence[Place]
    """Of every part."""
    steps: Steps
    """Distinct steps in rising order [n]."""
    missing: Mask | None
    """Steps at which not all ranks that take part in the frame have a row [n]; None: none."""
    counted: Sequence[Place]
    """Where the rows go that are added up: of every rank one for each step, but in `MANY_ROWS`."""
    repeats: Mapping[int, Steps]
    """Rank -> steps for which it wrote more than one row; without ranks that did not."""

    def merged(self, item: Field, labels: Labels) -> Merged:
        """One value per step, ranks merged as the field says."""
        if item.merge == "same":
            return self._same(item, labels)
        reduce = _REDUCE[item.merge]
        out = np.empty((len(self.steps), *_shape(item, labels)))
        bad, seen = np.zeros(len(self.steps), bool), np.zeros(len(self.steps), bool)
        counted = _read(self.parts, lambda part: _stored(part, item, labels))
        for place, (stored, lost) in zip(self.counted, counted, strict=True):
            _add(out, seen, place.at, place.reduced(stored, reduce), reduce)
            if lost is not None:
                bad[place.at] |= place.reduced(lost, np.logical_or)
        return Merged(out, bad if bad.any() else None, self.missing)

    def summed(self, item: Field, labels: Labels, edges: Steps) -> Merged:
        """Sums over the steps after each of `edges` [w + 1] up to the next.

        Only for fields that merge by addition.
        """
        out = np.zeros((len(edges) - 1, *_shape(item, labels)))
        bad = np.zeros(len(out), bool)
        for part, place in zip(self.parts, self.counted, strict=True):
            stored, lost = _stored(part, item, labels)
            stored, lost = place.reduced(stored, np.add), None if lost is None else place.reduced(lost, np.logical_or)
            window = np.searchsorted(edges, self.steps[place.at]) - 1
            for w in np.unique(window[(window >= 0) & (window < len(out))]):
                out[w] += stored[window == w].sum(axis=0)
                bad[w] |= lost is not None and bool(lost[window == w].any())
        missing = None
        if self.missing is not None:
            window = np.searchsorted(edges, self.steps[self.missing]) - 1
            missing = np.isin(np.arange(len(out)), window)
        return Merged(out, bad if bad.any() else None, missing)

    def by_rank(self, item: Field, ranks: Sequence[int]) -> tuple[Array, Mask]:
        """A scalar field's value per step and rank [n, ranks], and whether there is one."""
        table = np.full((len(self.steps), len(ranks)), MISSING)
        known = np.zeros(table.shape, bool)
        column = {rank: i for i, rank in enumerate(ranks)}
        found = self._each(lambda part: (*_stored(part, item, {}), column[part.header.rank]))
        for place, (stored, lost, rank) in found:
            usable = np.ones(len(stored), bool) if lost is None else ~lost
            table[place.at, rank], known[place.at, rank] = place.last(stored, usable)
        return table, known

    def lacking(self, expected: Sequence[int], inside: slice) -> list[tuple[int, Steps]]:
        """Ranks, and the steps of a range at which each has no row though another has one."""
        if self.missing is None or not self.missing[inside].any():
            return []
        within = np.zeros(len(self.steps), bool)
        within[inside] = self.missing[inside]
        found = {rank: within & ~has for rank, has in _by_rank(self.parts, self.places, len(self.steps))}
        gone = {rank: self.steps[found.get(rank, within)] for rank in expected}
        return [(rank, steps) for rank, steps in gone.items() if len(steps)]

    def _same(self, item: Field, labels: Labels) -> Merged:
        """Of every step the lowest rank's last row that gives a value; other ranks are read only where it has none."""
        out = np.full((len(self.steps), *_shape(item, labels)), MISSING)
        filled, bad = np.zeros(out.shape, bool), np.zeros(len(self.steps), bool)
        for part, place in zip(reversed(self.parts), reversed(self.places), strict=True):
            if filled[place.at].all():
                continue
            stored, lost = _stored(part, item, labels)
            usable = given(stored)
            if lost is not None:
                usable &= ~lost.reshape(-1, *[1] * len(item.axes))
                bad[place.at] |= place.reduced(lost, np.logical_or)
            found, there = place.last(stored, usable)
            new = there & ~filled[place.at]
            out[place.at] = np.where(new, found, out[place.at])
            filled[place.at] |= there
        # Without a value in any whole row, the damaged one may have had it.
        bad &= ~filled.all(axis=tuple(range(1, filled.ndim)))
        return Merged(out, bad if bad.any() else None)

    def _each(self, make: Callable[[Part], T]) -> Iterator[tuple[Place, T]]:
        return zip(self.places, _read(self.parts, make), strict=True)


def _shape(item: Field, labels: Labels) -> tuple[int, ...]:
    return tuple(len(labels[axis]) for axis in item.axes)


def _add(out: Array, seen: Mask, at: slice | NDArray[np.int64], found: Array, reduce: np.ufunc) -> None:
    """Merge values into those of the same steps; the first of a step is taken as it is."""
    known = seen[at]
    if not known.any():
        out[at] = found
    elif known.all():
        out[at] = reduce(out[at], found)
    else:
        out[at] = np.where(known.reshape(-1, *[1] * (out.ndim - 1)), reduce(out[at], found), found)
    seen[at] = True


def _read(parts: Sequence[Part], make: Callable[[Part], T]) -> Iterator[T]:
    """What `make` gives for each part, in order, a few of them under way at a time."""
    if len(parts) <= READERS:
        yield from map(make, parts)
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="trainvitals-read") as pool:
        coming = iter(parts)
        waiting = [pool.submit(make, part) for part in islice(coming, 2 * READERS)]
        while waiting:
            found = waiting.pop(0).result()
            waiting += [pool.submit(make, part) for part in islice(coming, 1)]
            yield found


def gather(parts: Sequence[Part], expected: int = 1, many: bool = False) -> Rows:
    """Group the rows of parts (of one attempt, each writer's in sequence) by step.

    Args:
        parts: of one frame.
        expected: how many ranks take part in the frame, so have a row at every step at which one of them has.
        many: a rank may have several rows for one step, which add up (`MANY_ROWS`).
    """
    # Of a value that is the same everywhere, the last row is taken: let that be the lowest rank's.
    parts = sorted(parts, key=lambda part: -part.header.rank)
    kinds: dict[bytes, Steps] = {}
    keys = []
    for steps in _read(parts, lambda part: part.column("step")):
        keys.append(hashlib.blake2b(steps.tobytes(), digest_size=16).digest())
        kinds.setdefault(keys[-1], steps)
    every = _distinct(np.concatenate(list(kinds.values())))
    known = {key: _place(steps, every) for key, steps in kinds.items()}
    places = [known[key] for key in keys]
    missing = _missing(parts, places, len(every), expected)
    if many:
        return Rows(parts, places, every, missing, places, {})
    counted, repeats = _once(parts, places, len(every))
    return Rows(parts, places, every, missing, counted, {rank: every[twice] for rank, twice in repeats.items()})


def _once(parts: Sequence[Part], places: Sequence[Place], count: int) -> tuple[list[Place], dict[int, Mask]]:
    """Of every rank the last row of each step, and the steps for which it has more than one. Parts: sorted by rank."""
    counted = list(places)
    repeats: dict[int, Mask] = {}
    rank, has = -1, np.zeros(count, bool)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i].header.rank != rank:
            rank, has = parts[i].header.rank, np.zeros(count, bool)
        place = places[i]
        again = has[place.at]
        if place.order is not None or again.any():
            counted[i] = place.without(has, count)
            twice = repeats.setdefault(rank, np.zeros(count, bool))
            twice[np.arange(count)[place.at][again]] = True
            if place.order is not None and place.starts is not None:
                sizes = np.diff(np.append(place.starts, len(place.order)))
                twice[np.arange(count)[place.at][sizes > 1]] = True
        has[place.at] = True
    return counted, {rank: twice for rank, twice in repeats.items() if twice.any()}


def _distinct(steps: Steps) -> Steps:
    """Distinct steps in rising order: as `np.unique`, which takes 30 times as long for steps that rise already."""
    if len(steps) > 1 and not (steps[1:] > steps[:-1]).all():
        steps = np.sort(steps, kind="stable")
        steps = steps[np.append(True, steps[1:] > steps[:-1])]
    return steps


def _place(steps: Steps, every: Steps) -> Place:
    order = starts = None
    if len(steps) > 1 and not (steps[1:] > steps[:-1]).all():
        order = np.argsort(steps, kind="stable")
        steps = steps[order]
        starts = np.flatnonzero(np.append(True, steps[1:] > steps[:-1]))
        steps = steps[starts]
    at = np.searchsorted(every, steps)
    together = len(steps) > 0 and at[-1] - at[0] == len(steps) - 1
    return Place(slice(int(at[0]), int(at[-1]) + 1) if together else at, order, starts)


def _missing(parts: Sequence[Part], places: Sequence[Place], count: int, expected: int) -> Mask | None:
    """Steps with rows of fewer than `expected` ranks. A rank that logged a step twice counts once."""
    if expected < 2:
        return None
    found = np.zeros(count, np.int64)
    for _, has in _by_rank(parts, places, count):
        found += has
    missing: Mask = found < expected
    return missing if missing.any() else None


def _by_rank(parts: Sequence[Part], places: Sequence[Place], count: int) -> Iterator[tuple[int, Mask]]:
    """Every rank, and the steps at which it has a row [count]. `parts` are sorted by rank."""
    rank, has = -1, np.zeros(count, bool)
    for part, place in zip(parts, places, strict=True):
        if part.header.rank != rank:
            if rank >= 0:
                yield rank, has
            rank, has = part.header.rank, np.zeros(count, bool)
        has[place.at] = True
    if rank >= 0:
        yield rank, has


def _stored(part: Part, item: Field, labels: Labels) -> tuple[Array, Mask | None]:
    """A part's values of a field on the given labels, and which rows are damaged.

    A field or label that the part lacks is missing, or 0 if added.
    """
    missing = 0.0 if item.merge == "sum" and item.axes else MISSING
    shape = _shape(item, labels)
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
