# mypy: allow-untyped-defs, no-check-untyped-defs
"""First half of the exact detector: grams of the index in a stream of word hashes, at one memory access per word.

    word hashes ─ find_hits ─▶ hits (word, 3-gram), counts, candidates (document, unit, block) ─ windows.judge ─▶ pairs

Only 3-grams are probed at every word. A longer gram can only be in the index where all its 3-grams are, so 5-, 8- and
13-grams are looked up behind runs of hits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from checks.contamination.detect.index import GRAM_STEP, Floats, Ints, NgramIndex
from checks.contamination.records import NS
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Hashes, Longs, frozen, mix

BLOCK_BITS = 32


class Grams(NamedTuple):
    """One n of the index."""

    keys: Hashes
    order: Ints
    buckets: Ints
    shift: np.uint64


class Probes(NamedTuple):
    """What `find_hits` needs of the index: read-only arrays."""

    three: Grams
    five: Grams
    eight: Grams
    thirteen: Grams
    filter: Hashes
    weights: Floats
    unit_needs: Floats
    unit_windows: Longs
    anchor_first: Longs
    anchor_units: Ints
    long_first: Longs
    long_units: Ints


class Counts(NamedTuple):
    """Per gram of one n: the last document seen with it (int32, from 1) and how many there were (uint32)."""

    last: Ints
    documents: NDArray[np.uint32]


class State(NamedTuple):
    """What a scanner keeps from batch to batch."""

    three: Counts
    five: Counts
    eight: Counts
    thirteen: Counts
    block: Longs
    """int64[units]: block of the document in which the unit was last hit."""
    now: Floats
    """float32[units]: weight of anchors in that block."""
    before: Floats
    """float32[units]: and in the block before it."""
    told: Longs
    """int64[units]: block for which the unit was last made a candidate."""


def probes(index: NgramIndex) -> Probes:
    """The arrays that `find_hits` needs."""
    grams = {n: Grams(frozen(g.keys), frozen(g.order), frozen(g.buckets), np.uint64(g.shift))
             for n, g in index.grams.items()}
    arrays = {name: frozen(getattr(index, name)) for name in Probes._fields if hasattr(index, name)}
    for name, posting in (("anchor", index.anchors), ("long", index.long_anchors)):
        arrays |= {f"{name}_first": frozen(posting.first), f"{name}_units": frozen(posting.units)}
    return Probes(three=grams[3], five=grams[5], eight=grams[8], thirteen=grams[13], **arrays)


def state(index: NgramIndex) -> State:
    """A fresh state."""
    units = len(index.unit_items)
    sizes = [len(index.grams[n].keys) for n in NS]
    three, five, eight, thirteen = (Counts(np.zeros(size, np.int32), np.zeros(size, np.uint32)) for size in sizes)
    return State(three, five, eight, thirteen, np.full(units, -2, np.int64), np.zeros(units, np.float32),
                 np.zeros(units, np.float32), np.full(units, -2, np.int64))


@compiled
def _hash(hashes, at, n):
    gram = np.uint64(n)
    for k in range(n):
        gram = gram * GRAM_STEP + hashes[at + k]
    return mix(gram)


@compiled
def _find(keys, order, buckets, shift, key, expected):
    """Id of the gram with this hash, or -1. Looks first at the gram that follows in the benchmark."""
    if expected < len(keys) and keys[expected] == key:
        return expected
    bucket = key >> shift
    for place in range(buckets[bucket], buckets[bucket + np.uint64(1)]):
        gram = np.int64(order[place])
        if keys[gram] == key:
            return gram
    return np.int64(-1)


@compiled
def _longer(keys, order, buckets, shift, last, documents, hashes, at, n, document, expected):
    """Look up and count the gram of n words at a word; its id or -1."""
    gram = _find(keys, order, buckets, shift, _hash(hashes, at, n), expected)
    if gram >= 0 and last[gram] != document:
        last[gram] = document
        documents[gram] += np.uint32(1)
    return gram


@compiled
def _room(array, used, more):
    """The array, or a larger copy where there is no room for more."""
    if used + more <= len(array):
        return array
    larger = np.empty(2 * len(array) + more, array.dtype)
    for k in range(used):  # a slice assignment would compile seconds of error messages along with it
        larger[k] = array[k]
    return larger


@compiled
def _events(units, begin, end, weight, base, word, doc, windows, needs, block, now, before, told, out, used):
    """Add the weight of an anchor (all that is needed where it is negative) to the blocks of its units.

    Any window of a unit's length lies in two neighbouring blocks of that length. Units that have what they need in
    these two become candidates: document, unit and block are appended to `out`.
    """
    for place in range(begin, end):
        unit = np.int64(units[place])
        number = word // windows[unit]
        here = base + number
        if block[unit] != here:
            before[unit] = now[unit] if block[unit] == here - 1 else np.float32(0)
            now[unit] = np.float32(0)
            block[unit] = here
        now[unit] += weight if weight >= 0 else needs[unit]
        if told[unit] != here and before[unit] + now[unit] >= needs[unit]:
            told[unit] = here
            out[used], out[used + 1], out[used + 2] = doc, unit, number
            used += 3
    return used


@compiled
def find_hits(index, held, hashes, first, documents_before):
    """Find and count all grams; collect the units that a window may hold.

    Returns:
        Words at which a 3-gram of the index starts and its id, ascending; for each candidate its document (in the
        batch), unit and block, one after another.
    """
    # Arrays are taken out of their tuples once: every access would count references, a hundred times per word.
    keys3, order3, buckets3, shift3 = index.three
    keys5, order5, buckets5, shift5 = index.five
    keys8, order8, buckets8, shift8 = index.eight
    keys13, order13, buckets13, shift13 = index.thirteen
    last3, documents3 = held.three
    last5, documents5 = held.five
    last8, documents8 = held.eight
    last13, documents13 = held.thirteen
    bloom, weights, windows, needs = index.filter, index.weights, index.unit_windows, index.unit_needs
    anchor_first, anchor_units = index.anchor_first, index.anchor_units
    long_first, long_units = index.long_first, index.long_units
    block, now, before, told = held.block, held.now, held.before, held.told
    hit_at, hit_gram, hits = np.empty(len(hashes), np.int64), np.empty(len(hashes), np.int32), 0
    out, used = np.empty(96, np.int64), np.int64(0)
    mask, low, six, twelve = np.uint64(len(bloom) - 1), np.uint64(63), np.uint64(6), np.uint64(12)
    one = np.uint64(1)
    for doc in range(len(first) - 1):
        number = np.int32(documents_before + doc + 1)
        base, start = np.int64(number) << BLOCK_BITS, first[doc]
        run3 = run5 = run8 = 0
        three = five = eight = thirteen = np.int64(-1)
        for word in range(start, first[doc + 1] - 2):
            key = _hash(hashes, word, 3)
            bits = (one << (key & low)) | (one << ((key >> six) & low))
            found = np.int64(-1)
            if bloom[(key >> twelve) & mask] & bits == bits:
                found = _find(keys3, order3, buckets3, shift3, key, three + 1)
            if found < 0:
                run3 = run5 = run8 = 0
                continue
            three = found
            hit_at[hits], hit_gram[hits] = word, three
            hits += 1
            if last3[three] != number:
                last3[three] = number
                documents3[three] += np.uint32(1)
            begin, end = anchor_first[three], anchor_first[three + 1]
            out = _room(out, used, 3 * (end - begin))
            used = _events(anchor_units, begin, end, weights[three], base, word - start, doc, windows, needs, block,
                           now, before, told, out, used)
            run3 += 1
            if run3 < 3:
                continue
            five = _longer(keys5, order5, buckets5, shift5, last5, documents5, hashes, word - 2, 5, number, five + 1)
            if five < 0:
                run5 = run8 = 0
                continue
            run5 += 1
            if run5 < 4:
                continue
            eight = _longer(keys8, order8, buckets8, shift8, last8, documents8, hashes, word - 5, 8, number,
                            eight + 1)
            if eight < 0:
                run8 = 0
                continue
            begin, end = long_first[eight], long_first[eight + 1]
            out = _room(out, used, 3 * (end - begin))
            used = _events(long_units, begin, end, np.float32(-1), base, word - 5 - start, doc, windows, needs, block,
                           now, before, told, out, used)
            run8 += 1
            if run8 >= 6:
                thirteen = _longer(keys13, order13, buckets13, shift13, last13, documents13, hashes, word - 10, 13,
                                   number, thirteen + 1)
    return hit_at[:hits], hit_gram[:hits], out[:used]
