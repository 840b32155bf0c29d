"""What to highlight: the characters of a window and of an item that the two share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from checks.contamination.judge.edits import find, runs
from checks.contamination.records import ROLES, Item
from checks.contamination.text.words import Words, words_of

Spans = list[list[int]]
RUN = 3
"""Shared words in a row that are shown: the shortest n-gram of the index. Single words would light up everywhere."""


def item_text(item: Item) -> str:
    """The item as shown to people: its fields, each after its role."""
    return "\n\n".join(f"{role}: {item.fields[role]}" for role in ROLES if role in item.fields)


def shared_spans(item: Item, fields: Mapping[str, Words], window: str) -> tuple[Spans, Spans]:
    """Characters that a window and the item share, as [from, to) of the window and of `item_text(item)`.

    Args:
        item: The item.
        fields: Its words by role, as the index holds them.
        window: Text of the window.

    Returns:
        Spans of the window and of the item's text, ascending, not overlapping. A field shorter than `RUN` words is
        shown where it stands whole.
    """
    theirs = words_of(window)
    lit = np.zeros(len(theirs), bool)
    ours: Spans = []
    offset = 0
    for role in ROLES:
        if role not in item.fields:
            continue
        offset += len(role) + 2
        if role in fields:
            mine = np.zeros(len(fields[role]), bool)
            _light(mine, lit, fields[role], theirs)
            ours += [[offset + a, offset + b] for a, b in _characters(item.fields[role], fields[role], mine)]
        offset += len(item.fields[role]) + 2
    return _characters(window, theirs, lit), ours


def _light(mine: NDArray[np.bool_], lit: NDArray[np.bool_], words: Words, theirs: Words) -> None:
    """Mark the words of a field and of the window that stand in shared runs."""
    if len(words) < RUN:
        if (at := find(theirs.hashes, words.hashes)) >= 0:
            mine[:] = True
            lit[at : at + len(words)] = True
        return
    ours, other = runs(words.hashes, RUN).tolist(), runs(theirs.hashes, RUN).tolist()
    both = set(ours) & set(other)
    for flags, keys in ((mine, ours), (lit, other)):
        found = np.fromiter(map(both.__contains__, keys), bool, len(keys))
        for k in range(RUN):
            flags[k : k + len(found)] |= found


def _characters(text: str, words: Words, lit: NDArray[np.bool_]) -> Spans:
    """Runs of marked words as characters of the text."""
    if not lit.any():
        return []
    raw = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
    characters = np.concatenate([[0], np.cumsum((raw & 0xC0) != 0x80)])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lit, [False]]).astype(np.int8)))
    return [[int(characters[words.starts[a]]), int(characters[words.ends[b - 1]])]
            for a, b in zip(edges[::2], edges[1::2], strict=True)]
