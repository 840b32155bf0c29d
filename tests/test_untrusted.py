"""JSON that anybody may have written: every value usable, or one sentence that says what is wrong."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.untrusted import MOST_DEPTH, MOST_INTEGER, bounded, misfit, parse_json

SOUND = st.recursive(
    st.none() | st.booleans() | st.integers(-MOST_INTEGER, MOST_INTEGER) | st.floats(allow_nan=False,
                                                                                      allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=20,
)


@given(SOUND)
def test_sound_json_is_read_as_it_is(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(("text", "why"), [
    ("1e999", "1e999"), ("[NaN]", "NaN"), ('{"a": -Infinity}', "-Infinity"), ("9" * 400, "400 digits"),
    ("-" + "9" * 5000, "digits"), (str(MOST_INTEGER + 1), "64 bits"), ("[" * 100_000 + "]" * 100_000, "nested deeper"),
    ('{"a":' * 500 + "1" + "}" * 500, "nested deeper"), ("[" * (MOST_DEPTH + 5) + "]" * (MOST_DEPTH + 5), "nested"),
    ("", "Expecting value"), ("{", "Expecting"), ("[1] 2", "Extra data"),
])  # fmt: skip
def test_what_cannot_be_used_is_named(text, why):
    with pytest.raises(ValueError, match=why):
        parse_json(text)


def test_a_long_text_is_not_parsed():
    with pytest.raises(ValueError, match="MB"):
        parse_json("[" + "1," * 1000 + "1]", most_bytes=100)


def test_half_characters_become_whole_ones():
    found = parse_json(r'{"\ud800k": ["a\udfff", "\ud83d\ude00"]}')
    assert found == {"\ufffdk": ["a\ufffd", "\U0001f600"]}
    json.dumps(found, ensure_ascii=False).encode()


def test_what_another_parser_read_is_looked_through():
    assert bounded({"a": [1, 2.5, "x"]}) == {"a": [1, 2.5, "x"]}
    for odd in (math.nan, [math.inf], {"a": {"b": 10**400}}):
        with pytest.raises(ValueError, match="it holds"):
            bounded(odd)
    deep: list = []
    for _ in range(MOST_DEPTH + 10):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        bounded(deep)


@pytest.mark.parametrize(("value", "shape", "said"), [
    ({"a": 1}, {"a": int}, ""), ({"a": True}, {"a": int}, "a is bool"), ({}, {"a": int}, "a is missing"),
    ([{"a": 1}, {"a": "x"}], [{"a": int}], r"[1].a is str"), (None, (type(None), {"a": int}), ""),
    ({"a": []}, {"a": ({"b": int}, [int])}, ""), (5, {"a": int}, "it is no object"), ("x", [int], "it is no list"),
])  # fmt: skip
def test_a_misfit_is_named_with_its_place(value, shape, said):
    assert misfit(value, shape) == said
