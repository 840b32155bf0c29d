"""Edits that can turn a question round, and edits that cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.contamination.judge.edits import compare
from checks.contamination.judge.turns import Vocabulary, is_slip
from checks.contamination.text.words import words_of

FIELD = ("In a warehouse in Bristol, Anna counts 17 crates that weigh more than 80 kg each; if x + 3 < 20 holds for "
         "the smaller of two odd colours, is the label not white and the box red?")
KNOWN = Vocabulary.of(words_of(f"{FIELD} {FIELD} even ever lager larger creates crate label labels Hanna").hashes)


@pytest.mark.parametrize(("old", "new"), [
    ("smaller", "larger"), ("odd", "even"), ("not ", ""), ("more", "less"), ("Anna", "Bella"), ("Anna", "Hanna"),
    ("kg", "lb"), ("x + 3", "x - 3"), ("< 20", "> 20"), (" and the", " or the"), ("white", "black"),
    ("white", "not white"),
    ("label", "labels"), ("crates", "creates"), ("weigh", "unweigh"), ("Bristol, ", ""), ("two odd", "two large odd"),
    ("Anna counts", "counts Anna"), ("than 80", "than -80"), ("17 crates", "19 crates"), ("17", "80"),
    ("more than 80 kg", "80 kg more than"),
])
def test_what_can_change_the_answer_is_told(old: str, new: str) -> None:
    assert old in FIELD
    found = compare(FIELD, f"Lorem ipsum. {FIELD.replace(old, new, 1)} Dolor sit amet.", KNOWN)
    assert found is not None and (found.turned or found.numbers), (old, new)


@pytest.mark.parametrize(("old", "new"), [
    ("warehouse", "warehuose"), ("Bristol", "Bristoll"), ("counts", "count's"), ("colours", "colors"),
    ("the label", "a label"),
    ("In a", "At the"), ("; if", ". If"), ("is the label", "was that label"), ("80 kg", "80kg"),
    ("80 kg", "80 kilograms"),
    ("crates that", "crates which"), ("and the box", "& the box"), ("x + 3 < 20", "x+3 &lt; 20"),
    ("each; ", "each; so "),
    ("17", "seventeen"), ("smaller", "**smaller**"), ("odd", "<em>odd</em>"),
    ("each; ", "each. Page 3 of 12 was scanned by the library of the town. "), ("+", "$+$"), ("weigh", "\\text{weigh}"),
])
def test_what_cannot_change_the_answer_is_no_turn(old: str, new: str) -> None:
    assert old in FIELD
    found = compare(FIELD, f"Lorem ipsum. {FIELD.replace(old, new, 1)} Dolor sit amet.", KNOWN)
    assert found is not None and found.turned is None and found.numbers is None, found


def test_all_punctuation_may_go() -> None:
    field = "Solve x + 3 < -20, where x is 3.5 or less: it isn't 80,000!"
    found = compare(field, "Lorem ipsum solve x 3 20 where x is 35 or less it isnt 80000 dolor sit")
    assert found is not None and (found.turned, found.numbers) == (None, None)


@given(st.text("abcde", min_size=5, max_size=9), st.integers(0, 8), st.sampled_from("abcdez"), st.integers(0, 3))
def test_a_slip_is_one_letter(word: str, at: int, letter: str, kind: int) -> None:
    at = min(at, len(word) - 2)
    other = (word[:at] + letter + word[at:], word[:at] + word[at + 1:], word[:at] + letter + word[at + 1:],
             word[:at] + word[at + 1] + word[at] + word[at + 2:])[kind]
    assert other == word or is_slip(word, other) and is_slip(other, word)
    assert not is_slip(word, f"x{other}yz") and not is_slip("123456", "123457")
