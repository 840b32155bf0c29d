"""What a pair has in common, held against Python sets; edits, answers and spans read off the text."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.detect.index import NgramIndex
from checks.contamination.judge.edits import answer_near, choices_found, compare
from checks.contamination.judge.evidence import gather
from checks.contamination.judge.spans import item_text, shared_spans
from checks.contamination.records import Item
from tests.contamination.auditing import twin_scan

WORDS = st.lists(st.sampled_from("ant bee cat dog elk fox gnu hen 12 seven".split()), max_size=30).map(" ".join)


def five_grams(text: str) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[k : k + 5]) for k in range(len(words) - 4)]


def oracle_weights(texts: list[str], documents: list[str], own: list[list[bool]]) -> list[list[float]]:
    """Weight of each 5-gram of each text, by the definition."""
    def with_slots(gram: tuple[str, ...]) -> list[tuple[str, ...]]:
        return [(*gram[:k], "*", *gram[k + 1 :]) for k in range(5)]

    def held(key: tuple[str, ...]) -> int:
        return sum(any(key in with_slots(gram) for gram in five_grams(text)) for text in texts)

    weights = []
    for position, text in enumerate(texts):
        mine = []
        for gram in five_grams(text):
            others = sum(gram in five_grams(d) and not own[position][r] for r, d in enumerate(documents))
            idf = math.log((len(texts) + 1) / max(held(key) for key in with_slots(gram)))
            mine.append(0.0 if others > max(5, 0.005 * len(documents)) else idf)
        weights.append(mine)
    return weights


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=4), documents=st.lists(WORDS, min_size=1, max_size=8))
def test_containment_is_what_sets_of_words_say(texts: list[str], documents: list[str]) -> None:
    items = [Item("b", str(k), {"question": text}) for k, text in enumerate(texts)]
    index, merged = twin_scan(items, documents)
    shares = [[[gram in five_grams(d) for gram in five_grams(t)] for d in documents] for t in texts]
    own = [[len(t.split()) > 7 and bool(row) and sum(row) / len(row) >= 0.5 for row in rows]
           for t, rows in zip(texts, shares, strict=True)]
    weights = oracle_weights(texts, documents, own)
    for evidence in gather(items, index, merged.pairs, merged.counts, len(documents)):
        position = evidence.item.position
        if evidence.item.n != 5:
            continue
        for record in range(len(documents)):
            total = sum(weights[position])
            mine = sum(w for w, hit in zip(weights[position], shares[position][record], strict=True) if hit)
            assert evidence.pairs.score[record] == pytest.approx(mine / total if total else 0.0)
            assert evidence.pairs.plain[record] == pytest.approx(np.mean(shares[position][record]))


def test_copies_of_an_item_do_not_make_it_common_but_other_documents_do() -> None:
    leaked = "how many wheels do nine red bicycles and four blue tricycles have taken all together on sunday"
    template = "in the following list of words choose the one that does not belong with all of the others"
    quote = f"{template} ant bee zeppelin"
    items = [Item("b", "leaked", {"question": leaked}), Item("b", "quote", {"question": quote})]
    documents = [leaked] * 100 + [f"{template[:50]} {k} words" for k in range(100)] + ["nothing of the kind here"] * 200
    index, merged = twin_scan(items, documents)
    first, second = gather(items, index, merged.pairs, merged.counts, len(documents))
    assert first.pairs.score[:100].min() == pytest.approx(1.0)
    assert second.pairs.plain[150] > 0.2
    assert second.pairs.score[150] == 0.0


def test_one_item_alone_has_weights() -> None:
    items = [Item("b", "0", {"question": "one item of nine words is all there is"})]
    index, merged = twin_scan(items, ["x one item of nine words is all there is y"])
    (evidence,) = gather(items, index, merged.pairs, merged.counts, 1)
    assert evidence.pairs.score[0] == pytest.approx(1.0)


@pytest.mark.parametrize(("copy", "changed", "numbers"), [
    ("A house costs $80,000, and repairs cost 2.50 a day!", 0, None),
    ("> a HOUSE costs\n> $80,000 and repairs cost 2.50 a day", 0, None),
    ("A house costs 80000 and repairs cost 2.50 a day", 0, None),
    ("Ahouse costs 80000 and repairs cost 250 a day", 0, None),
    ("A house costs 8000 and repairs cost 2.50 a day", 2, ("80000", "8000")),
    ("A flat costs $80,000 and repairs cost 2.50 a day", 1, None),
    ("A house costs $90,000 and repairs cost 2.50 a day", 1, ("80000", "90000")),
    ("Before 7: a house costs $80,000 and repairs, they say, cost 2.50 a day and 9 more", 2, None),
])
def test_edits_are_counted_inside_the_copy_only(copy: str, changed: int, numbers: tuple[str, str] | None) -> None:
    found = compare("A house costs $80,000 and repairs cost 2.50 a day", f"Lorem ipsum 44. {copy} Dolor sit 12 amet.")
    assert found is not None
    assert (found.changed, found.numbers) == (changed, numbers)


@pytest.mark.parametrize(("field", "copy"), [
    ("Janet's ducks lay eggs and she doesn't sell them", "Janets ducks lay eggs and she doesnt sell them"),
    ("Well-known letters in the post were re-sent", "Wellknown letters in the post were resent"),
    ("It was resent by the office as email", "It was re-sent by the office as e-mail"),
])
def test_the_same_letters_cut_into_other_words_are_no_edit(field: str, copy: str) -> None:
    found = compare(field, f"Lorem ipsum. {copy}. Dolor sit amet.")
    assert found is not None and found.exact
    other = compare(field, f"Lorem ipsum. {copy.replace('e', 'a')}. Dolor sit amet. {field[:20]}")
    assert other is not None and not other.exact


@pytest.mark.parametrize(("field", "copy", "numbers"), [
    ("needs 3.5 minutes to climb the hill", "needs 35 minutes, to climb the hill", ("3.5", "35")),
    ("needs 3.5 minutes, to climb the hill", "needs 35 minutes to climb the hill", None),
    ("needs 2.5 minutes to climb the hill", "needs 5.2 minutes, to climb the hill", ("2.5", "5.2")),
    ("has 5 red and 3 blue pens in all", "has 3 red and 5 blue pens in all", ("5 3", "3 5")),
    ("climbs twice as many hills as the bus", "climbs half as many hills as the bus", ("twice", "half")),
    ("a hundred pupils ride it every day", "a thousand pupils ride it every day", ("hundred", "thousand")),
    ("it carries 47 pupils to the new school", "it carries some pupils to the new school", None),
    ("it carries 47 pupils to the new school", "1 it carries 47\n2 pupils to the\n3 new school", None),
    ("the list int_0 holds 7 of them in all", "the list int_1 holds 7 of them in all", None),
    ("Twelve apples fall on the grass", "12 apples fall on the grass", None),
    ("What is left of the total of 90", "What is left of the total of 95", ("90", "95")),
])
def test_numbers_that_are_replaced_are_told(field: str, copy: str, numbers: tuple[str, str] | None) -> None:
    found = compare(field, f"Lorem ipsum. {copy} Dolor sit amet.")
    assert found is not None and found.numbers == numbers


def test_spelled_numbers_are_numbers() -> None:
    found = compare("she eats three eggs for breakfast every day", "she eats four eggs for breakfast every day")
    assert found is not None and found.numbers == ("3", "4")


@pytest.mark.parametrize(("answer", "choices", "window", "near"), [
    ("16 - 3 = 13\n#### 18", None, "So she makes 18 dollars", True),
    ("16 - 3 = 13\n#### 18", None, "So she makes 180 dollars, not 1.8", False),
    ("B", "ant\nbee", "A. ant B. bee", False),
    ("B", "ant\nbee", "A. ant B. bee\nAnswer: B", True),
    ("B", "ant\nbee", "A. ant B. bee. The answer is (B).", True),
    ("True", None, "Answer: yes", True),
    ("\\frac{1}{2}", None, "the answer $\\frac{1}{2}$", True),
    ("", None, "anything", False),
])
def test_answers_stand_near_word_for_word(answer: str, choices: str | None, window: str, near: bool) -> None:
    question = "What is it? "
    assert answer_near(answer, choices, question + window, len(question)) is near
    assert not answer_near(answer, choices, question + "x" * 2000 + window, len(question))


def test_choices_are_counted_whatever_letters_stand_between() -> None:
    assert choices_found("red ant\nblue bee\ncat", "(A) red ant (B) blue cat (C) cat") == pytest.approx(2 / 3)


@given(st.text(alphabet="abcé 中 1.,\n\u2019", max_size=60), st.text(alphabet="abcé 中 1.,\n\u2019", max_size=60))
def test_spans_hold_shared_words_and_do_not_overlap(question: str, window: str) -> None:
    item = Item("b", "0", {"question": question, "answer": "été 中 1"})
    fields = NgramIndex.build([item]).field_words(0)
    theirs, ours = shared_spans(item, fields, window)
    for text, spans in ((window, theirs), (item_text(item), ours)):
        assert all(0 <= a < b <= len(text) for a, b in spans)
        assert all(left[1] <= right[0] for left, right in pairwise(spans))
        assert all(text[a].isalnum() and text[a:b].strip() for a, b in spans)


def test_spans_point_at_characters() -> None:
    item = Item("b", "0", {"question": "Café “one two three” four", "answer": "42"})
    window = "été été — cafe ONE, two; THREE and 42"
    theirs, ours = shared_spans(item, NgramIndex.build([item]).field_words(0), window)
    assert [window[a:b] for a, b in theirs] == ["cafe ONE, two; THREE", "42"]
    assert [re.sub(r"\W+", " ", item_text(item)[a:b]) for a, b in ours] == ["Café one two three", "42"]
