"""Edits of a text, from none to a paraphrase: what happens to benchmark items on their way into training data.

Each is a function of the text and a random generator, deterministic for a seed. They are rules, no language model: the
paraphrase exchanges words and turns sentences around, which keeps more of the wording than a person would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

Edit = Callable[[str, np.random.Generator], str]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[^\W\d_]{4,}")
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w])")
_CLAUSE = re.compile(r",\s+|\s+(?=(?:and|but|if|when|because|while|so|then)\b)")

SYNONYMS: Mapping[str, str] = dict(
    pair.split(":") for pair in """
    buys:purchases bought:purchased buy:purchase sells:vends sold:vended makes:produces made:produced make:produce
    gets:receives got:received get:receive gives:hands gave:handed give:hand takes:requires took:required
    take:require needs:requires need:require uses:employs used:employed use:employ wants:wishes want:wish
    eats:consumes ate:consumed eat:consume walks:strolls runs:jogs goes:travels went:travelled starts:begins
    started:began start:begin finds:discovers found:discovered find:determine pays:spends paid:spent costs:runs
    cost:price total:overall many:numerous much:considerable large:big big:large small:little little:small
    house:home car:vehicle children:kids kids:children friends:pals friend:pal money:cash day:date week:week's
    month:month's year:annum daily:everyday weekly:each-week every:each each:every remaining:leftover
    rest:remainder left:remaining after:following before:prior-to together:jointly altogether:in-total
    more:additional less:fewer fewer:less also:likewise then:afterwards if:supposing when:once because:since
    while:whereas about:roughly only:merely half:one-half twice:two-times double:twofold first:initial last:final
    number:count amount:quantity average:mean price:cost cheap:inexpensive new:fresh old:aged fast:quick
    quickly:rapidly begin:commence end:finish ends:finishes store:shop shop:store school:academy work:labour
    works:labours job:task worker:employee people:persons person:individual man:gentleman woman:lady boy:lad
    girl:lass road:street city:town water:liquid food:nourishment book:volume books:volumes apples:fruits
    box:container boxes:containers bag:sack bags:sacks piece:portion pieces:portions group:set groups:sets
    what:which how:in-what-way should:ought-to must:has-to return:yield returns:yields given:provided list:sequence
    string:text function:routine write:compose check:verify determine:establish compute:calculate calculate:compute
    evaluate:assess simplify:reduce solve:resolve positive:above-zero sum:total product:multiple equal:identical
    """.split()
)
"""Common words of questions and one that may stand for each; hyphens become spaces."""

_ASIDES = (
    "It happened on a rainy afternoon, shortly before the long holidays began.",
    "A neighbour who was passing by thought that the whole matter was rather funny.",
    "The newspaper had printed a short story about something similar {n} weeks earlier.",
    "Nobody in the room remembered who had opened the window {n} minutes ago.",
)


def verbatim(text: str, rng: np.random.Generator) -> str:
    """The text itself."""
    return text


def rewrapped(text: str, rng: np.random.Generator) -> str:
    """Other line breaks, markdown and letter case: what web pages and formatters do."""
    words = text.split()
    width = int(rng.integers(5, 12))
    lines = [" ".join(words[i : i + width]) for i in range(0, len(words), width)]
    shown = "\n> ".join(lines)
    bold = f"> **{shown}**"
    return (bold.upper(), bold.lower(), bold)[int(rng.integers(3))].replace("'", "\u2019")


def one_word(text: str, rng: np.random.Generator) -> str:
    """One word of four letters or more replaced by another word; a number never."""
    found = list(_WORD.finditer(text))
    if not found:
        return text
    match = found[int(rng.integers(len(found)))]
    return f"{text[: match.start()]}{_other(match.group())}{text[match.end() :]}"


def other_numbers(text: str, rng: np.random.Generator) -> str:
    """Every whole number replaced by another of like size."""
    return _NUMBER.sub(lambda m: str(int(m.group()) + int(rng.integers(1, 10 ** len(m.group()[:15]) // 2 + 2))), text)


def distractor(text: str, rng: np.random.Generator) -> str:
    """A sentence that does not matter, put among the others."""
    sentences = _SENTENCE.split(text)
    aside = _ASIDES[int(rng.integers(len(_ASIDES)))].format(n=int(rng.integers(2, 30)))
    at = int(rng.integers(len(sentences)))
    return " ".join([*sentences[:at], aside, *sentences[at:]])


def reversed_clauses(text: str, rng: np.random.Generator) -> str:
    """The clauses of every sentence in reverse order, the sentences before the last one too."""
    *told, asked = _SENTENCE.split(text)
    turned = [_turned(sentence) for sentence in reversed(told)]
    return " ".join([*turned, _turned(asked)])


def paraphrased(text: str, rng: np.random.Generator) -> str:
    """A word-substituted paraphrase: synonyms by table, clauses turned around, other words left as they are."""
    words = re.sub(r"[^\W\d_]+", lambda m: _synonym(m.group()), text)
    return reversed_clauses(words, rng)


EDITS: Mapping[str, Edit] = {
    "verbatim": verbatim,
    "re-wrapped": rewrapped,
    "padded": verbatim,
    "one word changed": one_word,
    "numbers changed": other_numbers,
    "distractor added": distractor,
    "clauses reversed": reversed_clauses,
    "word-substituted paraphrase": paraphrased,
}
"""By the name that the report shows. What is padded differs only in what stands around it."""


def _turned(sentence: str) -> str:
    stop = sentence[-1] if sentence and sentence[-1] in ".!?" else ""
    clauses = [clause for clause in _CLAUSE.split(sentence.removesuffix(stop)) if clause.strip()]
    return ", ".join(reversed(clauses)) + stop


def _synonym(word: str) -> str:
    other = SYNONYMS.get(word.casefold(), word).replace("-", " ")
    return other.capitalize() if word[0].isupper() and other != word else other


def _other(word: str) -> str:
    return _synonym(word) if word.casefold() in SYNONYMS else "such"
