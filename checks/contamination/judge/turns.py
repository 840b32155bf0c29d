"""Whether an edit can turn a question round. One that can is no copy: the answer that was learnt may be another's.

Harmless are: other white space, punctuation and markup; the same letters cut elsewhere; a slip of the pen; another
spelling; another function word of the same kind, or one more or less. Everything else can change the answer: a word
with a meaning of its own replaced, added or left out; a number; a sign between numbers.

    smaller / larger    odd / even    Anna / Bella    kg / lb    is / is not    red and blue / red or blue

A slip is one letter added, dropped, exchanged or swapped with its neighbour (Damerau 1964,
https://doi.org/10.1145/363958.363994: 80 % of all misspellings) that does not make another known word of it. Known are
the words of the benchmarks themselves.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from checks.contamination.text.numbers import SPOKEN, is_number
from checks.contamination.text.words import Hashes, words_of

Known = Callable[[str, int], bool]
"""Whether a word stands at least so often in the benchmarks."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words of the benchmarks, each with how often it stands there."""

    hashes: Hashes
    """uint64[words], ascending."""
    times: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: Hashes) -> Vocabulary:
        return cls(*np.unique(hashes, return_counts=True))

    def __call__(self, word: str, times: int) -> bool:
        wanted = words_of(word).hashes
        if len(wanted) != 1:
            return False
        at = int(np.searchsorted(self.hashes, wanted[0]))
        return at < len(self.hashes) and self.hashes[at] == wanted[0] and bool(self.times[at] >= times)


SAME: Mapping[str, str] = {word: group.split()[0] for group in (
    "a an the this that these those which who whom", "is are was were be been being s re m am",
    "has have had having ve",
    "do does did", "will shall ll", "would should d", "while whilst whereas", "although though", "because since as",
    "in on at upon within", "toward towards", "also too", "so thus hence therefore", "but however yet",
    "among amongst between", "until till", "per each every", "about around approximately roughly", "can could",
) for word in group.split()}
"""Function words of English that stand for each other."""
IDLE = frozenset((
    "a an the this that these those which who is are was were be been being s re m am has have had having ve do "
    "does did "
    "will shall ll would d of and then also so thus now well please very here there it "
    "的 了 吗 呢 啊 吧 地 得 是"
).split())  # fmt: skip
"""May be added or left out."""
NAMED_SIGNS = frozenset("percent percentage cent dollar dollars usd degree degrees times equals equal plus".split())
"""May be added or left out, as one writes 80% for 80 percent, and never replaced."""
LABELS = frozenset((
    "q a question answer problem exercise task prompt input output example solution context passage choices options "
    "instruction user assistant human gpt system def"
).split())  # fmt: skip
"""What is written before and behind items."""
UNITS: Mapping[str, str] = {word: group.split()[0] for group in (
    "kg kilogram kilograms kilo kilos", "g gram grams", "mg milligram milligrams", "lb lbs pound pounds",
    "oz ounce ounces", "km kilometer kilometers kilometre kilometres", "m meter meters metre metres",
    "cm centimeter centimeters centimetre centimetres", "mm millimeter millimeters millimetre millimetres",
    "ft foot feet", "in inch inches", "mi mile miles", "l liter liters litre litres", "h hr hrs hour hours",
    "min mins minute minutes", "s sec secs second seconds", "mph", "kmh kph",
) for word in group.split()}
"""Units and their names. "in" and "s" count only beside others of their group."""
OPPOSED = frozenset(frozenset(pair.split("/")) for pair in (
    "most/least more/less more/fewer before/after above/below over/under up/down left/right east/west north/south "
    "first/last odd/even odd/add even/ever all/any some/any and/or and/nor both/either same/some male/female man/men "
    "rise/ride lend/send lose/lost buys/buy won/own now/not now/know live/like form/from then/than there/where "
    "here/where when/then until/unless further/farther prime/prize sine/line minor/major inner/outer upper/lower"
).split())
"""Pairs that a slip could turn into each other, or that are told apart by nothing else, whatever the benchmarks hold.
Other opposites need no list: two known words are two words."""
NEGATING = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "de", "ex", "a", "anti", "sub", "super", "over", "under")
LEAST_SLIP = 4
"""Letters of a word below which a slip makes another word."""
SHORT_INSERT = 3
"""Added words up to which they belong to the sentence that they stand in; more are something in between: a note, an
advertisement, a page break. All words of the item stand around them."""
_BRITISH = ((r"our(?=s|ed|ing|ful|ite|able|$)", "or"), (r"is(e[sdr]?|ing|ation)$", r"iz\1"),
            (r"ys(e[sd]?|ing)$", r"yz\1"),
            (r"tre(s?)$", r"ter\1"), (r"ll(?=ed|ing|er)", "l"), (r"ogue$", "og"), (r"^grey", "gray"), ("ae|oe", "e"),
            (r"(?<=[a-z]{3})ce$", "se"), (r"wards$", "ward"))
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/",
                        "\u2264": "\u2264", "\u2265": "\u2265", "\u2260": "\u2260"})
_SIGN = re.compile(r"<=|>=|!=|==|\*\*|//|[-+*/=<>^\u2264\u2265\u2260$\u20ac\u00a3\u00a5\u20b9%]")
_SIGN_NAMES = {"<=": "\u2264", ">=": "\u2265", "!=": "\u2260", "==": "="}
_MINUS = re.compile(r"(?:^|[\s(\[{=,:<>$])[-\u2212\u2013]$")
_SENTENCE_END = re.compile(r"[.!?;:\n\u3002\uff1f\uff01]")


def replaced_words(ours: Sequence[str], theirs: Sequence[str], known: Known) -> tuple[list[str], list[str]]:
    """Words with a meaning of their own that two stretches of text do not share, in order: of the first, of the second.

    Numbers are left out: they are compared as numbers.
    """
    a, b = _meaning(ours), _meaning(theirs)
    lost: list[str] = []
    new: list[str] = []
    matcher = SequenceMatcher(None, [_form(word) for word in a], [_form(word) for word in b], autojunk=False)
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag == "equal":
            continue
        mine, other = a[a0:a1], b[b0:b1]
        if len(mine) == len(other):
            pairs = [(x, y) for x, y in zip(mine, other, strict=True) if not same_word(x, y, known)]
            mine, other = [x for x, _ in pairs], [y for _, y in pairs]
        lost += [word for word in mine if not _idle(word, other)]
        new += [word for word in other if not _idle(word, mine)]
    return lost, new


def _idle(word: str, others: Sequence[str]) -> bool:
    """Whether a word that stands on one side says nothing, beside those that stand on the other."""
    return (word in IDLE and not any(frozenset((word, other)) in OPPOSED for other in others)) or (
        word in NAMED_SIGNS and not others)


def same_word(a: str, b: str, known: Known) -> bool:
    """Whether one may stand for the other without a change of what is said."""
    if _form(a) == _form(b):
        return True
    if frozenset((a, b)) in OPPOSED or _negates(a, b) or _negates(b, a):
        return False
    return is_slip(a, b) and not (known(b, 1) and known(a, 2))


def is_slip(a: str, b: str) -> bool:
    """Whether two words are one added, dropped, exchanged, or swapped letter apart; digits never slip."""
    if min(len(a), len(b)) < LEAST_SLIP or abs(len(a) - len(b)) > 1 or not (a.isalpha() and b.isalpha()):
        return False
    start = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    x, y = a[start:], b[start:]
    if len(x) == len(y):
        return x[1:] == y[1:] or (x[1:2] + x[:1] == y[:2] and x[2:] == y[2:])
    return x[1:] == y or y[1:] == x


def _negates(a: str, b: str) -> bool:
    """Whether a is b with a prefix that turns it, or both have one stem behind two prefixes (include, exclude)."""
    return any(a == prefix + b or (a.startswith(prefix) and any(b == other + a[len(prefix):] for other in NEGATING))
               for prefix in NEGATING)


def _form(word: str) -> str:
    """One spelling of a word for all of its spellings."""
    if word in UNITS and word not in ("in", "s"):
        return UNITS[word]
    word = SAME.get(word, word)
    if len(word) > 4 and word.isascii():
        for pattern, to in _BRITISH:
            word = re.sub(pattern, to, word)
    return word


def _meaning(words: Sequence[str]) -> list[str]:
    """Words without numbers, contractions written out."""
    found: list[str] = []
    for word in words:
        if word == "t" and found and (stem := found[-1]).endswith("n"):
            found[-1:] = [{"ca": "can", "wo": "will", "sha": "shall"}.get(stem[:-1], stem[:-1]), "not"]
        elif word == "cannot":
            found += ["can", "not"]
        elif len(word) > 4 and word.endswith("nt") and word[:-2] in ("do", "does", "did", "is", "are", "was", "were",
                                                                     "has", "have", "had", "would", "could", "should"):
            found += [word[:-2], "not"]
        elif is_number(word):
            unit = word.lstrip("0123456789")
            found += [unit] if word not in SPOKEN and unit.isalpha() and unit != word else []
        else:
            found.append(word)
    return found


def turned_signs(words: Sequence[str], ours: Sequence[str], theirs: Sequence[str], bare: bool
                 ) -> tuple[str, str] | None:
    """A sign between words or before a number that stands another in the copy.

    Args:
        words: Words that both texts have, one after another.
        ours: What stands before each of them, in the item.
        theirs: The same, in the copy.
        bare: The copy has no punctuation at all, so a sign that is missing says nothing.
    """
    for k, word in enumerate(words):
        if not (_is_formula(word) or (k and _is_formula(words[k - 1]))):
            continue
        a, b = _signs(ours[k]), _signs(theirs[k])
        if len(a) == len(b) == 1 and a != b and "$" not in a + b:
            return a[0], b[0]
        currency = [[sign for sign in signs if sign in "$\u20ac\u00a3\u00a5\u20b9"] for signs in (a, b)]
        if all(len(signs) == 1 for signs in currency) and currency[0] != currency[1]:
            return currency[0][0], currency[1][0]
        minus = [bool(_MINUS.search(gap)) and word[:1].isdigit() for gap in (ours[k], theirs[k])]
        if minus[0] != minus[1] and not bare and "-" not in (b if minus[0] else a):
            return ("-" if minus[0] else "no sign", "-" if minus[1] else "no sign")
    return None


def _is_formula(word: str) -> bool:
    return len(word) == 1 or word[:1].isdigit()


def _signs(gap: str) -> list[str]:
    if not gap or gap.isspace():
        return []
    found = dict.fromkeys(_SIGN.findall(html.unescape(gap).translate(_SIGNS)))
    return [_SIGN_NAMES.get(sign, sign) for sign in found]


def ends_sentence(gap: str) -> bool:
    """Whether a sentence may end in what stands between two words."""
    return _SENTENCE_END.search(gap) is not None
