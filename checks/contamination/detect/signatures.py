"""MinHash signatures, bit for bit those of datasketch's `affine32` scheme, for whole batches of documents at once.

Scheme: https://github.com/ekzhu/datasketch/blob/master/datasketch/minhash.py (mix the 32-bit hash of a shingle with the
finalizer of MurmurHash3, then a * h + b modulo 2^32 for each permutation, minimum over the set). A row of `signatures`
goes into `datasketch.MinHash(hashvalues=row, seed=SEED, scheme="affine32")` as it stands.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Hashes, Longs, mix

UInts = NDArray[np.uint32]

N = 3
"""Words in a shingle: short enough to survive edits (an added clause breaks two shingles at each end)."""
NUM_PERM = 128
"""Permutations: sd of an estimate sqrt(J(1 - J) / 128) <= .044."""
SEED = 1
"""Of the permutations; datasketch's default."""
EMPTY = np.uint32(0xFFFFFFFF)
"""Signature value of an empty set."""

M1, M2, GOLDEN = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35), np.uint64(0x9E3779B97F4A7C15)
S13, S16 = np.uint32(13), np.uint32(16)


def permutations(num_perm: int = NUM_PERM, seed: int = SEED) -> UInts:
    """The multipliers and addends of datasketch's `affine32` permutations: uint32[2, num_perm]."""
    drawn: UInts = np.ascontiguousarray(MinHash(num_perm=num_perm, seed=seed, scheme="affine32").permutations)
    return drawn


def shingles(hashes: Hashes, first: Longs) -> tuple[UInts, Longs]:
    """Shingles of N consecutive words, as 32-bit hashes.

    Args:
        hashes: uint64[w], words of a batch of documents.
        first: int64[n + 1], words of document i are first[i] to first[i + 1]; shingles never cross documents.

    Returns:
        uint32[s] and int64[n + 1]: shingles of document i are out[starts[i]:starts[i + 1]]; none below N words.
    """
    counts = np.maximum(np.diff(first) - (N - 1), 0)
    starts = np.zeros(len(first), np.int64)
    np.cumsum(counts, out=starts[1:])
    out = np.empty(int(starts[-1]), np.uint32)
    _shingles(hashes, first, starts, out)
    return out, starts


def signatures(shingle_hashes: UInts, first: Longs, perms: UInts) -> UInts:
    """One signature per set of shingles: uint32[n, num_perm]; EMPTY throughout for a set without shingles.

    Args:
        shingle_hashes: uint32[s], any 32-bit hashes; repeats do no harm.
        first: int64[n + 1], set i is shingle_hashes[first[i]:first[i + 1]].
        perms: uint32[2, num_perm] of `permutations`.
    """
    out = np.full((len(first) - 1, perms.shape[1]), EMPTY)
    _signatures(shingle_hashes, first, perms[0], perms[1], out)
    return out


@compiled
def shingle(hashes, at):
    """32-bit hash of the N words from `at` on; their order counts."""
    h = hashes[at]
    for k in range(1, N):
        h = mix(h * GOLDEN + hashes[at + k])
    return np.uint32(h)


@compiled
def premix(h):
    """Finalizer of MurmurHash3, 32 bits: what datasketch does to each hash before it permutes."""
    h = np.uint32((h ^ np.uint32(h >> S16)) * M1)
    h = np.uint32((h ^ np.uint32(h >> S13)) * M2)
    return np.uint32(h ^ np.uint32(h >> S16))


@compiled
def lower(row, mixed, begin, end, a, b):
    """Lower a signature to the permuted values of the premixed hashes from begin to end."""
    at = begin
    while at + 4 <= end:  # four at a time: the permutations are read, and the row written, a quarter as often
        h0, h1, h2, h3 = mixed[at], mixed[at + 1], mixed[at + 2], mixed[at + 3]
        for k in range(len(row)):
            low = min(np.uint32(a[k] * h0 + b[k]), np.uint32(a[k] * h1 + b[k]))
            high = min(np.uint32(a[k] * h2 + b[k]), np.uint32(a[k] * h3 + b[k]))
            row[k] = min(row[k], min(low, high))
        at += 4
    while at < end:
        h0 = mixed[at]
        for k in range(len(row)):
            row[k] = min(row[k], np.uint32(a[k] * h0 + b[k]))
        at += 1


@compiled
def _shingles(hashes, first, starts, out):
    for doc in range(len(first) - 1):
        shift = first[doc] - starts[doc]
        for i in range(starts[doc], starts[doc + 1]):
            out[i] = shingle(hashes, i + shift)


@compiled
def _signatures(shingle_hashes, first, a, b, out):
    mixed = np.empty_like(shingle_hashes)
    for i in range(len(shingle_hashes)):
        mixed[i] = premix(shingle_hashes[i])
    for doc in range(len(first) - 1):
        lower(out[doc], mixed, first[doc], first[doc + 1], a, b)
