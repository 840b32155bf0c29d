"""An item beside the text of one window: what was changed, whether the numbers differ, whether the answer stands near.

N-gram bits say how much is shared; only the text says whether a copy was edited, and how.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from checks.contamination.text.words import UNDERSCORE, Hashes, Words, spellings, words_of

MARGIN = 5
"""Words looked at on both sides of the shared part."""
ANSWER_BYTES = 1_500
"""How far behind the question an answer is near: three times the mean length of GSM8K's solutions."""
LONG_ANSWER = 8
"""Words from which an answer is a text of its own, found by n-grams."""
_UNITS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
          "seventeen eighteen nineteen twenty").split()
SPOKEN = {word: str(value) for value, word in enumerate(_UNITS)} | {
    word: str(10 * value) for value, word in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), 3)
} | {word: word for word in ("hundred thousand million billion dozen half third thirds quarter quarters once twice "
                             "thrice double triple").split()}
"""English number words and their digits; from a hundred up they mostly are parts of numbers and stand as they are."""
_NUMBER = re.compile(rf"(?<!\w)(\d+(?:[.,]\d+)*|(?:{'|'.join(SPOKEN)})(?!\w))", re.IGNORECASE)
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
# Rougher than `words.unescape`: it only keeps the letter of an escape from touching a number.
_ESCAPE = re.compile(r"\\+(?:[nrt]|u[0-9a-fA-F]{4})|&#?\w{1,7};")
_PUNCTUATION = re.compile(r"[^\w\s]")


@lru_cache(maxsize=1 << 16)
def is_number(word: str) -> bool:
    """Whether a word is a number: it begins with a digit, or is one of `SPOKEN`."""
    return word[:1].isdigit() or word.casefold() in SPOKEN


def numbers_of(text: str) -> list[str]:
    """All numbers of a text in order: 3.5 is one, as 80,000 is, and neither int_0 nor x2 is any."""
    plain = unicodedata.normalize("NFKC", _ESCAPE.sub(" ", text))
    found = (_THOUSANDS.sub("", match.casefold()) for match in _NUMBER.findall(plain))
    return [SPOKEN.get(number, number) for number in found]


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
    start: int
    """Byte of the window's text at which the copy begins."""
    end: int

    @property
    def exact(self) -> bool:
        """The same words in the same order."""
        return self.changed == 0


def compare(field: str, window: str) -> Comparison | None:
    """Set a field of an item against the part of a window that shares most with it; None where nothing is shared."""
    ours, theirs = words_of(field), words_of(window)
    region = _densest(ours.hashes, theirs.hashes)
    if region is None:
        return None
    low, high = region
    raw = window.encode("utf-8", errors="replace")
    a, b = _spelled(field, ours), _spelled(window, theirs)[low:high]
    matcher = SequenceMatcher(None, ours.hashes.tolist(), theirs.hashes[low:high].tolist(), autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return None
    changed = 0
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            continue
        if a0 < a1 and _recut(a[a0:a1], b[b0:b1], at_start=a0 == 0, at_end=a1 == len(a)):
            continue
        # What stands around a copy is no edit of it.
        if a0 == 0:
            b0 = max(b0, b1 - (a1 - a0))
        if a1 == len(a):
            b1 = min(b1, b0 + (a1 - a0))
        changed += max(a1 - a0, b1 - b0)
    first, last = low + blocks[0].b, low + blocks[-1].b + blocks[-1].size - 1
    # As far as the copy would reach if its first and last words were changed, not left out.
    begin = max(first - blocks[0].a, 0)
    end = min(last + len(a) - (blocks[-1].a + blocks[-1].size), len(theirs) - 1)
    copy = raw[int(theirs.starts[begin]) : int(theirs.ends[end])].decode("utf-8", errors="replace")
    bare = not _PUNCTUATION.search(raw[int(theirs.starts[first]) : int(theirs.ends[last])].decode(errors="replace"))
    numbers = _replaced(field, copy, changed, bare)
    return Comparison(len(a), changed, numbers, int(theirs.starts[first]), int(theirs.ends[last]))


def _replaced(field: str, copy: str, changed: int, bare: bool) -> tuple[str, str] | None:
    """Numbers of a field that its copy replaced by others; the order counts where no more than numbers changed.

    Whoever deletes all punctuation (`bare`) makes 35 of 3.5, or 3 5, and replaces nothing.
    """
    ours, theirs = numbers_of(field), numbers_of(copy)
    variants = [ours, *(numbers_of(_PUNCTUATION.sub(mark, field)) for mark in ("", " ") if bare)]
    if any(_in_order(variant, theirs) for variant in variants):
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
    letters = "".join(ours).casefold()
    if at_start:
        return any("".join(theirs[k:]).casefold() == letters for k in range(len(theirs)))
    if at_end:
        return any("".join(theirs[:k]).casefold() == letters for k in range(1, len(theirs) + 1))
    return "".join(theirs).casefold() == letters


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


def _spelled(text: str, words: Words) -> list[str]:
    raw = text.encode("utf-8", errors="replace")
    return [raw[a:b].decode("utf-8", errors="replace") for a, b in zip(words.starts, words.ends, strict=True)]


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
