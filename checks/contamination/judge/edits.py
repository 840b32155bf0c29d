"""An item beside the text of one window: what was changed, whether the numbers differ, whether the answer stands near.

N-gram bits say how much is shared; only the text says whether a copy was edited, and how.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from checks.contamination.judge.turns import (
    LABELS,
    SHORT_INSERT,
    Known,
    ends_sentence,
    replaced_words,
    turned_signs,
)
from checks.contamination.records import SNIPPET
from checks.contamination.text.escapes import UNDERSCORE
from checks.contamination.text.numbers import as_read, numbers_of
from checks.contamination.text.words import Hashes, Words, spellings, words_of

MARGIN = 5
"""Words looked at on both sides of the shared part."""
ANSWER_BYTES = 1_500
"""How far behind the question an answer is near: three times the mean length of GSM8K's solutions."""
LONG_ANSWER = 8
"""Words from which an answer is a text of its own, found by n-grams."""
LONGEST_GAP = 4_096
"""Bytes between two words that are looked at."""
_SIGNED = re.compile(r"[-\u2212$\u20ac\u00a3\u00a5]\s*$")
_PUNCTUATION = re.compile(r"[^\w\s]")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field of an item beside its copy."""

    words: int
    """Of the field."""
    changed: int
    """Words replaced, dropped, or added between words of the field; where the same letters are only cut into words in
    other places, none."""
    numbers: tuple[str, str] | None
    """Numbers of the field that the copy has not, and those that it has in their place, or all where only their order
    is another; None without such. Numbers that are only left out or only added replace none."""
    turned: tuple[str, str] | None
    """What the copy says another way, and what it says in its place, either of which may be empty; None where no edit
    can change the answer (`turns.py`)."""
    start: int
    """Byte of the window's text at which the copy begins."""
    end: int

    @property
    def exact(self) -> bool:
        """The same words in the same order."""
        return self.changed == 0


def compare(field: str, window: str, known: Known = lambda word, times: False) -> Comparison | None:
    """Set a field of an item against the part of a window that shares most with it; None where nothing is shared.

    `known` says which words the benchmarks hold: a slip of the pen makes none of these.
    """
    ours, theirs = Side.of(field), Side.of(window)
    region = _densest(ours.words.hashes, theirs.words.hashes)
    if region is None:
        return None
    low, high = region
    opcodes = _aligned(ours.words.hashes, theirs.words.hashes, low, high)
    blocks = [opcode[1:] for opcode in opcodes if opcode[0] == "equal"]
    if not blocks:
        return None
    first, last, length = blocks[0][2], blocks[-1][3] - 1, len(ours.spelled)
    # As far as the copy would reach if its first and last words were changed, not left out.
    begin, end = max(first - blocks[0][0], 0), min(last + length - blocks[-1][1], len(theirs.spelled) - 1)
    bare = not _PUNCTUATION.search(theirs.text(first, last))
    changed, turned = 0, _signs_between(ours, theirs, opcodes, bare)
    for tag, a0, a1, b0, b1 in opcodes:
        if tag == "equal" or (a0 < a1 and _recut(ours.spelled[a0:a1], theirs.spelled[b0:b1], at_start=a0 == 0,
                                                 at_end=a1 == length)):
            continue
        # What stands around a copy is no edit of it.
        if a0 == 0:
            b0 = max(b0, b1 - (a1 - a0))
        if a1 == length:
            b1 = min(b1, b0 + (a1 - a0))
        changed += max(a1 - a0, b1 - b0)
        turned = turned or _turn(ours, theirs, (a0, a1, b0, b1), known, full=len(window.encode()) >= SNIPPET)
    numbers = _replaced(field, theirs.text(begin, end), changed, bare)
    return Comparison(length, changed, numbers, turned, int(theirs.words.starts[first]), int(theirs.words.ends[last]))


Opcode = tuple[str, int, int, int, int]
"""As of difflib: what to do, from and to in the field, from and to in the window, in words."""


def _aligned(ours: Hashes, theirs: Hashes, low: int, high: int) -> list[Opcode]:
    """How the field becomes what stands between two words of the window; at once where it stands there whole."""
    if (at := find(theirs[low:high], ours)) >= 0:
        return [("equal", 0, len(ours), low + at, low + at + len(ours))]
    matcher = SequenceMatcher(None, ours.tolist(), theirs[low:high].tolist(), autojunk=False)
    return [(tag, a0, a1, low + b0, low + b1) for tag, a0, a1, b0, b1 in matcher.get_opcodes()]


@dataclass(frozen=True, slots=True)
class Side:
    """A text as words."""

    raw: bytes
    words: Words
    spelled: list[str]
    """Folded, as they are matched."""

    @classmethod
    def of(cls, text: str) -> Side:
        raw, words = text.encode("utf-8", errors="replace"), words_of(text)
        points, first = spellings(np.frombuffer(raw, np.uint8), words)
        letters = points.tobytes().decode("utf-32-le", errors="replace")
        return cls(raw, words, [letters[a:b] for a, b in pairwise(first.tolist())])

    def text(self, first: int, last: int) -> str:
        """From one word to another, as it is written."""
        return self.raw[int(self.words.starts[first]) : int(self.words.ends[last])].decode("utf-8", errors="replace")

    def gap(self, word: int) -> str:
        """What stands before a word, or behind the last."""
        low = int(self.words.ends[word - 1]) if word else 0
        high = int(self.words.starts[word]) if word < len(self.spelled) else len(self.raw)
        return as_read(self.raw[low : min(high, low + LONGEST_GAP)].decode("utf-8", errors="replace"))


def _turn(ours: Side, theirs: Side, edit: tuple[int, int, int, int], known: Known, *, full: bool
          ) -> tuple[str, str] | None:
    """What one edit says another way, if that can change the answer. `full`: the window was cut to size."""
    a0, a1, b0, b1 = edit
    inner = 0 < a0 and a1 < len(ours.spelled)
    lost, new = replaced_words(_said(ours, a0, a1), _said(theirs, b0, b1), known)
    if not inner:
        lost = [word for word in lost if word not in LABELS]
        if not lost or (full and a1 == len(ours.spelled) and b1 == len(theirs.spelled)):
            return None
    elif not lost and new and len(new) > SHORT_INSERT:
        return None
    elif not lost and new and ends_sentence(theirs.gap(b0)) and ends_sentence(theirs.gap(b1)):
        return None
    return (" ".join(lost), " ".join(new)) if lost or new else None


def _said(side: Side, low: int, high: int) -> list[str]:
    """Words without commands of LaTeX."""
    return [side.spelled[k] for k in range(low, high) if not side.gap(k).endswith("\\")]


def _signs_between(ours: Side, theirs: Side, opcodes: Sequence[Opcode], bare: bool
                   ) -> tuple[str, str] | None:
    for tag, a0, a1, b0, _ in opcodes:
        if tag == "equal":
            mine, other = ([side.gap(k) for k in range(at, at + a1 - a0)] for side, at in ((ours, a0), (theirs, b0)))
            if a0 == 0 and not _SIGNED.search(mine[0]):
                other[0] = mine[0] = ""  # what stands before the copy is not of it
            if found := turned_signs(ours.spelled[a0:a1], mine, other, bare):
                return found
    return None


def _replaced(field: str, copy: str, changed: int, bare: bool) -> tuple[str, str] | None:
    """Numbers of a field that its copy replaced by others; the order counts where no more than numbers changed.

    Whoever deletes all punctuation (`bare`) makes 35 of 3.5, or 3 5, and replaces nothing.
    """
    ours, theirs = numbers_of(field), numbers_of(copy)
    variants = [ours, *(numbers_of(_PUNCTUATION.sub(mark, field)) for mark in ("", " ") if bare)]
    loose = numbers_of(field, loose=True), numbers_of(copy, loose=True)
    if any(_in_order(variant, theirs) for variant in variants) or _in_order(*loose):
        return None
    lost, new = list((Counter(ours) - Counter(theirs)).elements()), list((Counter(theirs) - Counter(ours)).elements())
    if lost and new:
        return " ".join(lost), " ".join(new)
    return None if lost or changed > 2 * len(ours) else (" ".join(ours), " ".join(theirs))


def _in_order(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether all of these stand among the others, in order."""
    rest = iter(theirs)
    return all(number in rest for number in ours)


def _recut(ours: Sequence[str], theirs: Sequence[str], *, at_start: bool, at_end: bool) -> bool:
    """Whether these are the same letters, cut into words in other places: Janet's and Janets, 80,000 and 80000.

    At the start of the field their last words count, at its end their first: the others stand around the copy.
    """
    letters = _letters(ours)
    if at_start:
        return any(_letters(theirs[k:]) == letters for k in range(len(theirs)))
    if at_end:
        return any(_letters(theirs[:k]) == letters for k in range(1, len(theirs) + 1))
    return _letters(theirs) == letters


def _letters(words: Sequence[str]) -> str:
    return "".join(words).replace("_", "")


def _densest(ours: Hashes, theirs: Hashes) -> tuple[int, int] | None:
    """Words of the window, from and to, among which most of the field's 3-grams stand (words, for shorter fields)."""
    n = min(3, len(ours))
    if n == 0 or len(theirs) < n:
        return None
    hits = np.flatnonzero(np.isin(runs(theirs, n), runs(ours, n)))
    if not len(hits):
        return None
    width = len(ours) + max(10, len(ours) // 2)
    inside = np.searchsorted(hits, hits + width) - np.arange(len(hits))
    best = int(np.argmax(inside))
    last = int(hits[best + inside[best] - 1]) + n
    return max(int(hits[best]) - MARGIN, 0), min(last + MARGIN, len(theirs))


def runs(hashes: Hashes, n: int) -> NDArray[np.uint64]:
    """One key per run of n words: uint64[w - n + 1]."""
    keys = np.zeros(max(len(hashes) - n + 1, 0), np.uint64)
    for k in range(n):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + hashes[k : k + len(keys)]
    return keys


@lru_cache(maxsize=256)
def letters_of(text: str) -> str:
    """Letters and digits alone, folded as in words."""
    raw = np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8)
    points, _ = spellings(raw, words_of(text))
    return str(points[points != UNDERSCORE].tobytes(), "utf-32")


def contains(window: str, text: str) -> bool:
    """Whether all words of a text stand in a window, one after another."""
    return find(words_of(window).hashes, words_of(text).hashes) >= 0


def find(hashes: Hashes, wanted: Hashes) -> int:
    """First word at which a run of words stands, -1 where it does not. An empty run stands nowhere."""
    if not len(wanted) or len(wanted) > len(hashes):
        return -1
    at = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(hashes, len(wanted)) == wanted).all(axis=1))
    return int(at[0]) if len(at) else -1


def answer_near(answer: str, choices: str | None, window: str, end: int, reach: int = ANSWER_BYTES) -> bool:
    """Whether an answer stands within `reach` bytes behind byte `end` of a window, word for word.

    Of a solution that ends in "#### 18" (GSM8K), the last number has to be there; of other solutions, the whole. A
    letter that names a choice has to follow the word "answer".
    """
    raw = window.encode("utf-8", errors="replace")[end : end + reach]
    behind = raw.decode("utf-8", errors="ignore")
    final = answer.rsplit("####", 1)[-1].strip()
    if choices is not None and re.fullmatch(r"\(?[A-Ja-j]\)?", final):
        letter = final.strip("()")
        return re.search(rf"\banswer\b\W*(is\W+|:\W*)?\(?{letter}\b", behind, re.IGNORECASE) is not None
    alike = {"true": "yes", "false": "no"}.get(final.casefold())
    return contains(behind, final) or (alike is not None and contains(behind, alike))


def choices_found(choices: str, window: str) -> float:
    """Share of the choices (one a line) that stand in a window word for word; 0 where there are none."""
    hashes = words_of(window).hashes
    lines = [words for line in choices.splitlines() if len(words := words_of(line).hashes)]
    return sum(find(hashes, line) >= 0 for line in lines) / len(lines) if lines else 0.0
