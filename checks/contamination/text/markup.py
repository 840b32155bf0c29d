"""Tags, comments and link targets: what is written around words and is none itself.

Inline markup joins what stands on both sides, as a browser shows it (H<sub>2</sub>O is one word); markup of blocks
separates. A tag is one only where it can be nothing else: `a < b`, `List<int>` and `Map<String, Object>` stay as they
are.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from checks.contamination.text.escapes import (
    AMPERSAND,
    BACKSLASH,
    LINE_BREAK,
    decode,
    name_table,
    place_of,
    unescape,
)
from checks.contamination.text.escapes import BASIS as _BASIS
from checks.contamination.text.escapes import PRIME as _PRIME
from checks.contamination.text.jit import compiled

LESS, GREATER, BRACKET, PARENTHESIS = (ord(c) for c in "<>](")
INLINE_TAG = 0x2060
"""What an inline tag stands for: a word joiner, which no word is cut at."""
CLOSES_WITHIN = 1 << 12
"""Bytes behind a tag without attributes in which it has to be closed."""
LONGEST_TAG = 1 << 14
PROSE = 8
"""Spaces in the value of an attribute from which it is text that somebody reads, as in alt="...": such a tag is no
markup to be passed over, or what it says would not be searched."""

# The elements of https://html.spec.whatwg.org/multipage/indices.html#elements-3, obsolete ones and MathML with them.
INLINE = tuple((
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd mark math mfrac mi mn mo mover mrow ms "
    "msqrt "
    "mstyle msub msubsup msup mtext munder nobr q rb ruby samp semantics small span strike strong sub sup time tt u "
    "var "
    "wbr"
).split())  # fmt: skip
BLOCK = tuple((
    "address annotation area article aside audio base blockquote body br button canvas caption center col colgroup dd "
    "details dialog dir div dl dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head "
    "header hgroup hr html iframe img input label legend li link main map menu meta meter mtable mtd mtr nav noscript "
    "object ol optgroup option output p param picture pre progress rp rt s script search section select source style "
    "summary svg table tbody td template textarea tfoot th thead title tr track ul video"
).split())  # fmt: skip
"""`s` is here for the end-of-text mark of language models."""
ALONE = tuple("br dd dt hr img input li p td th tr wbr".split())
"""Need neither attributes nor an end."""
INLINE_NAMES, BLOCK_NAMES, ALONE_NAMES = name_table(INLINE), name_table(BLOCK), name_table(ALONE)
PLAIN_VALUES = name_table(("class", "style", "srcset", "sizes", "d", "points", "rel"))
"""Attributes whose values are lists, however long."""
COMMENT = len(INLINE) + len(BLOCK)
"""Place of comments in `fresh_memory`."""


def fresh_memory() -> NDArray[np.int64]:
    """Where the next end of each element stands, as far as known: int64[elements, 2] of (searched up to, end)."""
    return np.full((COMMENT + 1, 2), -1, np.int64)


@compiled
def character(text, at, end):
    """Code point at a byte, an escape counting as what it stands for, and the byte after it."""
    if text[at] == BACKSLASH or text[at] == AMPERSAND:
        return unescape(text, at, end)
    return decode(text, at, end)


@compiled
def markup_at(text, at, after, end, memory):
    """What the "<" or "]" between two bytes stands for, and the byte after it: INLINE_TAG, a separator, or itself."""
    if text[at] == BRACKET:
        return _link_target(text, at, end)
    less = np.int64(LESS)
    if after >= end:
        return less, after
    b = text[after]
    if b == 33 or b == 63:  # ! ?
        return _declaration(text, after, end, memory)
    start, closing = _name_start(text, after, end)
    stop, name, shouted = _name(text, start, end)
    if stop == start or shouted == 2:
        return less, after
    place, inline = place_of(INLINE_NAMES, name), True
    if place < 0:
        place, inline = place_of(BLOCK_NAMES, name), False
        if place < 0:
            return less, after
        place += len(INLINE_NAMES)
    last, attributes, prose = _tag_end(text, stop, end)
    if last < 0 or prose:
        return less, after
    sure = closing or attributes == 1 or place_of(ALONE_NAMES, name) >= 0
    if attributes == 2 and (closing or stop - start == 1):
        return less, after
    if not sure and not _closed(text, last, end, name, memory[place]):
        return less, after
    return np.int64(INLINE_TAG if inline else LINE_BREAK), last


@compiled
def skip_tag(text, after, end):
    """The byte behind a tag or comment inside a word, whose "<" ends before a byte."""
    if text[after] == 33:  # !
        at = after + 3
        while at < end and _comment_end(text, at, end) < 0:
            at += 1
        return max(_comment_end(text, at, end), at)
    start, _ = _name_start(text, after, end)
    stop, _, _ = _name(text, start, end)
    last, _, _ = _tag_end(text, stop, end)
    return last if last >= 0 else after


@compiled
def _name_start(text, at, end):
    """Where the name of a tag begins, and whether it is an end tag; a slash may be escaped."""
    slash = at
    while slash < end and text[slash] == BACKSLASH:
        slash += 1
    if slash < end and text[slash] == 47:
        return slash + 1, True
    return at, False


@compiled
def _name(text, at, end):
    """Byte behind the name at a byte, its hash in small letters, and its case: 0 small, 1 capital, 2 both."""
    h, stop, small, capital = _BASIS, at, False, False
    while stop < end and stop - at < 16:
        b = text[stop]
        if 97 <= b <= 122:
            small = True
        elif 65 <= b <= 90:
            capital, b = True, b + np.uint8(32)
        elif not (48 <= b <= 57 and stop > at):
            break
        h = (h ^ np.uint64(b)) * _PRIME
        stop += 1
    return stop, h, 2 if small and capital else 1 if capital else 0


@compiled
def _tag_end(text, at, end):
    """Byte behind the ">" of a tag whose name ends at a byte, or -1; 1 with attributes, 2 with anything else between;
    whether one of them holds prose.
    """
    stop, quote, spaces, first = min(end, at + LONGEST_TAG), 0, 0, True
    attributes, prose, word, listed = 0, False, at, False
    if at < stop and not (text[at] <= 32 or text[at] == 47 or text[at] == GREATER or text[at] == AMPERSAND or
                          text[at] == BACKSLASH):
        return np.int64(-1), 0, False
    while at < stop:
        b = text[at]
        after, point = at + 1, np.int64(b)
        if b == BACKSLASH or b == AMPERSAND:
            point, after = unescape(text, at, stop)
            if point == BACKSLASH:
                at = after
                continue
        if quote:
            if point == quote:
                prose = prose or (spaces >= PROSE and not listed)
                quote = 0
            elif point == 32 or point == LINE_BREAK:
                spaces += 1
        elif point == GREATER:
            return np.int64(after), attributes, prose
        elif point == LESS:
            return np.int64(-1), 0, False
        elif (point == 34 or point == 39) and attributes == 1:
            quote, spaces = point, 0
        elif point == 61:  # =
            if attributes == 0 or first:
                attributes = 1 if first and word < at else 2
            first = False
            listed = place_of(PLAIN_VALUES, _lower_hash(text, word, at)) >= 0
        elif point <= 32:
            if first and attributes == 0 and word < at:
                attributes = 2
                first = False
            word = after
        elif attributes == 0 and point != 47 and not (97 <= (point | 32) <= 122 or point == 45 or point == 58):
            attributes = 2
        at = after
    return np.int64(-1), 0, False


@compiled
def _lower_hash(text, at, stop):
    h = _BASIS
    for k in range(at, stop):
        b = text[k]
        h = (h ^ np.uint64(b + np.uint8(32) if 65 <= b <= 90 else b)) * _PRIME
    return h


@compiled
def _closed(text, at, end, name, known):
    """Whether an end tag of this name follows within CLOSES_WITHIN bytes. What was searched once is not searched again:
    `known` is a row of `fresh_memory`.
    """
    limit = min(end, at + CLOSES_WITHIN)
    if known[1] >= at:
        return known[1] < limit
    here = max(at, known[0])
    while here < limit:
        b = text[here]
        if b == LESS or b == AMPERSAND or b == BACKSLASH:
            point, after = character(text, here, end)
            if point == LESS:
                start, closing = _name_start(text, after, end)
                if closing:
                    stop, found, _ = _name(text, start, end)
                    if found == name and stop > start:
                        known[0], known[1] = here, here
                        return True
            here = after
        else:
            here += 1
    known[0] = here
    return False


@compiled
def _comment_end(text, at, end):
    """Byte behind the end of a comment that begins at a byte, -1 where none does."""
    if at + 2 < end and text[at] == 45 and text[at + 1] == 45:
        point, after = character(text, at + 2, end)
        if point == GREATER:
            return np.int64(after)
    return np.int64(-1)


@compiled
def _declaration(text, after, end, memory):
    """A comment, which joins; a declaration or processing instruction, which separates; or "<" itself."""
    if after + 2 < end and text[after] == 33 and text[after + 1] == 45 and text[after + 2] == 45:
        known, at = memory[COMMENT], after + 3
        if known[1] < at:
            here = max(at, known[0])
            limit = min(end, at + LONGEST_TAG)
            while here < limit and _comment_end(text, here, end) < 0:
                here += 1
            known[0] = here
            if here < limit:
                known[1] = here
        if at <= known[1] < min(end, at + LONGEST_TAG):
            return np.int64(INLINE_TAG), _comment_end(text, known[1], end)
        return np.int64(LESS), after
    if after + 8 <= end and text[after] == 33 and text[after + 1] == 91 and text[after + 7] == 91:  # ![CDATA[
        return np.int64(LINE_BREAK), after + 8
    here = after + 1
    if here < end and 97 <= (text[here] | 32) <= 122:
        while here < min(end, after + 200) and text[here] != LESS:
            if text[here] == GREATER:
                return np.int64(LINE_BREAK), here + 1
            here += 1
    return np.int64(LESS), after


@compiled
def _link_target(text, at, end):
    """The address behind a link's text in Markdown separates, as nobody reads it; other brackets are themselves."""
    bracket = np.int64(BRACKET)
    here = at + 2
    if here >= end or text[at + 1] != PARENTHESIS:
        return bracket, at + 1
    b = text[here]
    http = here + 4 < end and (b | 32) == 104 and (text[here + 1] | 32) == 116 and (text[here + 2] | 32) == 116 and (
        (text[here + 3] | 32) == 112)
    if not (http or b == 47 or b == 35 or (b == 46 and here + 1 < end and (text[here + 1] == 47 or
                                                                           text[here + 1] == 46))):
        return bracket, at + 1
    depth, stop = 1, min(end, here + 2_048)
    while here < stop and text[here] > 32:
        if text[here] == PARENTHESIS:
            depth += 1
        elif text[here] == 41:
            depth -= 1
            if depth == 0:
                return np.int64(LINE_BREAK), here + 1
        here += 1
    return bracket, at + 1
