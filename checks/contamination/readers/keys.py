"""Which keys a block of JSON Lines has, without parsing it: a parser is fast only where it knows its columns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

COLON, QUOTE, SPACE = b':" '
TAIL = 8
"""Bytes before a key's closing quote that are compared: a longer key is known by its end."""


def keys_in(data: bytes, names: Iterable[str]) -> list[str]:
    """Those of the names that may be keys of objects, at any depth. A key is missed only where letters are escaped."""
    if len(data) < TAIL:
        return []
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == COLON) - 1
    ends -= array[ends] == SPACE
    ends = ends[array[ends] == QUOTE]
    words = np.ndarray(len(data) - TAIL + 1, "<u8", data, strides=(1,))  # at every byte, the eight that begin there
    before_start = np.maximum(TAIL - ends, 0)
    tails = np.unique(words[np.maximum(ends - TAIL, 0)] << (8 * before_start).astype(np.uint64))
    return [name for name in names if _is_tail(tails, f'"{name}'.encode()[-TAIL:])]


def _is_tail(tails: np.ndarray, end: bytes) -> bool:
    """Whether any tail ends so."""
    unseen = np.uint64(8 * (TAIL - len(end)))
    return bool(np.any(tails >> unseen == np.uint64(int.from_bytes(end, "little"))))
