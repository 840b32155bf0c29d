"""Words of UTF-8 text, as hashes and byte positions, at the speed of memory and without a Python object per word.

A word is a run of letters and digits of any script, folded as `fold.py` says; invalid bytes separate words, and escapes
of JSON and HTML count as what they stand for: code is copied inside notebooks, pages and dumps. Word hashes are 64 bits
wide: good for finding, never the last word (`spells` compares the letters themselves).
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Points = NDArray[np.uint32]

# FNV-1a over letters (http://www.isthe.com/chongo/tech/comp/fnv/), finished by the mixer of MurmurHash3
# (https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp).
BASIS, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
MIX_1, MIX_2, HALF = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)

UNDERSCORE = ord("_")
BACKSLASH, AMPERSAND, SEMICOLON, HASH = (ord(c) for c in "\\&;#")
LINE_BREAK = ord("\n")
ESCAPE = IGNORED
"""Entry for the two ASCII characters that begin an escape; no other ASCII character is ignored."""
LONGEST_ENTITY = 8
"""Characters between & and ;."""
ENTITIES = ("quot", "amp", "lt", "gt", "nbsp", "apos", "lsquo", "rsquo", "ldquo", "rdquo", "ndash", "mdash", "hellip")
"""The ones that cleaning leaves behind; each stands for a character that separates words."""
COMMANDS = tuple((
    "ne neq neg nabla nu not notin ni nmid rho right rangle rfloor rceil rm rbrace rvert times theta text textbf "
    "textit textrm tan tanh tau to top tfrac tilde triangle"
).split())  # fmt: skip
"""Of LaTeX, with the letter of an escape behind the backslash, which is none there."""


def _packed(names: tuple[str, ...]) -> Hashes:
    """Up to eight letters each, as numbers that kernels can compare."""
    return np.array([int.from_bytes(name.encode(), "big") for name in names], np.uint64)


PACKED_ENTITIES, PACKED_COMMANDS = _packed(ENTITIES), _packed(COMMANDS)
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
    count = _split(text, offsets, table.values, table.expansions, hashes, starts, ends, first)
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
def decode(text, at, end):
    """Code point at a byte, and the byte after it; -1 and the next byte where the UTF-8 is invalid."""
    b = text[at]
    if b < 0x80:
        return np.int64(b), at + 1
    if 0xC2 <= b <= 0xDF:
        size, point, least = 2, np.int64(b & 0x1F), 0x80
    elif 0xE0 <= b <= 0xEF:
        size, point, least = 3, np.int64(b & 0x0F), 0x800
    elif 0xF0 <= b <= 0xF4:
        size, point, least = 4, np.int64(b & 0x07), 0x10000
    else:
        return np.int64(-1), at + 1
    if at + size > end:
        return np.int64(-1), at + 1
    for k in range(1, size):
        c = text[at + k]
        if (c & 0xC0) != 0x80:
            return np.int64(-1), at + 1
        point = (point << 6) | np.int64(c & 0x3F)
    if point < least or point > 0x10FFFF:
        return np.int64(-1), at + 1
    return point, at + size


@compiled
def _digits(text, at, end, base):
    """Value of the digits text[at:end] in base 10 or 16; -1 where any is none, or there is none."""
    value = np.int64(-1 if at >= end else 0)
    for k in range(at, end):
        digit = np.int64(text[k]) - 48
        if digit > 9:
            digit = (digit | 32) - 39  # a to f follow 9
            digit = digit if digit >= 10 else np.int64(base)
        if not 0 <= digit < base:
            return np.int64(-1)
        value = value * base + digit
    return value


@compiled
def _is_one_of(text, at, stop, packed):
    """Whether text[at:stop], of up to eight bytes, is one of these names."""
    if stop - at > 8:
        return False
    name = np.uint64(0)
    for k in range(at, stop):
        name = (name << np.uint64(8)) | np.uint64(text[k])
    for k in range(len(packed)):
        if packed[k] == name:
            return True
    return False


@compiled
def unescape(text, at, end):
    """Code point for an escape that begins at a byte, and the byte after it; the byte itself where it begins none.

    A run of backslashes counts as one: text may be written as JSON inside JSON.
    """
    b = np.int64(text[at])
    if b == BACKSLASH:
        after = at + 1
        while after < end and text[after] == BACKSLASH:
            after += 1
        kind = np.int64(text[after]) if after < end else np.int64(0)
        if kind == 110 or kind == 114 or kind == 116:  # n, r, t
            stop = after
            while stop < end and stop - after <= 8 and 97 <= (text[stop] | 32) <= 122:  # a to z
                stop += 1
            if _is_one_of(text, after, stop, PACKED_COMMANDS):
                return b, after
            return np.int64(LINE_BREAK), after + 1
        if kind == 117 and after + 5 <= end:  # u
            point = _digits(text, after + 1, after + 5, 16)
            if point >= 0:
                return point, after + 5
        return b, after
    stop = at + 1
    while stop < end and stop - at <= LONGEST_ENTITY and text[stop] != SEMICOLON:
        stop += 1
    if stop >= end or text[stop] != SEMICOLON or stop - at < 3:
        return b, at + 1
    if text[at + 1] == HASH:
        hexadecimal = np.int64(text[at + 2]) | 32 == 120  # x
        point = _digits(text, at + 3, stop, 16) if hexadecimal else _digits(text, at + 2, stop, 10)
        if point < 0:
            return b, at + 1
        return (point if point <= 0x10FFFF else np.int64(-1)), stop + 1
    if _is_one_of(text, at + 1, stop, PACKED_ENTITIES):
        return np.int64(LINE_BREAK), stop + 1
    return b, at + 1


@compiled
def letter_at(text, at, end):
    """Code point at a byte, an escape counting as what it stands for, and the byte after it."""
    if text[at] == BACKSLASH or text[at] == AMPERSAND:
        return unescape(text, at, end)
    return decode(text, at, end)


@compiled
def folded(point, values):
    """Entry of the fold table for a code point of any size, or for the -1 of `decode`."""
    if 0 <= point < LIMIT:
        return values[point]
    return np.uint32(IGNORED if point >= TAGS else SEPARATOR)


@compiled
def _split(text, offsets, values, expansions, hashes, starts, ends, first):
    ascii_values = values[:128].astype(np.uint64)
    ascii_values[BACKSLASH] = ascii_values[AMPERSAND] = np.uint64(ESCAPE)
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
                if letter != ESCAPE:
                    continue
                at -= 1
            point, after = letter_at(text, at, stop)
            value = folded(point, values)
            base, parts = np.int64(0), np.int64(1)
            if value & EXPANDED:
                base = np.int64(value & POINT)
                parts = np.int64(expansions[base])
            for k in range(parts):
                part = expansions[base + 1 + k] if value & EXPANDED else value
                if part == IGNORED:
                    if inside:
                        end = after
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
        point, at = letter_at(text, at, end)
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
        point, at = letter_at(text, at, end)
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
