"""The exact detector in plain Python: words by a regular expression, grams as tuples, every window tried.

Slow and obvious; what the compiled one is measured by. Knows alphabets with spaces and Han, kana and Hangul.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from checks.contamination.records import NS, Item
from checks.contamination.text.words import COMMANDS

SOLO = r"[\u3005-\u3007\u3021-\u3098\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff]\u3099?\u309a?"
WORD = re.compile(rf"{SOLO}|(?:(?!{SOLO})[^\W_])+(?:_+(?:(?!{SOLO})[^\W_])+)*")
ESCAPE = re.compile(
    rf"\\+(?:(?!(?:{'|'.join(COMMANDS)})(?![a-zA-Z]))([nrt])|u([0-9a-fA-F]{{4}}))"
    r"|&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|(quot|amp|lt|gt|nbsp|apos|[lr]squo|[lr]dquo|[nm]dash|hellip));"
)
ACCENT = re.compile("[\u0300-\u036f\u00ad\u200d\ufeff]")

Gram = tuple[str, ...]


def unescaped(text: str) -> str:
    """Escapes of JSON and HTML as what they stand for."""
    def character(point: int) -> str:
        return chr(point) if point <= 0x10FFFF and not 0xD800 <= point < 0xE000 else " "

    def one(m: re.Match[str]) -> str:
        line, unicode, decimal, hexadecimal, named = m.groups()
        if line or named:
            return "\n"
        return character(int(decimal)) if decimal else character(int(unicode or hexadecimal, 16))

    return ESCAPE.sub(one, text)


def words(text: str) -> list[str]:
    """Folded words of a text."""
    text = unescaped(text)
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return [re.sub("_+", "_", word) for word in WORD.findall(ACCENT.sub("", folded))]


def grams(found: Sequence[str], n: int) -> list[Gram]:
    """All n-grams in order."""
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def item_grams(item: Item, n: int) -> list[Gram]:
    """The item's n-grams in the order of roles, then of the text; none crosses fields."""
    return [gram for text in item.fields.values() for gram in grams(words(text), n)]


def documents_with(items: Sequence[Item], documents: Sequence[str], n: int) -> Counter[Gram]:
    """In how many documents each gram of the items occurs."""
    known = {gram for item in items for gram in item_grams(item, n)}
    return Counter(gram for text in documents for gram in set(grams(words(text), n)) & known)


def weights(items: Sequence[Item]) -> dict[Gram, float]:
    """log(1 + items / items with the gram) of all 3-grams."""
    counts = Counter(gram for item in items for gram in set(item_grams(item, 3)))
    return {gram: math.log1p(len(items) / count) for gram, count in counts.items()}


def best_share(field: Sequence[str], document: Sequence[str], window: int, weight: dict[Gram, float]) -> float:
    """Largest share of the field's weight in any stretch of `window` words of the document."""
    own = set(grams(field, 3))
    found = [{gram for gram in grams(document[i : i + window], 3) if gram in own} for i in range(len(document))]
    return max((sum(weight[gram] for gram in here) for here in found), default=0.0) / sum(weight[gram] for gram in own)


def longest_run(field: Sequence[str], document: Sequence[str]) -> int:
    """Words of the longest run that both have, 0 below 3."""
    best, before = 0, [0] * (len(document) + 1)
    for word in field:
        row = [0, *(length + 1 if word == other else 0 for length, other in zip(before, document, strict=False))]
        best, before = max(best, *row), row
    return best if best >= min(NS) else 0


def contains(document: Sequence[str], field: Sequence[str]) -> bool:
    """Whether the whole field occurs, word by word."""
    return any(list(document[i : i + len(field)]) == list(field) for i in range(len(document) - len(field) + 1))


def ascending(values: Sequence[int]) -> bool:
    """Whether every value is at least the one before."""
    return all(a <= b for a, b in pairwise(values))
