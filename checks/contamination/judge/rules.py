"""The rules of an audit: from the evidence on one item to a level, a kind and a sentence for each of its pairs.

- contaminated: the item itself stands in one window: weighted containment above a cut that falls with length, all but
  one word in twenty in order, or all words of a short item; and no edit can turn it into another question (`turns.py`);
- suspect: such an edit, an edited copy, other numbers, only the passage or the solution, a template, a similar meaning;
- below: anything less, kept for the threshold sweep and for people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from checks.contamination.detect.programs import named_share, program_of
from checks.contamination.judge.edits import Comparison, answer_near, choices_found, compare, contains, letters_of
from checks.contamination.judge.evidence import CHANCE_WORDS, Evidence
from checks.contamination.judge.turns import Known
from checks.contamination.records import EvidenceKind, Item
from checks.contamination.text.code import tokens_of

Level = Literal["contaminated", "suspect", "below"]

_POINTS_AT_CHOICES = re.compile(r"\b(?:following|these|those|above|below)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """Every threshold of the verdicts. Shares are of weighted n-grams of what is asked, within one window."""

    cut_short: float = 1.0
    cut_long: float = 0.8
    """The containment that condemns, up to `words_short` words and from `words_long` on, linear in between. Precision
    .99 and recall 1.00 on MATH against AGIEval; the shape is decon's
    (https://github.com/allenai/decon/blob/main/doc/simple-details.md)."""
    words_short: int = 10
    words_long: int = 30
    plain: float = 0.5
    """Least share of all n-grams, common ones included, of a copy: rare words alone are no copy."""
    words_per_change: int = 20
    """One word changed in this many leaves a copy a copy, if the change turns nothing; it costs five 5-grams of
    sixteen."""
    informative: int = 2
    """Distinct informative n-grams that must be shared; 1 for items of up to 4 words
    (https://github.com/marin-community/marin/pull/7051)."""
    suspect: float = 0.5
    """Containment at n = 5 or n = 3: finds 92 to 100 % of five kinds of edited copies and 72 % of reversed ones, at no
    false alarm against 199 strangers each (https://github.com/qtli/GSM-Plus; largest containment of a stranger .21)."""
    suspect_sketch: float = 0.4
    """The same for candidates of MinHash, whose window holds the item's words in another order."""
    suspect_words: int = 8
    """Words that a suspect shares at least: the shortest run that the any-hit rules of the literature take for one."""
    signature: float = 0.5
    """Estimated Jaccard index that makes a stored signature, which cannot be confirmed on text, suspect."""
    passage: float = 0.8
    passage_words: int = 13
    """Containment and length from which a passage is known again: GPT-3's n (https://arxiv.org/abs/2005.14165)."""
    answer_words: int = 20
    """Words from which a solution alone is known again; shorter ones are written anew every day."""
    choices: float = 0.5
    """Share of the choices that must stand near a question that is a template, has four words or fewer, or has up to
    seven and points at its choices ("which of the following is true")."""
    answer: float = 0.5
    """Containment from which a long answer stands near."""
    answer_bytes: int = 100
    """How far behind a common short question its answer shows that the item itself stands there."""
    program: float = 0.8
    program_tokens: int = 40
    program_least: int = 24
    """Share of a program's runs of tokens, names aside, from which it is known again, from `program_tokens` tokens on;
    below, all of them. Below `program_least` there is one way to write it: two people who write a greatest common
    divisor write the same 17 tokens."""
    program_named: int = 12
    program_names: float = 0.8
    """Tokens from which a program is known by its names, and the share of its runs that have them."""
    program_rare: float = 0.5
    """Share of a program's runs that few documents and items hold: less is an idiom, or boilerplate."""
    p: float = 0.01
    """Empirical p below which a neighbour in meaning is suspect: one false alarm in a hundred items."""

    def cut(self, words: int) -> float:
        """Containment that condemns an item of so many words."""
        return float(np.interp(words, [self.words_short, self.words_long], [self.cut_short, self.cut_long]))

    def needed(self, words: int) -> int:
        """Informative n-grams that an item of so many words must share."""
        return self.informative if words > 4 else 1


@dataclass(frozen=True, slots=True)
class Row:
    """One pair, as far as the rules need it."""

    detector: str
    longest: int
    similarity: float
    p: float
    """NaN for all but the semantic detector."""
    text: str
    document: tuple[int, int] = (0, 0)
    """Slice and record."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the rules say of one pair."""

    level: Level
    kind: EvidenceKind
    rule: str
    score: float


def judge(evidence: Evidence, item: Item, rows: Sequence[Row], rules: Rules, known: Known) -> list[Judged]:
    """Judge every pair of one item; `known` are the words of the benchmarks."""
    programs = {row.document for row in rows if row.detector == "code" and (
        _program(evidence, item, row, rules).level == "suspect")} if evidence.item.asks == "code" else set()
    judged = [_judge_row(evidence, item, row, k, rules, known, row.document in programs) for k, row in enumerate(rows)]
    if any(each.level == "contaminated" and row.text for each, row in zip(judged, rows, strict=True)):
        return judged
    # Only the best documents keep their text. Where none of these is a copy, no other is, for edits show in text alone.
    return [Judged("suspect", "edited copy", f"{each.rule} No document whose text was kept is a copy.", each.score)
            if each.level == "contaminated" else each for each in judged]


def _judge_row(evidence: Evidence, item: Item, row: Row, k: int, rules: Rules, known: Known, same_program: bool
               ) -> Judged:
    weighed, pairs = evidence.item, evidence.pairs
    words = weighed.length
    if row.detector == "semantic":
        return _similar(row, rules)
    if row.detector == "code":
        return _program(evidence, item, row, rules)
    if not row.text and not pairs.score3[k] and row.detector == "minhash":
        return _signature(row, rules)
    # A whole copy of more than a phrase needs no rare words: its length alone rules out chance.
    enough = pairs.informative[k] >= rules.needed(words) or (pairs.whole[k] and words > CHANCE_WORDS)
    score = _score(evidence, k, enough)
    asked = "\n".join(item.fields[role] for role in weighed.stem)
    compared = compare(asked, row.text, known) if row.text and asked else None
    if compared is not None and same_program:
        compared = replace(compared, turned=None)  # other names change no answer where the program is the same
    found = (_short if words <= CHANCE_WORDS else _long)(evidence, item, row, k, score, enough, rules, compared)
    return found or _other_fields(evidence, k, score, rules) or Judged("below", _below(evidence, k, rules), "", score)


def _score(evidence: Evidence, k: int, enough: bool) -> float:
    """The containment that thresholds are held against: 0 where what is shared tells nothing."""
    pairs, weighed = evidence.pairs, evidence.item
    if not enough or (weighed.length <= CHANCE_WORDS and not pairs.whole[k]):
        return 0.0
    score = float(pairs.score[k])
    return score if pairs.asked[k] >= 0.5 else min(score, float(pairs.asked[k]))


def _short(evidence: Evidence, item: Item, row: Row, k: int, score: float, enough: bool, rules: Rules,
           compared: Comparison | None) -> Judged | None:
    """Items of three to seven words: whole or nothing."""
    weighed, pairs = evidence.item, evidence.pairs
    if not pairs.whole[k] or row.longest < weighed.length:
        return None
    asked = item.fields[weighed.asks]
    if row.text and not contains(row.text, asked):
        return None
    told = f"All {weighed.length} words of the {weighed.asks} stand in the window, in order"
    if compared is not None and (turned := compared.numbers or compared.turned):
        return Judged("suspect", "edited numbers" if compared.numbers else "edited copy", f"{told}, {_said(turned)}.",
                      score)
    if not enough:
        if compared is not None and _answered_at_once(item, row, compared, rules):
            why = "which many documents do, and its answer stands right behind"
            return Judged("contaminated", "question and answer", f"{told}, {why}.", 1.0)
        why = "but stand in many documents or items: they may be a common phrase"
        return Judged("suspect", "template", f"{told}, {why}.", score)
    kind = _kind(evidence, item, row, k, compared, rules)
    lonely = kind == "question only" and "choices" in item.fields and (
        weighed.length <= 4 or _POINTS_AT_CHOICES.search(asked) is not None
    )
    if lonely and choices_found(item.fields["choices"], row.text) < rules.choices:
        return Judged("suspect", kind, f"{told}, without any of its choices: too short to tell alone.", score)
    return Judged("contaminated", kind, f"{told}.", score)


def _answered_at_once(item: Item, row: Row, compared: Comparison, rules: Rules) -> bool:
    """Whether an answer that nobody gives by chance stands right behind: it has a word of four letters or more."""
    answer = item.fields.get("answer", "")
    telling = re.search(r"[^\W\d_]{4}", answer) and answer.strip().casefold() not in ("true", "false")
    return bool(telling) and answer_near(answer, None, row.text, compared.end, rules.answer_bytes)


def _said(turned: tuple[str, str]) -> str:
    """What an edit that can change the answer does."""
    lost, new = (" ".join(words.split()[:6]) for words in turned)
    if lost and new:
        edit = f'"{new}" in place of "{lost}"'
    else:
        edit = f'without "{lost}"' if lost else f'with "{new}" added'
    return f"but {edit}: an edit that can change the answer"


def _long(evidence: Evidence, item: Item, row: Row, k: int, score: float, enough: bool, rules: Rules,
          compared: Comparison | None) -> Judged | None:
    """Items of eight words and more: containment, then the text."""
    weighed, pairs = evidence.item, evidence.pairs
    words, cut = weighed.length, rules.cut(weighed.length)
    score3 = float(pairs.score3[k])
    floor = rules.suspect_sketch if row.detector == "minhash" else rules.suspect
    best = max(score if score >= rules.suspect else 0.0, score3 if score3 >= floor else 0.0)
    lettered = score < cut and _same_letters(evidence, item, row)
    weak = not lettered and (not best or best * words < rules.suspect_words)
    # One word changed in ten leaves few n-grams, but half of the words in one run.
    if not lettered and (not enough or (weak and 2 * row.longest < words - 1)):
        return None
    if "passage" in weighed.stem and pairs.asked[k] < rules.plain:
        return None
    if weak and (compared is None or compared.changed > 1):
        return None
    told = f"{score:.2f} of its weighted {weighed.n}-grams stand in one window"
    numbers = compared.numbers if compared else ("?", "?") if pairs.numbers_only[k] else None
    near = lettered or (compared is not None and compared.changed * rules.words_per_change <= words)
    copied = (score >= cut - 1e-6 and pairs.plain[k] >= rules.plain) or near
    if numbers and (copied or (compared is not None and compared.changed * 4 <= words) or pairs.numbers_only[k]):
        other = f"{numbers[1]} in place of {numbers[0]}" if compared else "the missing ones hold its numbers"
        return Judged("suspect", "edited numbers", f"{told}, with other numbers: {other}.", score)
    if not copied:
        kind: EvidenceKind = "template" if pairs.recurring[k] else "edited copy"
        why = "what is shared stands in many documents or items" if pairs.recurring[k] else f"{cut:.2f} would condemn"
        return Judged("suspect", kind, f"{told}, {score3:.2f} of its 3-grams; {why} at {words} words.", score)
    if not weighed.standalone and "passage" not in weighed.stem and "choices" in item.fields and (
        choices_found(item.fields["choices"], row.text) < rules.choices
    ):
        why = "but the question is a template and its choices are not near"
        return Judged("suspect", "template", f"{told}, {why}.", score)
    if compared is not None and compared.turned and not (lettered and compared.changed):
        return Judged("suspect", "edited copy", f"{told}, {_said(compared.turned)}.", score)
    kind = _kind(evidence, item, row, k, compared, rules)
    if score < cut - 1e-6:
        said = f" but {compared.changed}" if compared and compared.changed and not lettered else ""
        why = f"nothing that can change the answer ({rules.words_per_change} words allow one change)" if said else (
            "letter for letter: only what stands between them differs"
        )
        return Judged("contaminated", kind, f"All of its {words} words{said} stand in one window, in order, and {why}.",
                      score)
    return Judged("contaminated", kind, f"{told}; {cut:.2f} condemns at {words} words.", score)


def _same_letters(evidence: Evidence, item: Item, row: Row) -> bool:
    """Whether all letters of what is asked stand in the window, however they are cut into words."""
    stem = evidence.item.stem
    return bool(row.text and stem) and all(letters_of(item.fields[role]) in letters_of(row.text) for role in stem)


def _kind(evidence: Evidence, item: Item, row: Row, k: int, compared: Comparison | None, rules: Rules) -> EvidenceKind:
    """Whether the answer stands near what is asked."""
    words = evidence.item.words
    answers = [role for role in ("answer", "code") if role in words and role not in evidence.item.stem]
    for role in answers:
        if len(words[role]) >= 8 and evidence.pairs.roles[role][k] >= rules.answer:
            return "question and answer"
        if compared is not None and answer_near(item.fields[role], item.fields.get("choices"), row.text, compared.end):
            return "question and answer"
    return "question only"


def _other_fields(evidence: Evidence, k: int, score: float, rules: Rules) -> Judged | None:
    """The passage or the solution alone, or beside a part of what is asked."""
    roles, words, stem = evidence.pairs.roles, evidence.item.words, evidence.item.stem
    asks, asked = evidence.item.asks, float(evidence.pairs.asked[k])
    if asks != "passage" and "passage" in words and len(words["passage"]) >= rules.passage_words:
        if (share := float(roles["passage"][k])) >= rules.passage:
            told = f"{share:.2f} of the passage's weighted n-grams stand in one window"
            if asked >= rules.plain:
                return Judged("suspect", "edited copy", f"{told}, and {asked:.2f} of the {asks}'s.", score)
            return Judged("suspect", "passage only", f"{told}, the {asks} does not: a common source is no leak.", score)
    if asked >= rules.plain:
        return None
    for role in ("answer", "code"):
        if role in words and role not in stem and len(words[role]) >= rules.answer_words:
            if (share := float(roles[role][k])) >= rules.passage:
                told = f"{share:.2f} of the weighted n-grams of the solution ({role}) stand in one window"
                return Judged("suspect", "answer only", f"{told}, the {asks} does not.", score)
    return None


def _below(evidence: Evidence, k: int, rules: Rules) -> EvidenceKind:
    pairs = evidence.pairs
    if pairs.plain[k] >= rules.suspect and pairs.recurring[k]:
        return "template"
    return ""


def _similar(row: Row, rules: Rules) -> Judged:
    if row.p <= rules.p:
        told = f"Cosine {row.similarity:.2f} to its nearest neighbour; of unrelated items {row.p:.1%} come as near."
        return Judged("suspect", "similar meaning", told, 0.0)
    return Judged("below", "similar meaning", "", 0.0)


def _program(evidence: Evidence, item: Item, row: Row, rules: Rules) -> Judged:
    """The same program under other names: never more than suspect, for two people may have written it."""
    program, share = evidence.program, row.similarity
    if program.tokens < rules.program_named or program.rare < rules.program_rare:
        return Judged("below", "", "", 0.0)
    named = named_share(tokens_of(program_of(item)), tokens_of(row.text)) >= rules.program_names
    cut = rules.program if program.tokens >= rules.program_tokens else 1.0
    if not named and (share < cut - 1e-6 or program.idiom or program.tokens < rules.program_least):
        return Judged("below", "template" if program.idiom else "", "", 0.0)
    kind: EvidenceKind = "edited copy" if evidence.item.asks == "code" else "answer only"
    names = "names included" if named else "names aside"
    told = f"{share:.2f} of the runs of its program's {program.tokens} tokens stand in one window, {names}"
    return Judged("suspect", kind, f"{told}: comments, documentation and layout are no part of a program.", 0.0)


def _signature(row: Row, rules: Rules) -> Judged:
    if row.similarity >= rules.signature:
        told = f"A stored signature has an estimated Jaccard index of {row.similarity:.2f}; no text confirms it."
        return Judged("suspect", "edited copy", told, 0.0)
    return Judged("below", "", "", 0.0)
