"""Numbers of a text: what is written is known, however it is written."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.text.numbers import numbers_of

ZEROS = "0０٠۰०০๐"
"""ASCII, full width, Arabic-Indic, Persian, Devanagari, Bengali, Thai."""
BEFORE = ("", "$", "€", "(", "花了", "は", "약", "costs ", "= ", "ب", "около ", "₹", "\n", "=", "\\n")
BEHIND = ("", "%", " kg", "kg", "km/h", "美元", "円", "달러", ")", " apples", "€", "कि", "руб.", "th", "\\n", "&nbsp;g")
GROUPS = (",", "\u2009", "\u202f", "'", "’", "_", "{,}", "\\,")


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str]:
    """A number in one of many hands, and its plain value."""
    value = str(draw(st.integers(0, 10**draw(st.integers(1, 9)))))
    cents = draw(st.sampled_from(["", "", "5", "25", "50", "007"]))
    digits, grouping = list(value), draw(st.sampled_from(["none", "thousands", "india"]))
    if grouping != "none" and len(value) > 3:
        mark = draw(st.sampled_from(GROUPS))
        places = range(len(value) - 3, 0, -3) if grouping == "thousands" else range(len(value) - 3, 0, -2)
        for place in places:
            digits[place] = mark + digits[place]
    zero = draw(st.sampled_from(ZEROS))
    text = "".join(digits) + (f".{cents}" if cents else "")
    text = "".join(chr(ord(zero) + int(c)) if c.isdigit() else c for c in text)
    plain = f"{value}.{cents}".rstrip("0").rstrip(".") if cents else value
    return f"{draw(st.sampled_from(BEFORE))}{text}{draw(st.sampled_from(BEHIND))}", plain


@settings(deadline=None, max_examples=300)
@given(st.lists(written(), max_size=5), st.sampled_from([" and ", "; ", " – ", " 和 ", " x2 int_0 H2O "]))
def test_a_number_is_the_same_in_every_hand(parts: list[tuple[str, str]], between: str) -> None:
    assert numbers_of(between.join(text for text, _ in parts)) == [value for _, value in parts]


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60), st.booleans())
def test_any_text_has_numbers_of_digits(text: str, loose: bool) -> None:
    for number in numbers_of(text, loose):
        assert number.isalpha() or all(part.isascii() and part.isdigit() for part in number.split("."))


@pytest.mark.parametrize(("text", "numbers"), [
    ("他花了80,000美元", ["80000"]),
    ("80kg at 5km/h for 3h", ["80", "5", "3"]),
    ("1/2 and ½ and 10² and 10^2 and 10<sup>2</sup>", ["1", "2", "1", "2", "10", "2", "10", "2", "102"]),
    ("int_0 x2 step10 GPT4 h2o", []),
    ("[100,200,300]", ["100200300"]),
    ("[1,2,3] 12,34 1,2345", ["1", "2", "3", "12", "34", "1", "2345"]),
    ("version 1.2.3, .5 and 0.5", ["1.2.3", "0.5", "0.5"]),
    ("三百 twenty-one half", ["20", "1", "half"]),
    ("in 2019.", ["2019"]),
    ("約80,000ドル ٣٫٥", ["80000", "3.5"]),
    ("80<span>,</span>000", ["80000"]),
])
def test_numbers_of_a_text(text: str, numbers: list[str]) -> None:
    assert numbers_of(text) == numbers


@pytest.mark.parametrize(("one", "other"), [("10 000 euros", "10000 euros"), ("[100,200,300]", "[100, 200, 300]")])
def test_a_list_and_a_grouped_number_may_be_one_loosely(one: str, other: str) -> None:
    assert numbers_of(one, loose=True) == numbers_of(other, loose=True)


def test_long_texts_take_no_time() -> None:
    assert len(numbers_of("1," * 50_000)) == 50_000
    assert len(numbers_of(" ".join(random.Random(0).choices(["7", "x", "8.5"], k=20_000)))) > 10_000
