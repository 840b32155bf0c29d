"""The fingerprint of a step's batch: eight bytes that are equal where the token ids are, whoever read them.

The hash of a row is a multilinear one (Carter and Wegman 1979) over its positions, modulo 2**64, with odd multipliers,
and the finalizer of MurmurHash3 behind it:

    h = sum over positions i that hold a token of (id + 1) * m(i)        m(i) = splitmix64(i) | 1,  i from 1
    h = fmix64(h)

Rows are added up, over micro-batches, ranks and steps, so their order and who read them do not matter. The sum is kept
in two lanes, each modulo 2**32: lanes of ranks stay exact in a float64. Because every multiplier is odd and fmix64 is a
bijection, one token changed in one row always changes the sum; any other two batches collide with about 2**-64.

A position that the attention mask leaves out adds nothing, and a row of such positions adds nothing: padding on the
right does not matter, nor does how much of it there is. Padding on the left moves the tokens, and padding that no mask
marks counts as tokens: both give another fingerprint.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from trainvitals.store.reader import Run

FIELD, SIGNAL = "data/batch_lanes", "data/batch_hash"
LANES = ("low", "high")
LANE = 0xFFFF_FFFF
FMIX64 = (0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53)
"""Multipliers of MurmurHash3's 64-bit finalizer: https://github.com/aappleby/smhasher, MurmurHash3.cpp."""


@lru_cache(maxsize=16)
def multipliers(positions: int) -> NDArray[np.uint64]:
    """The multiplier of each of so many positions, uint64 [positions]: splitmix64 (Steele et al. 2014), made odd."""
    z = np.arange(1, positions + 1, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    made: NDArray[np.uint64] = (z ^ (z >> np.uint64(31))) | np.uint64(1)
    made.flags.writeable = False
    return made


def lanes(ids: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Fingerprint of a batch in its two lanes, int64 [2] within 0..2**32 - 1.

    Args:
        ids: token ids, integers [rows, positions].
        mask: True where there is a token, [rows, positions]; None: everywhere.
    """
    tokens = ids.astype(np.uint64) + np.uint64(1)
    if mask is not None:
        tokens *= mask
    h = tokens @ multipliers(ids.shape[1])
    for factor in FMIX64:
        h = (h ^ (h >> np.uint64(33))) * np.uint64(factor)
    h ^= h >> np.uint64(33)
    low, high = int((h & np.uint64(LANE)).sum()), int((h >> np.uint64(32)).sum())
    return np.array([low & LANE, high & LANE], dtype=np.int64)


def batch_hashes(run: Run) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Fingerprints of what the steps of a run's main line were trained on.

    One per row of the `data` frame: of one step, or with a longer cadence of all steps since the row before. The
    fingerprint of several rows together is their sum lane by lane (`joined`). Steps of which it is not known are left
    out: batches without token ids, ranks without a row, damaged rows, attempts recorded without it.

    Returns:
        The steps, int64 [n], rising; and their fingerprints, uint64 [n].
    """
    if not run.has(SIGNAL):
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    series = run.array(SIGNAL)
    known = np.ones(len(series), bool) if series.present is None else series.present.all(axis=1)
    if series.partial is not None:
        known &= ~series.partial
    low, high = series.values[known].astype(np.uint64).T
    return series.steps[known], low | (high << np.uint64(32))


def joined(hashes: NDArray[np.uint64], group: int) -> NDArray[np.uint64]:
    """The fingerprint of each `group` neighbouring rows as one batch, uint64 [n // group]; what is left over is not in.

    A run whose batch is twice as large has, at its step i, what `joined(hashes, 2)` has there.
    """
    whole = hashes[:len(hashes) // group * group].reshape(-1, group)
    low, high = (whole & np.uint64(LANE)).sum(axis=1), (whole >> np.uint64(32)).sum(axis=1)
    found: NDArray[np.uint64] = (low & np.uint64(LANE)) | ((high & np.uint64(LANE)) << np.uint64(32))
    return found
