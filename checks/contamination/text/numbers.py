"""The numbers of a text, read off the same words that everything else is matched by.

A number is digits of any script, however they are grouped: 80,000 and 80 000 with a thin space, 80'000, 80_000 and
12,34,567 are one, and so is 3.50, which is 3.5. 1/2 and 10² are two numbers. Beside letters that know no capitals
digits are a number ("他花了80,000美元"), and so are they before a unit (80kg); behind other letters they are part of a
name (x2, int_0).
Numbers that are spelled out are told by a list for English (`SPOKEN`); Han numerals stay words.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from checks.contamination.text.words import Words, words_of

_UNITS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
          "seventeen eighteen nineteen twenty").split()
SPOKEN = {word: str(value) for value, word in enumerate(_UNITS)} | {
    word: str(10 * value) for value, word in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), 3)
} | {word: word for word in ("hundred thousand million billion dozen half third thirds quarter quarters once twice "
                             "thrice double triple").split()}
"""English number words and their digits; from a hundred up they mostly are parts of numbers and stand as they are."""
GROUPING = ",\uff0c\u066c'\u2019\u2009\u202f\u00a0\u2007_"
"""Marks between groups of digits: https://cldr.unicode.org/translation/number-currency-formats/number-symbols."""
DECIMAL = ".\uff0e\u066b\u00b7"
_LOOSE = re.compile(r"[,\uff0c]?[ \u00a0]")
_BARE_POINT = re.compile(r"[^\w.]\.$")
_TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^>]*>|\]\(\S*\)", re.DOTALL)
_JSON = re.compile(r"\\+u(00[0-9a-fA-F]{2})")
_SHAPELESS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff]"
)
"""Default ignorable characters (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point)."""


@dataclass(frozen=True, slots=True)
class Digits:
    """A run of digits."""

    value: str
    """In ASCII."""
    word: int
    """Number of the word it stands in."""
    opens: bool
    """The word begins with it."""
    closes: bool
    """The word ends with it."""
    joined: bool = False
    """An underscore joins it to the run before it."""


def raw_words(text: str, words: Words) -> list[str]:
    """The words of a text as they are written."""
    raw = text.encode("utf-8", errors="replace")
    return [as_read(raw[a:b].decode("utf-8", errors="replace"))
            for a, b in zip(words.starts, words.ends, strict=True)]


def gaps_of(text: str, words: Words) -> list[str]:
    """What stands before each word and behind the last, as it is written, tags left out: one more than words."""
    raw = text.encode("utf-8", errors="replace")
    edges = zip([0, *words.ends.tolist()], [*words.starts.tolist(), len(raw)], strict=True)
    return [as_read(raw[a:b].decode("utf-8", errors="replace")) for a, b in edges]


def as_read(text: str) -> str:
    """What is seen of a word, or of what stands between two: no tags, link targets, or characters without a shape."""
    if "&" in text or "\\u00" in text:
        text = _JSON.sub(lambda m: chr(int(m.group(1), 16)), html.unescape(html.unescape(text)))
    if "<" in text or "](" in text:
        text = _TAG.sub("", text)
    return text if text.isascii() else _SHAPELESS.sub("", text)


def numbers_of(text: str, loose: bool = False) -> list[str]:
    """All numbers of a text in order.

    Args:
        text: The text.
        loose: Whether a space may group digits, too, and a comma with a space behind it: as in "10 000", or where a
            list is written with and without spaces.
    """
    words = words_of(text)
    return numbers_in(raw_words(text, words), gaps_of(text, words), loose)


def numbers_in(spelled: Sequence[str], gaps: Sequence[str], loose: bool = False) -> list[str]:
    """The same of words and what stands before each (`gaps_of`)."""
    found: list[str] = []
    runs: list[Digits] = []
    for k, word in enumerate(spelled):
        spoken = SPOKEN.get(word.casefold()) if word.isascii() else None
        here = [] if spoken else digits_of(word, k)
        if runs and not (here and _continues(runs[-1], here[0], gaps, loose)):
            found += _joined(runs, gaps)
            runs = []
        if spoken:
            found.append(spoken)
        for place, run in enumerate(here):
            if place and not run.joined:
                found += _joined(runs, gaps)
                runs = []
            runs.append(run)
    return found + _joined(runs, gaps)


@lru_cache(maxsize=1 << 16)
def is_number(word: str) -> bool:
    """Whether a word is a number, or holds one: it begins with a digit, or is one of `SPOKEN`."""
    return word.casefold() in SPOKEN or bool(digits_of(word, 0))


def digits_of(word: str, number: int) -> list[Digits]:
    """The runs of digits of a word that are numbers."""
    if word.isalpha():
        return []
    runs: list[Digits] = []
    before, digits, start = "", "", 0
    named = bool(word) and _kind(word[0]) == "name"
    for at, character in enumerate([*word, ""]):
        kind = _kind(character) if character else ""
        value = str(unicodedata.decimal(character)) if kind == "digit" else ""
        if digits and not (value and kind == before):
            closes = not character
            runs += [Digits(digits, number, start == 0, closes, start > 0 and word[start - 1] == "_")]
            digits = ""
        if value:
            if not digits:
                start = at
            counts = not named or digits or before == "letter"
            digits = digits + value if counts else ""
        elif kind == "raised":
            runs += [Digits(part, number, False, False) for part in _raised(character) if not named]
        before = kind or before
        named = named or kind == "name" and not runs and not digits
    return runs


@lru_cache(maxsize=1 << 12)
def _kind(character: str) -> str:
    """digit; raised, for digits that are no decimal places, as of 10² and ½; letter without capitals; name; or none."""
    category = unicodedata.category(character)
    if category == "Nd":
        return "digit"
    if category == "No":
        return "raised"
    if category in ("Lu", "Ll", "Lt", "Lm", "Nl"):
        return "name"
    return "letter" if category[0] in "LM" else ""


def _raised(character: str) -> list[str]:
    return re.findall(r"[0-9]+", unicodedata.normalize("NFKD", character))


def _continues(before: Digits, after: Digits, gaps: Sequence[str], loose: bool) -> bool:
    """Whether two runs in neighbouring words may be parts of one number."""
    if not (before.closes and after.opens and after.word == before.word + 1):
        return False
    gap = _gap(gaps[after.word])
    return (len(gap) == 1 and gap in GROUPING + DECIMAL) or (loose and _LOOSE.fullmatch(gap) is not None)


def _joined(runs: Sequence[Digits], gaps: Sequence[str]) -> list[str]:
    """The numbers of runs of digits, each of which may continue the one before."""
    found: list[str] = []
    at = 0
    while at < len(runs):
        stop = at + 1
        while stop < len(runs) and _mark(runs[stop], gaps) not in DECIMAL:
            stop += 1
        parts = [run.value for run in runs[at:stop]]
        numbers = ["".join(parts)] if grouped(parts) else parts
        while stop < len(runs) and _mark(runs[stop], gaps) in DECIMAL:
            numbers[-1] += f".{runs[stop].value}"
            stop += 1
        if at == 0 and _BARE_POINT.search(gaps[runs[0].word]) and runs[0].opens and "." not in numbers[0]:
            numbers[0] = f"0.{numbers[0]}"
        found += map(plain, numbers)
        at = stop
    return found


def _mark(run: Digits, gaps: Sequence[str]) -> str:
    return "_" if run.joined else _gap(gaps[run.word])


def _gap(text: str) -> str:
    """What stands between two runs, LaTeX and HTML as they are read."""
    return {"{,}": ",", "\\,": "\u2009"}.get(text, text)


def grouped(parts: Sequence[str]) -> bool:
    """Whether runs of digits are the groups of one number: by thousands, or as in India by hundreds above these."""
    if len(parts) == 1:
        return True
    first, *middle, last = map(len, parts)
    return last == 3 and ((first <= 3 and all(n == 3 for n in middle)) or (first <= 2 and all(n == 2 for n in middle)))


def plain(number: str) -> str:
    """Without zeros that say nothing: 2.50 is 2.5."""
    return number.rstrip("0").rstrip(".") if number.count(".") == 1 else number
