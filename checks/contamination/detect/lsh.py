"""Locality-sensitive hashing against the benchmark's signatures only: sorted arrays, no Python object per key.

The benchmark is the small side of the join (20,000 items make 2 million keys), so it goes to every worker whole, and
the corpus is never stored.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checks.contamination.detect.signatures import GOLDEN, NUM_PERM, UInts
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Hashes, Longs, mix

Ints = NDArray[np.int32]

ROWS = 2
"""Signature values per band. With 64 bands a pair of Jaccard similarity s is found with probability `s_curve(s)`:
.10 -> .47, .20 -> .93, .25 -> .984, .30 -> .998, .35 -> .9998
(Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4.2, http://www.mmds.org)."""


def s_curve(jaccard: float, num_perm: int = NUM_PERM, rows: int = ROWS) -> float:
    """Probability that LSH sees a pair of this similarity: 1 - (1 - s^r)^b with b = num_perm // rows bands."""
    return float(1 - (1 - jaccard**rows) ** (num_perm // rows))


@dataclass(frozen=True, slots=True)
class Bands:
    """An LSH table of the benchmark's signatures as sorted arrays: read-only, shared by all workers."""

    signatures: UInts
    """uint32[u, num_perm]."""
    keys: Hashes
    """uint64[u * bands], ascending: hashes of (band, its values)."""
    rows: Ints
    """int32[u * bands]: the signature of each key."""
    seen: NDArray[np.uint8]
    """Bitmap over the leading bits of the keys: most keys of a corpus end here."""

    @classmethod
    def build(cls, table: UInts) -> Bands:
        """Sort the bands of signatures, uint32[u, num_perm]."""
        bands = table.shape[1] // ROWS
        keys = np.empty((len(table), bands), np.uint64)
        _band_keys(table, keys)
        flat = keys.ravel()
        order = np.argsort(flat, kind="stable")
        rows = (order // bands).astype(np.int32)
        return cls(table, flat[order], rows, bitmap(flat))


def near(bands: Bands, table: UInts, least: int) -> Longs:
    """Pairs of signatures that share a band and `least` values: row of `table`, row of `bands`, equal values.

    Args:
        bands: The benchmark's.
        table: uint32[rows, num_perm], signatures made with the same permutations.
        least: Equal values.

    Returns:
        int64[pairs, 3], by row.
    """
    found: Longs = _near(table, bands.signatures, bands.keys, bands.rows, bands.seen, least)
    return found


def bitmap(keys: Hashes) -> NDArray[np.uint8]:
    """Bits at the leading bits of all keys: a power of two of them, at least 16 per key."""
    bits = max(6, int(16 * len(keys) + 1).bit_length())
    out = np.zeros(1 << (bits - 3), np.uint8)
    at = keys >> np.uint64(64 - bits)
    np.bitwise_or.at(out, (at >> np.uint64(3)).astype(np.int64), (1 << (at & np.uint64(7))).astype(np.uint8))
    return out


@compiled
def has(bits, shift, key):
    at = key >> shift
    return (bits[at >> np.uint64(3)] >> np.uint8(at & np.uint64(7))) & 1


@compiled
def shift_of(bits):
    """How far to shift a key to get its bit in the bitmap."""
    count, size = 3, len(bits)
    while size > 1:
        size >>= 1
        count += 1
    return np.uint64(64 - count)


@compiled
def _band_key(row, band):
    value = np.uint64(band + 1) * GOLDEN
    for k in range(band * ROWS, band * ROWS + ROWS):
        value = mix(value ^ np.uint64(row[k]))
    return value


@compiled
def _band_keys(table, keys):
    for i in range(len(table)):
        for band in range(keys.shape[1]):
            keys[i, band] = _band_key(table[i], band)


@compiled
def probe(row, table, keys, rows, seen, shift, least, stamps, stamp, units, matches):
    """Units whose signature shares a band with `row` and at least `least` values: how many, in units and matches."""
    found = 0
    for band in range(len(row) // ROWS):
        key = _band_key(row, band)
        if not has(seen, shift, key):
            continue
        at = np.searchsorted(keys, key)
        while at < len(keys) and keys[at] == key:
            unit = rows[at]
            at += 1
            if stamps[unit] == stamp:
                continue
            stamps[unit] = stamp
            equal = 0
            for k in range(len(row)):
                equal += row[k] == table[unit, k]
            if equal >= least:
                units[found], matches[found] = unit, equal
                found += 1
    return found


@compiled
def _near(own, table, keys, rows, seen, least):
    shift = shift_of(seen)
    stamps = np.full(len(table), -1)
    units, matches = np.empty(len(table), np.int64), np.empty(len(table), np.int64)
    out, count = np.empty((256, 3), np.int64), 0
    for i in range(len(own)):
        found = probe(own[i], table, keys, rows, seen, shift, least, stamps, i, units, matches)
        if count + found > len(out):
            out = np.concatenate((out[:count], np.empty((count + found, 3), np.int64)))
        for k in range(found):
            out[count, 0], out[count, 1], out[count, 2] = i, units[k], matches[k]
            count += 1
    return out[:count]
