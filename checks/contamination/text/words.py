"""Words of UTF-8 text, as hashes and byte positions, at the speed of memory and without a Python object per word.

A word is a run of letters and digits of any script, folded as `fold.py` says; invalid bytes separate words, escapes
count as what they stand for (`escapes.py`), and markup is no word (`markup.py`). Word hashes are 64 bits wide: good for
finding, never the last word (`spells` compares the letters themselves).
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checks.contamination.text.escapes import AMPERSAND, BACKSLASH, BASIS, PRIME, UNDERSCORE
from checks.contamination.text.fold import (
    EXPANDED,
    IGNORED,
    JOINER,
    LIMIT,
    MARK,
    POINT,
    SEPARATOR,
    SOLO,
    TAGS,
    fold_table,
)
from checks.contamination.text.jit import compiled
from checks.contamination.text.markup import (
    BRACKET,
    INLINE_TAG,
    LESS,
    character,
    fresh_memory,
    markup_at,
    skip_tag,
)

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Points = NDArray[np.uint32]

# The mixer of MurmurHash3 (https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp) finishes FNV-1a.
MIX_1, MIX_2, HALF = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)

SPECIAL = IGNORED
"""Entry for the ASCII characters that begin an escape or markup; no other ASCII character is ignored."""
LONGEST_EXPANSION = 18
"""Letters that one character can fold to (U+FDFA)."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a batch of documents, in order."""

    hashes: Hashes
    """uint64[w]."""
    starts: Longs
    """int64[w]: byte at which the word starts in the batch's text."""
    ends: Longs
    """int64[w]: byte after its last."""
    first: Longs
    """int64[n_docs + 1]: words of document i are first[i] to first[i + 1]."""

    def __len__(self) -> int:
        return len(self.hashes)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view: kernels are compiled once, for these, instead of again for writeable arrays."""
    view = array.view()
    view.flags.writeable = False
    return view


def split_words(text: Bytes, offsets: Longs) -> Words:
    """Split documents into words.

    Args:
        text: uint8[bytes], UTF-8; invalid bytes count as separators.
        offsets: int64[n + 1]; document i is text[offsets[i]:offsets[i + 1]]. Words never cross documents.
    """
    most = len(text) + 1  # a word takes a byte at least; pages that are never written to take no memory
    hashes, starts, ends = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
    first = np.empty(len(offsets), np.int64)
    table = fold_table()
    text, offsets = frozen(text), frozen(offsets)
    count = _split(text, offsets, table.values, table.expansions, fresh_memory(), hashes, starts, ends, first)
    return Words(hashes[:count], starts[:count], ends[:count], first)


def words_of(text: str) -> Words:
    """Words of one string; positions count bytes of its UTF-8. Lone surrogates separate words."""
    encoded = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
    return split_words(encoded, np.array([0, len(encoded)], np.int64))


@compiled
def mix(h):
    """Spread all bits of a 64-bit value over all others."""
    h = (h ^ (h >> HALF)) * MIX_1
    h = (h ^ (h >> HALF)) * MIX_2
    return h ^ (h >> HALF)


@compiled
def folded(point, values):
    """Entry of the fold table for a code point of any size, or for the -1 of `decode`."""
    if 0 <= point < LIMIT:
        return values[point]
    return np.uint32(IGNORED if point >= TAGS else SEPARATOR)


@compiled
def _split(text, offsets, values, expansions, memory, hashes, starts, ends, first):
    ascii_values = values[:128].astype(np.uint64)
    ascii_values[BACKSLASH] = ascii_values[AMPERSAND] = ascii_values[LESS] = np.uint64(SPECIAL)
    ascii_values[BRACKET] = np.uint64(SPECIAL)
    count, joiner, underscore = 0, np.uint64(JOINER), np.uint64(UNDERSCORE)
    for doc in range(len(offsets) - 1):
        first[doc] = count
        at, stop = offsets[doc], offsets[doc + 1]
        inside, solo, joined = False, False, False
        h, start, end = BASIS, at, at
        while at < stop:
            b = text[at]
            if b < 0x80:
                letter = ascii_values[b]
                at += 1
                if letter > joiner:
                    if solo or not inside:
                        if inside:
                            hashes[count], starts[count], ends[count] = mix(h), start, end
                            count += 1
                        h, start, inside, solo = BASIS, at - 1, True, False
                    elif joined:
                        h = (h ^ underscore) * PRIME
                    h = (h ^ letter) * PRIME
                    end, joined = at, False
                elif letter == joiner:
                    joined = inside
                elif letter == 0 and inside:
                    hashes[count], starts[count], ends[count] = mix(h), start, end
                    count += 1
                    inside, solo = False, False
                if letter != SPECIAL:
                    continue
                at -= 1
            point, after = character(text, at, stop)
            if point == LESS or b == BRACKET:
                point, after = markup_at(text, at, after, stop, memory)
            value = folded(point, values)
            base, parts = np.int64(0), np.int64(1)
            if value & EXPANDED:
                base = np.int64(value & POINT)
                parts = np.int64(expansions[base])
            for k in range(parts):
                part = expansions[base + 1 + k] if value & EXPANDED else value
                if part == IGNORED:
                    if inside and point != INLINE_TAG:
                        end = after
                    continue
                if part == JOINER:
                    joined = inside
                    continue
                joins = inside and part != SEPARATOR and ((part & MARK) != 0 or not (solo or (part & SOLO) != 0))
                if inside and not joins:
                    hashes[count], starts[count], ends[count] = mix(h), start, end
                    count += 1
                    inside, solo = False, False
                if part != SEPARATOR:
                    if not joins:
                        h, start, inside, solo = BASIS, at, True, (part & SOLO) != 0
                    elif joined:
                        h = (h ^ underscore) * PRIME
                    h = (h ^ np.uint64(part & POINT)) * PRIME
                    end, joined = after, False
            at = after
        if inside:
            hashes[count], starts[count], ends[count] = mix(h), start, end
            count += 1
    first[len(offsets) - 1] = count
    return count


@compiled
def spelling(text, start, end, values, expansions, out):
    """Write the letters of one word, text[start:end], to `out` from its beginning; return how many there are."""
    count, at, joined = 0, start, False
    while at < end:
        point, at = character(text, at, end)
        if point == LESS:
            at = skip_tag(text, at, end)
            continue
        value = folded(point, values)
        if value == IGNORED or value == JOINER:
            joined = joined or value == JOINER
            continue
        if joined:
            out[count] = UNDERSCORE
            count, joined = count + 1, False
        base, parts = np.int64(0), np.int64(1)
        if value & EXPANDED:
            base = np.int64(value & POINT)
            parts = np.int64(expansions[base])
        for k in range(parts):
            out[count] = (expansions[base + 1 + k] if value & EXPANDED else value) & POINT
            count += 1
    return count


@compiled
def spells(text, start, end, values, expansions, letters):
    """Whether the word text[start:end] has exactly these letters."""
    count, at, joined = 0, start, False
    while at < end:
        point, at = character(text, at, end)
        if point == LESS:
            at = skip_tag(text, at, end)
            continue
        value = folded(point, values)
        if value == IGNORED or value == JOINER:
            joined = joined or value == JOINER
            continue
        if joined:
            if count == len(letters) or letters[count] != UNDERSCORE:
                return False
            count, joined = count + 1, False
        base, parts = np.int64(0), np.int64(1)
        if value & EXPANDED:
            base = np.int64(value & POINT)
            parts = np.int64(expansions[base])
        for k in range(parts):
            part = expansions[base + 1 + k] if value & EXPANDED else value
            if count == len(letters) or letters[count] != part & POINT:
                return False
            count += 1
    return count == len(letters)


@compiled
def _all_spellings(text, starts, ends, values, expansions, out, first):
    count = 0
    for word in range(len(starts)):
        first[word] = count
        count += spelling(text, starts[word], ends[word], values, expansions, out[count:])
    first[len(starts)] = count
    return count


def spellings(text: Bytes, words: Words) -> tuple[Points, Longs]:
    """Letters of all words, one after another (uint32), and where each word's begin (int64[w + 1])."""
    table = fold_table()
    out = np.empty(int((words.ends - words.starts).sum()) * LONGEST_EXPANSION + 1, np.uint32)
    first = np.empty(len(words) + 1, np.int64)
    count = _all_spellings(frozen(text), words.starts, words.ends, table.values, table.expansions, out, first)
    return out[:count].copy(), first
