"""What a spreadsheet sees of a cell that we write, whatever program and separator it is opened with."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainvitals.spreadsheet import original_cell, safe_cell, write_csv

STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
ODD = st.text(st.sampled_from("=+-@'\"\t\r\n;, \u00a0\uff1d\u2028\v\0a1"), max_size=12) | st.text(max_size=20)


@given(ODD)
@example("a\r=1+1")
@example("'=1")
@example("x;\"=cmd|' /C calc'!A0")
def test_no_part_of_a_cell_is_a_formula_and_none_is_lost(text: str):
    cell = safe_cell(text)
    for part in re.split("[\r\n\t;\v\u2028]", cell):
        assert not part.lstrip(" \u00a0\"").startswith(STARTS)
    assert "\0" not in cell
    assert original_cell(cell) == text.replace("\0", "\u2400")


@given(st.lists(st.lists(ODD, min_size=2, max_size=2), max_size=5))
def test_a_table_comes_back_as_it_was(rows: list[list[str]]):
    file = io.StringIO(newline="")
    write_csv(file, ["=a", "b"], rows)
    found = list(csv.reader(io.StringIO(file.getvalue(), newline="")))
    assert found[0] == ["'=a", "b"]
    back = [[original_cell(cell) for cell in row] for row in found[1:]]
    assert back == [[cell.replace("\0", "\u2400") for cell in row] for row in rows]
    # Read with none of the quotes heeded, no line begins with a formula either.
    for line in re.split("[\r\n]", file.getvalue()):
        assert not line.lstrip(" \u00a0\"").startswith(STARTS)


@pytest.mark.parametrize(("value", "cell"), [
    (None, ""), (float("nan"), ""), (pd.NA, ""), (np.float64("nan"), ""), (-3, "-3"), (np.float32(-0.5), "-0.5"),
    (True, "True"), ("-3", "'-3"), ("", ""), ([1], "[1]"),
])  # fmt: skip
def test_numbers_stay_numbers_and_nothing_stays_empty(value, cell):
    assert safe_cell(value) == cell
