"""What a block of JSON Lines looks like, without parsing it: pyarrow's parser must not see every block.

It makes a column of every key and calls itself for every level: a data set keyed by its ids would fill the memory, and
a deep one would end the process.
"""

from __future__ import annotations

import numpy as np

COLON, QUOTE, SPACE, NEWLINE = b':" \n'
OPEN, CLOSE = b"[{", b"]}"
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in OPEN + CLOSE + b"\n")
TAIL = 8
"""Bytes before a key's closing quote that are compared."""
MOST_KEYS = 256
"""Different keys in a block above which it is read line by line."""
DEPTH = 32
"""Levels above which it is; convention."""


def is_plain(data: bytes) -> bool:
    """Whether a block has few different keys and no deep values.

    Keys are told apart by their ends. Brackets inside strings count as levels, so a plain block may be called deep.
    """
    if len(data) < TAIL:
        return True
    array = np.frombuffer(data, np.uint8)
    colons = np.flatnonzero(array == COLON)
    ends = colons - 1
    ends -= array[ends] == SPACE
    is_key = array[ends] == QUOTE
    ends, colons = ends[is_key], colons[is_key]
    words = np.ndarray(len(data) - TAIL + 1, "<u8", data, strides=(1,))  # at every byte, the eight that begin there
    before_start = np.maximum(TAIL - ends, 0)
    tails = words[np.maximum(ends - TAIL, 0)] << (8 * before_start).astype(np.uint64)
    if len(np.unique(tails)) > MOST_KEYS:
        return False
    # What is nested begins behind a key: without such a value, brackets stand in strings only.
    begins = np.minimum(colons + 1, len(data) - 1)
    begins += (array[begins] == SPACE) & (begins < len(data) - 1)
    opened = array[begins]
    inner = begins[np.isin(opened, list(OPEN + b" \t"))]
    if not len(inner):
        return True
    if not np.isin(opened, list(b"[ \t")).any():  # objects alone: each level has a key on its line
        lines = np.searchsorted(np.flatnonzero(array == NEWLINE), inner)
        return int(np.bincount(lines - lines[0]).max()) < DEPTH or _levels(data) <= DEPTH
    return _levels(data) <= DEPTH


def _levels(data: bytes) -> int:
    """The deepest level of any line, brackets inside strings counted."""
    brackets = np.frombuffer(data.translate(None, _ALL_BUT_BRACKETS), np.uint8)
    ends = brackets == NEWLINE
    steps = np.isin(brackets, list(OPEN)).astype(np.int64) - np.isin(brackets, list(CLOSE))
    depth = np.cumsum(steps)
    # Each line begins at level 0, whatever brackets in strings the lines before it left open.
    at_start = np.concatenate([[0], depth[ends]])
    return int(np.max(depth - at_start[np.cumsum(ends)], initial=0))
