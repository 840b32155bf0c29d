"""Characters of UTF-8 bytes, with escapes of JSON, HTML and LaTeX counting as what they stand for.

Text is copied inside notebooks, pages, dumps and dumps of dumps: an escape may be escaped again.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

from collections.abc import Iterable
from html.entities import html5

import numpy as np
from numpy.typing import NDArray

from checks.contamination.text.jit import compiled

Hashes = NDArray[np.uint64]

# FNV-1a over letters (http://www.isthe.com/chongo/tech/comp/fnv/).
BASIS, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)

BACKSLASH, AMPERSAND, SEMICOLON, HASH, UNDERSCORE = (ord(c) for c in "\\&;#_")
LINE_BREAK = ord("\n")
LONGEST_ENTITY = 8
"""Characters between & and ;."""
ESCAPED = {name[:-1]: ord(text) for name, text in html5.items()
           if name[-1] == ";" and len(name) <= LONGEST_ENTITY + 1 and len(text) == 1}
"""Named characters (https://html.spec.whatwg.org/multipage/named-characters.html), of up to LONGEST_ENTITY letters."""
COMMANDS = tuple((
    "ne neq neg nabla nu not notin ni nmid rho right rangle rfloor rceil rm rbrace rvert times theta text textbf "
    "textit textrm tan tanh tau to top tfrac tilde triangle"
).split())  # fmt: skip
"""Of LaTeX, with the letter of an escape behind the backslash, which is none there."""
WRAPPERS = tuple((
    "text textbf textit texttt textrm textsf textsc textup textnormal emph mbox hbox mathrm mathbf mathit mathsf "
    "mathtt mathbb mathcal boldsymbol bm underline operatorname left right big bigl bigr bigg biggl biggr displaystyle "
    "textstyle scriptstyle limits nolimits quad qquad"
).split())  # fmt: skip
"""Commands of LaTeX that say how something looks, not what it is."""
STYLED = ("dfrac", "tfrac", "cfrac", "dbinom", "tbinom")
"""Commands whose first letter says how they look."""
LONGEST_COMMAND = 16


def hashed(name: str) -> int:
    """FNV-1a of an ASCII name, as `name_hash` computes it."""
    value = int(BASIS)
    for letter in name.encode():
        value = ((value ^ letter) * int(PRIME)) & 0xFFFFFFFFFFFFFFFF
    return value


def name_table(names: Iterable[str]) -> Hashes:
    """Sorted hashes of names, for `place_of`."""
    return np.array(sorted(map(hashed, names)), np.uint64)


ENTITY_NAMES = name_table(ESCAPED)
ENTITY_POINTS = np.array([point for _, point in sorted((hashed(name), point) for name, point in ESCAPED.items())],
                         np.int64)
COMMAND_NAMES, WRAPPER_NAMES, STYLED_NAMES = name_table(COMMANDS), name_table(WRAPPERS), name_table(STYLED)


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
def name_hash(text, at, stop):
    """FNV-1a of the bytes text[at:stop]."""
    h = BASIS
    for k in range(at, stop):
        h = (h ^ np.uint64(text[k])) * PRIME
    return h


@compiled
def place_of(table, key):
    """Where a key stands in a sorted table, -1 where it does not."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) // 2
        if table[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(table) and table[low] == key else -1


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
def unescape(text, at, end):
    """Code point for an escape that begins at a byte, and the byte after it; the byte itself where it begins none.

    A run of backslashes counts as one, and an escaped ampersand as one: text may be written as JSON inside JSON.
    Commands of LaTeX that only wrap text stand for a separator.
    """
    if text[at] == BACKSLASH:
        return _backslash(text, at, end)
    return _entity(text, at, end)


@compiled
def _backslash(text, at, end):
    b, after = np.int64(BACKSLASH), at + 1
    while after < end and text[after] == BACKSLASH:
        after += 1
    kind = np.int64(text[after]) if after < end else np.int64(0)
    if kind == UNDERSCORE:
        return kind, after + 1
    if kind == 117 and after + 5 <= end:  # u
        point = _digits(text, after + 1, after + 5, 16)
        if point >= 0:
            return point, after + 5
    stop = after
    while stop < end and stop - after <= LONGEST_COMMAND and 97 <= (text[stop] | 32) <= 122:  # a to z
        stop += 1
    if stop == after:
        return b, after
    name = name_hash(text, after, stop)
    if place_of(WRAPPER_NAMES, name) >= 0:
        return np.int64(LINE_BREAK), stop
    if place_of(STYLED_NAMES, name) >= 0:
        return np.int64(LINE_BREAK), after + 1
    if (kind == 110 or kind == 114 or kind == 116) and place_of(COMMAND_NAMES, name) < 0:  # n, r, t
        return np.int64(LINE_BREAK), after + 1
    return b, after


@compiled
def _entity(text, at, end):
    b, after = np.int64(AMPERSAND), at + 1
    while after + 4 <= end and text[after] == 97 and text[after + 1] == 109 and text[after + 2] == 112 and (
            text[after + 3] == SEMICOLON):  # amp;
        after += 4
    stop = after
    while stop < end and stop - after < LONGEST_ENTITY + 1 and text[stop] != SEMICOLON:
        stop += 1
    if stop >= end or text[stop] != SEMICOLON or stop - after < 2:
        return b, after
    if text[after] == HASH:
        hexadecimal = np.int64(text[after + 1]) | 32 == 120  # x
        point = _digits(text, after + 2, stop, 16) if hexadecimal else _digits(text, after + 1, stop, 10)
        if point < 0:
            return b, after
        return (point if point <= 0x10FFFF else np.int64(-1)), stop + 1
    place = place_of(ENTITY_NAMES, name_hash(text, after, stop))
    if place >= 0:
        return ENTITY_POINTS[place], stop + 1
    return b, after
