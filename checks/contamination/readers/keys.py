"""What a block of JSON Lines looks like, without parsing it: pyarrow's parser must not see every block.

It makes a column of every key and calls itself for every level: a data set keyed by its ids would fill the memory, and
a deep one would end the process.
"""

from __future__ import annotations

import numpy as np

COLON, QUOTE, SPACE, NEWLINE = b':" \n'
OPEN, CLOSE = b"[{", b"]}"
TAIL = 8
"""Bytes before a key's closing quote that are compared."""
MOST_KEYS = 256
"""Different keys in a block above which it is read line by line."""
DEPTH = 32
"""Levels above which it is; convention."""


def count_keys(data: bytes) -> int:
    """How many keys of objects there may be, at any depth, told apart by their ends."""
    if len(data) < TAIL:
        return 0
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == COLON) - 1
    ends -= array[ends] == SPACE
    ends = ends[array[ends] == QUOTE]
    words = np.ndarray(len(data) - TAIL + 1, "<u8", data, strides=(1,))  # at every byte, the eight that begin there
    before_start = np.maximum(TAIL - ends, 0)
    tails = words[np.maximum(ends - TAIL, 0)] << (8 * before_start).astype(np.uint64)
    return len(np.unique(tails))


def is_deep(data: bytes) -> bool:
    """Whether a line may hold more than `DEPTH` levels; brackets inside strings count, so that it may be said of none."""
    if sum(data.count(bracket) for bracket in OPEN) <= data.count(b"\n") + DEPTH:
        return False
    array = np.frombuffer(data, np.uint8)
    opens = (array == OPEN[0]) | (array == OPEN[1])
    closes = (array == CLOSE[0]) | (array == CLOSE[1])
    places = np.flatnonzero(opens | closes | (array == NEWLINE))
    steps = opens[places].astype(np.int64) - closes[places]
    depth = np.cumsum(steps)
    lines = np.flatnonzero(array[places] == NEWLINE)
    # Each line begins at level 0, whatever brackets in strings the lines before it left open.
    at_start = np.concatenate([[0], depth[lines]])
    line_of = np.cumsum(array[places] == NEWLINE)
    return bool(len(depth) and np.max(depth - at_start[line_of]) > DEPTH)
