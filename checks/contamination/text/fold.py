"""What makes two characters the same letter, as a table that compiled kernels can read.

Letters and digits are folded by NFKD, case and accents; what is left of a character is a sequence of letters. All else
separates words. So punctuation, case, white space, accents, full-width forms, ligatures and typographic quotes never
decide whether two texts match. Underscores join: has_close_elements is one word, and _stressed_ is stressed.
Characters of scripts that put no space between words are words of their own.

Rules and data: Unicode Standard Annex 15 (https://unicode.org/reports/tr15/), the character database of this Python.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SEPARATOR, IGNORED, JOINER = 0, 1, 2
"""Entries that are no letters. A joiner counts, as one underscore, where letters of one word stand on both sides."""
SOLO = 1 << 24
"""A word of its own: Han, kana, and the scripts of South-East Asia."""
MARK = 1 << 25
"""A combining sign that belongs to the letter before it, whatever that is: Indic and Thai vowels, kana voicing."""
EXPANDED = 1 << 26
"""The low bits say where in `expansions` the character's letters are: their number, then each of them."""
POINT = (1 << 21) - 1
"""The bits that hold the code point."""

LIMIT = 0x32400
"""Code points from here on are unassigned, private, or tags without a shape of their own."""
TAGS = 0xE0000

_SOLO_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3021, 0x30FF),  # Hiragana, Katakana
    (0x3105, 0x312F),  # Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48F),  # Yi
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
    (0x20000, LIMIT - 1),
)
_HANGUL = range(0xAC00, 0xD7A4)
_KEPT_MARKS = {0, 7, 8, 9}
"""Canonical combining classes of marks that change the letter (vowel signs, nukta, kana voicing, virama); all other
marks are accents (https://www.unicode.org/reports/tr44/#Canonical_Combining_Class_Values)."""


class FoldTable(NamedTuple):
    """The table and the letters of characters that fold to more than one."""

    values: NDArray[np.uint32]
    """uint32[LIMIT]: SEPARATOR, IGNORED, JOINER, or a code point with flags; with EXPANDED a place in `expansions`."""
    expansions: NDArray[np.uint32]


def letters(character: str) -> tuple[int, ...]:
    """What one character folds to: (SEPARATOR,), (IGNORED,), or its letters, code points with SOLO and MARK flags."""
    category = unicodedata.category(character)
    if category == "Cf":
        return (IGNORED,)
    if category[0] == "M":
        return (_mark(character),)
    if category[0] not in "LN":
        return (JOINER if character == "_" else SEPARATOR,)
    parts = [part for part in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())]
    if any(unicodedata.category(part)[0] not in "LMN" for part in parts):
        return (_letter(character),)  # one half and its like: the slash inside would make two words of one character
    folded = [_mark(part) if unicodedata.category(part)[0] == "M" else _letter(part) for part in parts]
    folded = [letter for letter in folded if letter != IGNORED]
    if sum(bool(letter & SOLO) for letter in folded) > 1:
        return (SOLO | ord(character),)
    return tuple(folded) or (IGNORED,)


def _letter(part: str) -> int:
    digit = unicodedata.decimal(part, None)
    point = ord(part) if digit is None else ord("0") + digit
    return point | (SOLO if any(low <= point <= high for low, high in _SOLO_RANGES) else 0)


def _mark(part: str) -> int:
    keep = unicodedata.combining(part) in _KEPT_MARKS and unicodedata.category(part) != "Me" and not (
        0xFE00 <= ord(part) <= 0xFE0F or part == "\u034f")  # variation selectors have no shape of their own
    return MARK | ord(part) if keep else IGNORED


@cache
def fold_table() -> FoldTable:
    """The table for all of Unicode; built in a tenth of a second and kept."""
    values = np.arange(LIMIT, dtype=np.uint32) | np.uint32(SOLO)
    expansions: list[int] = []
    plain = [*range(0x3400), *range(0xA000, 0xAC00), *range(0xD7A4, 0x20000), *range(0x2F800, 0x2FA20)]
    for point in plain:
        values[point] = _stored(letters(chr(point)), expansions)
    for point in _HANGUL:
        # Spelt out, so that composed and decomposed Korean match (Unicode Standard 3.12, arithmetic decomposition).
        lead, rest = divmod(point - 0xAC00, 588)
        vowel, tail = divmod(rest, 28)
        jamo = (0x1100 + lead, 0x1161 + vowel, 0x11A7 + tail)
        values[point] = _stored(jamo if tail else jamo[:2], expansions)
    table = FoldTable(values, np.array(expansions, np.uint32))
    for array in table:
        array.flags.writeable = False
    return table


def _stored(folded: tuple[int, ...], expansions: list[int]) -> int:
    if len(folded) == 1:
        return folded[0]
    expansions += (len(folded), *folded)
    return EXPANDED | (len(expansions) - len(folded) - 1)
