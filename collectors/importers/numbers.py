"""Cells of a table as numbers: a blank is no NaN, and a text is none either."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainvitals.formulas import MISSING

_BLANK = frozenset(("", "na", "n/a", "none", "null", "-", "--", "#n/a"))
_NOT_FINITE = {"nan": float("nan"), "-nan": float("nan"), "+nan": float("nan"), "inf": float("inf"),
               "+inf": float("inf"), "-inf": float("-inf"), "infinity": float("inf"), "+infinity": float("inf"),
               "-infinity": float("-inf"), "1.#inf": float("inf"), "-1.#inf": float("-inf"), "1.#qnan": float("nan")}
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*")


def number(cell: str, decimal_comma: bool = False) -> float | None:
    """A cell as a number; `MISSING` for a blank; None for a text."""
    if decimal_comma and DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    if "_" not in cell:  # which Python reads as a part of a number
        try:
            return float(cell)
        except ValueError:
            pass
    word = cell.strip().lower()
    return MISSING if word in _BLANK else _NOT_FINITE.get(word)


def column(cells: Sequence[str], decimal_comma: bool = False) -> tuple[NDArray[np.float64], int]:
    """Cells as numbers, and how many are text, which is missing in the array."""
    try:
        if not decimal_comma and not any("_" in cell for cell in cells):
            return np.array(list(map(float, cells)), np.float64), 0
    except ValueError:
        pass
    found = [number(cell, decimal_comma) for cell in cells]
    return np.array([MISSING if value is None else value for value in found], np.float64), found.count(None)
