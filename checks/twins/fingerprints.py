"""Twins by the fingerprints of their batches: certain where both runs have them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from checks.twins.pair import Pair, Piece, numbers
from checks.twins.rows import LossRows
from trainvitals.fingerprint import joined

LEAST_MATCHED, LEAST_KNOWN = 3, 20
"""Batches that must be the same, of 2^64 each; and batches of both runs that must be known to say that none is."""
RATIOS = (1, 2, 3, 4, 8)


def by_fingerprint(a: LossRows, b: LossRows) -> Pair | None:
    """The answer that fingerprints give; None where they give none."""
    if min(len(a.hashes), len(b.hashes)) < LEAST_MATCHED:
        return None
    for k in RATIOS:
        if (pair := _same(a, b, k, 1)) is not None or k > 1 and (pair := _same(a, b, 1, k)) is not None:
            return pair
    if min(len(a.hashes), len(b.hashes)) < LEAST_KNOWN:
        return None
    return Pair(a.name, b.name, False, None, f"none of {numbers(len(a.hashes), 'batch fingerprint')} of a is among "
                f"the {len(b.hashes):,} of b, nor are sums of neighbours")


def _same(a: LossRows, b: LossRows, ka: int, kb: int) -> Pair | None:
    for start in range(max(ka, kb)):
        steps_a, hashes_a = _grouped(a, ka, start if ka > 1 else 0)
        steps_b, hashes_b = _grouped(b, kb, start if kb > 1 else 0)
        pair = _matched(a, b, steps_a, hashes_a, steps_b, hashes_b, ka, kb)
        if pair is not None:
            return pair
    return None


def _grouped(rows: LossRows, k: int, start: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    if k == 1:
        return rows.hash_steps, rows.hashes
    made = joined(rows.hashes[start:], k)
    return rows.hash_steps[start + k - 1 :: k][: len(made)], made


def _matched(a: LossRows, b: LossRows, steps_a: NDArray[np.int64], hashes_a: NDArray[np.uint64],
             steps_b: NDArray[np.int64], hashes_b: NDArray[np.uint64], ka: int, kb: int) -> Pair | None:
    # A batch that comes again, in a second epoch or a stuck loader, says nothing of which step is which.
    only_a, at_a, count_a = np.unique(hashes_a, return_index=True, return_counts=True)
    only_b, at_b, count_b = np.unique(hashes_b, return_index=True, return_counts=True)
    once_a, once_b = count_a == 1, count_b == 1
    _, ia, ib = np.intersect1d(only_a[once_a], only_b[once_b], assume_unique=True, return_indices=True)
    if len(ia) < LEAST_MATCHED:
        return None
    mine, other = steps_a[at_a[once_a][ia]], steps_b[at_b[once_b][ib]]
    order = np.argsort(mine)
    mine, other = mine[order], other[order]
    offsets = other - mine if ka == kb == 1 else np.rint(other - mine * kb / ka).astype(np.int64)
    pieces = _runs(mine, offsets)
    offset = Counter(offsets.tolist()).most_common(1)[0][0]
    shared = (hashes_a.size, hashes_b.size)
    batches = f"{len(mine):,} batch{'es' if len(mine) > 1 else ''}"
    words = f"{batches} of {shared[0]:,} and {shared[1]:,} are the same by their fingerprints"
    if ka != kb:
        words += f"; {max(ka, kb)} steps of {'a' if ka > kb else 'b'} are one of the other"
    share = len(mine) / max(min(shared), 1)
    if share < 0.5 and len(mine) < 100:
        words += ", fewer than half"
    return Pair(a.name, b.name, True, int(offset), words, None, pieces, ka, kb)


def _runs(steps: NDArray[np.int64], offsets: NDArray[np.int64]) -> tuple[Piece, ...]:
    """Stretches of one offset, largest first; those of fewer than three batches only where there are no others."""
    edges = np.flatnonzero(np.diff(offsets)) + 1
    found = [Piece(int(s[0]), int(s[-1]), int(o[0]), len(s))
             for s, o in zip(np.split(steps, edges), np.split(offsets, edges), strict=True)]
    large = [p for p in found if p.rows >= LEAST_MATCHED] or found
    return tuple(sorted(large, key=lambda p: -p.rows)[:1000])
