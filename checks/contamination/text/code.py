"""Source code as tokens, whatever its names, comments and layout: the normal form in which programs are compared.

One lexer for Python and languages of C's kind. Left out are comments, documentation strings, imports, commas,
semicolons, line breaks, indentation, and parentheses, which formatters add and drop. Keywords, common built-ins,
attributes, literals and operators stand for themselves; every other name stands for its places: a run of tokens knows
only how far back the same name stood (a parameterised string, Baker 1993, https://doi.org/10.1145/167088.167115), so
that consistent renaming changes nothing.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from checks.contamination.text.escapes import BASIS, PRIME, name_hash, name_table, place_of
from checks.contamination.text.jit import compiled
from checks.contamination.text.words import Bytes, Hashes, Longs, frozen, mix

N = 12
"""Tokens in a run: about two lines."""
CONCRETE = 5
"""Tokens of a run that are no names: fewer tell nothing."""
BLOCK = 64
DENSE = 6
"""Brackets, semicolons and equals signs in two blocks in a row from which a text holds code: one byte in twenty, where
prose has one in two hundred."""
STEP = np.uint64(0x9E3779B97F4A7C15)

KEYWORDS = name_table((
    # Python's (https://docs.python.org/3/reference/lexical_analysis.html#keywords), then those of C, Java, JavaScript,
    # Go and Rust that it has not.
    "False None True and as assert async await break class continue def del elif else except finally for from global "
    "if import in is lambda nonlocal not or pass raise return try while with yield match case "
    "auto bool boolean byte char const default do double enum export extends extern false final float fn func function "
    "goto impl implements instanceof int interface let long mut namespace new null nullptr package private "
    "protected pub "
    "public register short signed static string struct super switch template this throw throws true type typedef "
    "typeof "
    "union unsigned using var virtual void volatile "
    # Built-in functions and types that nobody renames.
    "abs all any bin chr dict divmod enumerate filter frozenset hash hex input isinstance iter len list map max min "
    "next "
    "object ord pow print property range repr reversed round set slice sorted str sum super tuple zip "
    "List Dict Tuple Set Optional Union Any ValueError TypeError KeyError IndexError Exception math re sys os "
    "String Math Array Map console std vector Integer"
).split())  # fmt: skip
IMPORTS = name_table(("import", "from", "using", "package", "include"))
NAME, OTHER = np.uint8(1), np.uint8(0)
HASH, QUOTE, APOSTROPHE, SLASH, STAR, NEWLINE, BACKSLASH = (ord(c) for c in "#\"'/*\n\\")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a batch of documents, in order."""

    kinds: NDArray[np.uint8]
    """NAME for names that may be renamed, else OTHER."""
    keys: Hashes
    """uint64: hash of each as it is written."""
    starts: Longs
    ends: Longs
    first: Longs
    """int64[n + 1]: tokens of document i are first[i] to first[i + 1]; none where the document holds no code."""

    def __len__(self) -> int:
        return len(self.keys)


def tokenise(text: Bytes, offsets: Longs, everywhere: bool = False) -> Tokens:
    """The tokens of those documents that hold code; of all of them, if `everywhere`.

    Args:
        text: uint8[bytes], UTF-8.
        offsets: int64[n + 1]; document i is text[offsets[i]:offsets[i + 1]].
    """
    text, offsets = frozen(text), frozen(offsets)
    dense = np.ones(len(offsets) - 1, np.bool_) if everywhere else holds_code(text, offsets)
    most = int(np.diff(offsets)[dense].sum()) + 1
    kinds, keys = np.empty(most, np.uint8), np.empty(most, np.uint64)
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    first = np.zeros(len(offsets), np.int64)
    count = _tokenise(text, offsets, frozen(dense), kinds, keys, starts, ends, first)
    return Tokens(kinds[:count], keys[:count], starts[:count], ends[:count], first)


def tokens_of(text: str) -> Tokens:
    """Tokens of one string, whatever it is."""
    raw = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
    return tokenise(raw, np.array([0, len(raw)], np.int64), everywhere=True)


def holds_code(text: Bytes, offsets: Longs) -> NDArray[np.bool_]:
    """Which documents have a block as dense in brackets and equals signs as code: bool[n]."""
    out = np.zeros(len(offsets) - 1, np.bool_)
    _dense(frozen(text), frozen(offsets), _BRACKETS, out)
    return out


_BRACKETS = np.zeros(256, np.uint8)
_BRACKETS[[ord(c) for c in "()[]{}=;"]] = 1
_BRACKETS.flags.writeable = False


def runs_of(tokens: Tokens) -> tuple[Hashes, NDArray[np.bool_]]:
    """Hash of the run of N tokens from each token on, names by their places, and which of these tell anything."""
    out, told = np.zeros(len(tokens), np.uint64), np.zeros(len(tokens), np.bool_)
    _runs(tokens.kinds, tokens.keys, tokens.first, out, told)
    return out, told


@compiled
def _dense(text, offsets, brackets, out):
    for doc in range(len(out)):
        at, stop, before = offsets[doc], offsets[doc + 1], 0
        while at < stop:
            end, count = min(at + BLOCK, stop), 0
            for k in range(at, end):
                count += brackets[text[k]]
            if before + count >= DENSE:
                out[doc] = True
                break
            at, before = end, count


@compiled
def _is_c_like(text, at, stop):
    """Whether more lines end in ; { or } than in a colon."""
    braces, colons = 0, 0
    for k in range(at + 1, stop):
        if text[k] == NEWLINE:
            b = text[k - 1]
            braces += b == 59 or b == 123 or b == 125
            colons += b == 58
    return braces > colons


@compiled
def _line_end(text, at, stop):
    while at < stop and text[at] != NEWLINE:
        at += 1
    return at


@compiled
def _string_end(text, at, stop):
    """Byte behind the literal whose quote is at a byte, and bytes of its quote; -1 where it does not end."""
    quote = text[at]
    if at + 2 < stop and text[at + 1] == quote and text[at + 2] == quote:
        here = at + 3
        while here + 2 < stop:
            if text[here] == BACKSLASH:
                here += 2
            elif text[here] == quote and text[here + 1] == quote and text[here + 2] == quote:
                return here + 3, 3
            else:
                here += 1
        return np.int64(-1), 3
    here = at + 1
    while here < stop and text[here] != NEWLINE:
        if text[here] == BACKSLASH:
            here += 2
        elif text[here] == quote:
            return here + 1, 1
        else:
            here += 1
    return np.int64(-1), 1


@compiled
def _is_name(b):
    return 97 <= (b | 32) <= 122 or b == 95 or b == 36 or b >= 128


@compiled
def _is_operand(b):
    return _is_name(b) or 48 <= b <= 57 or b == 41 or b == 93


@compiled
def _tokenise(text, offsets, dense, kinds, keys, starts, ends, first):
    count = 0
    for doc in range(len(offsets) - 1):
        first[doc] = count
        if not dense[doc]:
            continue
        at, stop, begin = offsets[doc], offsets[doc + 1], count
        c_like = _is_c_like(text, at, stop)
        depth, line, blank = 0, count, True  # `line`: tokens before this logical line
        while at < stop:
            b = text[at]
            if b == NEWLINE:
                if blank and at + 1 < stop and text[at + 1] > 32:
                    depth = 0
                blank = True
                line = count if depth == 0 else line
                at += 1
                continue
            if b == BACKSLASH and at + 1 < stop and text[at + 1] == NEWLINE:
                at += 2
                continue
            if b <= 32 or b == BACKSLASH or b == 96 or b == 44 or b == 59:
                at += 1
                continue
            blank = False
            if b == HASH:
                at = _line_end(text, at, stop)
                continue
            if b == SLASH and at + 1 < stop:
                if text[at + 1] == STAR:
                    here = at + 2
                    while here + 1 < stop and not (text[here] == STAR and text[here + 1] == SLASH):
                        here += 1
                    at = here + 2
                    continue
                if text[at + 1] == SLASH and c_like:
                    at = _line_end(text, at, stop)
                    continue
            if b == QUOTE or b == APOSTROPHE:
                end, width = _string_end(text, at, stop)
                if end < 0:
                    at += width
                    continue
                if count > line and kinds[count - 1] == NAME and ends[count - 1] == at and at - starts[count - 1] <= 2:
                    count -= 1  # a prefix, as of r"..."
                here = end
                while here < stop and (text[here] == 32 or text[here] == 9 or text[here] == 59):
                    here += 1
                alone = count == line and (here >= stop or text[here] == NEWLINE or text[here] == HASH)
                if not alone:
                    kinds[count], keys[count] = OTHER, mix(name_hash(text, at + width, end - width) ^ np.uint64(34))
                    starts[count], ends[count] = at, end
                    count += 1
                at = end
                continue
            here = at + 1
            before = keys[count - 1] if count > begin else np.uint64(0)
            dotted = count > begin and before == np.uint64(46)
            if 48 <= b <= 57 or (b == 46 and here < stop and 48 <= text[here] <= 57 and not (
                    count > begin and ends[count - 1] == at and _is_operand(text[at - 1]))):
                hexadecimal = b == 48 and here < stop and (text[here] | 32) == 120
                while here < stop and (_is_name(text[here]) or 48 <= text[here] <= 57 or text[here] == 46 or (
                        not hexadecimal and (text[here] == 43 or text[here] == 45) and (text[here - 1] | 32) == 101)):
                    here += 1
                kinds[count], keys[count] = OTHER, name_hash(text, at, here)
            elif _is_name(b):
                while here < stop and (_is_name(text[here]) or 48 <= text[here] <= 57):
                    here += 1
                key = name_hash(text, at, here)
                if count == line and place_of(IMPORTS, key) >= 0:
                    while here < stop and not (text[here] == NEWLINE and depth <= 0):
                        depth += (text[here] == 40) - (text[here] == 41)
                        here += 1
                    depth, at = 0, here
                    continue
                kinds[count] = OTHER if dotted or place_of(KEYWORDS, key) >= 0 else NAME
                keys[count] = key
            else:
                depth += (b == 40 or b == 91 or b == 123)
                depth = max(depth - (b == 41 or b == 93 or b == 125), 0)
                if b == 40 or b == 41:
                    at = here
                    continue
                kinds[count], keys[count] = OTHER, np.uint64(b)
            starts[count], ends[count] = at, here
            count += 1
            at = here
    first[len(offsets) - 1] = count
    return count


@compiled
def _runs(kinds, keys, first, out, told):
    size = 64
    table, last = np.zeros(size, np.uint64), np.full(size, np.int64(-1), np.int64)
    for doc in range(len(first) - 1):
        low, high = first[doc], first[doc + 1]
        if high - low < N:
            continue
        while size < 2 * (high - low):
            size *= 2
        if len(table) < size:
            table, last = np.zeros(size, np.uint64), np.full(size, np.int64(-1), np.int64)
        else:
            for k in range(size):
                last[k] = -1
        mask = np.uint64(size - 1)
        back = np.zeros(high - low, np.int64)  # tokens to the same name before; 0 for none
        for i in range(low, high):
            if kinds[i] == NAME:
                slot = mix(keys[i]) & mask
                while last[slot] >= 0 and table[slot] != keys[i]:
                    slot = (slot + np.uint64(1)) & mask
                if last[slot] >= 0:
                    back[i - low] = i - last[slot]
                table[slot], last[slot] = keys[i], i
        concrete = 0
        for i in range(low, high):
            concrete += kinds[i] != NAME
            if i - low >= N:
                concrete -= kinds[i - N] != NAME
            start = i - N + 1
            if start < low or concrete < CONCRETE:
                continue
            h = BASIS
            for k in range(N):
                token = start + k
                if kinds[token] == NAME:
                    distance = back[token - low]
                    h = (h ^ np.uint64(distance if distance <= k else 0)) * PRIME
                else:
                    h = (h + keys[token]) * STEP
            out[start], told[start] = mix(h), True
