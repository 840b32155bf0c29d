"""What an item asks, and how much each of its n-grams tells: much where the benchmark has it once.

Inverse document frequency over the items of one benchmark, with an open slot: "what does * need to do before this" is a
template whatever name stands in it, so a 5-gram is as common as its commonest version with one word left open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checks.contamination.detect.index import NgramIndex
from checks.contamination.records import ROLES, Item
from checks.contamination.text.words import Words

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]

ASKING = ("question", "code", "passage", "choices", "answer")
"""The first of these that an item has is what it asks: HumanEval's prompt is code, a cloze text only a passage."""
COMMON_SHARE = 0.005
COMMON_LEAST = 5
"""An n-gram is common in more than max(5, 0.5 %) of items or documents. Marin's filter by document frequency raised
precision from .926 to 1.000 and left recall at .83 (https://github.com/marin-community/marin/pull/7051)."""
WEIGHED = (3, 5)
"""Lengths that are weighed; longer ones only answer the any-hit rules of the literature."""
PLACES = np.array([3, 5, 7, 11, 13], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
"""Odd factor of each place in a 5-gram, for keys that know which place is open."""


def common_above(total: int) -> float:
    """Number of items or documents above which an n-gram is common."""
    return max(COMMON_LEAST, COMMON_SHARE * total)


@dataclass(frozen=True, slots=True)
class Weighed:
    """One item's n-grams and what they tell. Arrays by n, in the index's order for the item."""

    position: int
    """Of the item, in the audit."""
    words: Mapping[str, Words]
    """By role."""
    asks: str
    """The role of what is asked."""
    stem: tuple[str, ...]
    """Roles that decide: what is asked, with the passage where the question alone is a template."""
    standalone: bool
    """Whether what is asked says enough to be recognised without passage and choices."""
    length: int
    """Words of the stem."""
    n: int
    """Length of the n-grams that decide: 5, or 3 for stems too short for these."""
    ids: Mapping[int, Longs]
    in_role: Mapping[int, Mapping[str, Flags]]
    in_stem: Mapping[int, Flags]
    idf: Mapping[int, Floats]
    rare: Mapping[int, Flags]
    """Not common in the benchmark."""


def weigh_items(items: Sequence[Item], index: NgramIndex) -> Iterator[Weighed]:
    """Weigh every item against the others of its benchmark, benchmark by benchmark."""
    benchmarks: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        benchmarks.setdefault(item.benchmark, []).append(position)
    for positions in benchmarks.values():
        yield from _weigh_benchmark(positions, index)


def _weigh_benchmark(positions: list[int], index: NgramIndex) -> Iterator[Weighed]:
    total = len(positions)
    words = [index.field_words(position) for position in positions]
    ids = {n: [index.gram_ids(position, n) for position in positions] for n in WEIGHED}
    held = {n: _items_holding(ids[n]) for n in WEIGHED}
    slotted = _items_holding([_slotted(each) for each in words])
    for k, position in enumerate(positions):
        # At least as common as the plain 5-gram, which is held wherever it is.
        commonest = {3: held[3][k], 5: slotted[k].max(axis=1, initial=1)}
        rare = {n: held[n][k] <= common_above(total) for n in WEIGHED}
        idf = {n: np.log((total + 1) / commonest[n]) for n in WEIGHED}
        in_role = {n: _in_role(index.gram_roles(position, n), words[k]) for n in WEIGHED}
        asks = next((role for role in ASKING if role in words[k]), "question")
        asked = in_role[5].get(asks, np.zeros(0, bool))
        told = ids[5][k][asked][commonest[5][asked] <= common_above(total)]
        standalone = len(np.unique(told)) >= 2
        context = not standalone and asks in ("question", "code") and "passage" in words[k]
        stem = ("passage", asks) if context else (asks,)
        in_stem = {n: _any([in_role[n][role] for role in stem if role in words[k]], len(ids[n][k])) for n in WEIGHED}
        length = sum(len(words[k][role]) for role in stem if role in words[k])
        yield Weighed(position, words[k], asks, stem, standalone, length, 5 if in_stem[5].any() else 3,
                      {n: ids[n][k] for n in WEIGHED}, in_role, in_stem, idf, rare)


def _items_holding(keys: Sequence[NDArray[np.uint64] | Longs]) -> list[Longs]:
    """For each key of each item, in how many items it occurs: arrays of the same shapes."""
    flat = np.concatenate([each.ravel() for each in keys])
    owner = np.repeat(np.arange(len(keys)), [each.size for each in keys])
    unique, inverse = np.unique(flat, return_inverse=True)
    owned = np.unique(inverse * len(keys) + owner)
    counts = np.bincount(owned // len(keys), minlength=len(unique))[inverse]
    edges = np.cumsum([each.size for each in keys])[:-1]
    return [part.reshape(each.shape) for part, each in zip(np.split(counts, edges), keys, strict=True)]


def _slotted(words: Mapping[str, Words]) -> NDArray[np.uint64]:
    """uint64[grams, 5]: keys of each 5-gram of the item with its k-th word left open, in the index's order."""
    found = [np.empty((0, 5), np.uint64)]
    for role in ROLES:
        if role in words and len(words[role]) >= 5:
            runs = np.lib.stride_tricks.sliding_window_view(words[role].hashes, 5) * PLACES
            found.append(runs.sum(axis=1, dtype=np.uint64)[:, None] - runs + PLACES)
    return np.concatenate(found)


def _in_role(roles: NDArray[np.int8], words: Mapping[str, Words]) -> dict[str, Flags]:
    return {role: roles == ROLES.index(role) for role in words}


def _any(flags: Sequence[Flags], size: int) -> Flags:
    return np.logical_or.reduce(flags) if flags else np.zeros(size, bool)
