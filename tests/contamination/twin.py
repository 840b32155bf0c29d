"""The exact detector in plain Python: words by a regular expression, grams as tuples, every window tried.

Slow and obvious; what the compiled one is measured by. Knows alphabets with spaces and Han, kana and Hangul.
"""

from __future__ import annotations

import io
import math
import re
import tokenize
import unicodedata
from collections import Counter
from collections.abc import Sequence
from html.entities import html5
from itertools import pairwise

from checks.contamination.records import NS, Item
from checks.contamination.text.escapes import COMMANDS, STYLED, WRAPPERS

SOLO = r"[\u3005-\u3007\u3021-\u3098\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff]\u3099?\u309a?"
WORD = re.compile(rf"{SOLO}|(?:(?!{SOLO})[^\W_])+(?:_+(?:(?!{SOLO})[^\W_])+)*")
WRAPPED = "|".join(sorted(WRAPPERS, key=len, reverse=True))
ESCAPE = re.compile(
    rf"\\+(?:(_)|u([0-9a-fA-F]{{4}})|(?:(?:{WRAPPED})(?![a-zA-Z])|(?=(?:{'|'.join(STYLED)})(?![a-zA-Z]))[a-z]"
    rf"|(?!(?:{'|'.join(COMMANDS)})(?![a-zA-Z]))[nrt]))"
    r"|&(?:amp;)*(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z0-9]{2,8}));"
)
ACCENT = re.compile("[\u0300-\u036f\u00ad\u200b\u200d\u2060\ufeff]")

Gram = tuple[str, ...]


def unescaped(text: str) -> str:
    """Escapes of JSON and HTML as what they stand for."""
    def character(point: int) -> str:
        return chr(point) if point <= 0x10FFFF and not 0xD800 <= point < 0xE000 else " "

    def one(m: re.Match[str]) -> str:
        underscore, unicode, decimal, hexadecimal, named = m.groups()
        if named:
            found = html5.get(f"{named};", "")
            return found if len(found) == 1 else m.group() if not found else " "
        if decimal or hexadecimal or unicode:
            return character(int(decimal) if decimal else int(unicode or hexadecimal, 16))
        return underscore or "\n"

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


def code_tokens(source: str) -> list[str]:
    """Tokens of a Python program by Python's own tokenizer: no comments, imports, docstrings, commas or (.)."""
    found: list[str] = []
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            alone = len(line) == 1 and line[0].type == tokenize.STRING
            if line and not alone and line[0].string not in ("import", "from", "using", "package", "include"):
                for each in line:
                    if each.type == tokenize.STRING:
                        found.append(repr(re.sub(r"^\w*('''|\"\"\"|'|\")(.*)\1$", r"\2", each.string, flags=re.DOTALL)))
                    elif each.type == tokenize.OP:
                        found += [character for character in each.string if character not in ",;()"]
                    else:
                        found.append(each.string)
            line = []
        elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT):
            line.append(token)
    return found
