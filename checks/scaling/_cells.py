"""Cells of a spreadsheet as numbers: decimal points and commas, groups of thousands, powers of ten, blanks.

`1,234` is 1.234 in Berlin and 1234 in Boston. What the other cells of the same columns look like decides; where
nothing does, the caller has to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLANK = frozenset({"", "-", "–", "—", "na", "n/a", "#n/a", "null", "none"})
NOT_FINITE = {"nan": np.nan, "inf": np.inf, "infinity": np.inf}
_GROUP_SPACE = re.compile("(?<=[0-9])[ \u00a0\u202f\u2009'\u2019](?=[0-9]{3}(?![0-9]))")
_TIMES_TEN = re.compile(r"\s*[×x*·]\s*10\s*\^?\s*(?=[+-]?[0-9])")
_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")


def number(cell: str, decimal: str = ".") -> float | None:
    """The number that a cell says with this decimal mark; None where it says none, NaN where it says so or is blank."""
    word = cell.strip()
    if decimal == "." and _PLAIN.fullmatch(word):
        return float(word)
    if word.lower() in BLANK:
        return float("nan")
    word = _TIMES_TEN.sub("e", _GROUP_SPACE.sub("", word.replace("\u2212", "-")))
    if word.lower().lstrip("+-") in NOT_FINITE:
        return NOT_FINITE[word.lower().lstrip("+-")] * (-1 if word.startswith("-") else 1)
    if decimal == ",":
        word = word.translate({ord(","): ".", ord("."): ","})
    if _PLAIN.fullmatch(word):
        return float(word)
    return float(word.replace(",", "")) if _GROUPED.fullmatch(word) else None


def is_number(cell: str) -> bool:
    """Whether a cell says a number in any notation; blanks do not."""
    return cell.strip().lower() not in BLANK and any(number(cell, mark) is not None for mark in ".,")


def decimal_mark(columns: Iterable[Sequence[str]], delimiter: str) -> str | tuple[str, str]:
    """The decimal mark of these columns, or two cells that contradict each other (the same twice: nothing decides).

    A file that is delimited by semicolons is so because its commas are decimal.
    """
    found: dict[str, str] = {}
    unsure = ""
    for cells in columns:
        if not any("," in cell for cell in cells) and (decimal := _points_alone(cells)):
            found.setdefault(".", decimal)
            continue
        for cell in cells:
            if "," not in cell and "." not in cell:
                continue
            marks = [mark for mark in ".," if number(cell, mark) is not None]
            if len(marks) == 1:
                found.setdefault(marks[0], cell)
            elif marks and "," in cell:
                unsure = unsure or cell
    if len(found) == 2:
        return found["."], found[","]
    if found:
        return next(iter(found))
    if not unsure:
        return "."
    return "," if delimiter == ";" else (unsure, unsure)


def _points_alone(cells: Sequence[str]) -> str:
    """A cell whose point can only be decimal, in a column without commas."""
    for cell in cells:
        if "." in cell and number(cell, ",") is None and number(cell, ".") is not None:
            return cell
    return ""


def numbers(cells: Sequence[str], decimal: str) -> tuple[Floats, NDArray[np.bool_], int | None]:
    """Values [n] with NaN where blank, where anything is written [n], and the first cell that is no number."""
    values = np.full(len(cells), np.nan)
    said = np.zeros(len(cells), bool)
    for i, cell in enumerate(cells):
        if (found := number(cell, decimal)) is None:
            return values, said, i
        values[i] = found
        said[i] = found == found or cell.strip().lower() not in BLANK
    return values, said, None
