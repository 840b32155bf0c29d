r"""Tables for spreadsheets, which run a cell that begins like a formula
(https://owasp.org/www-community/attacks/CSV_Injection).

    writer.writerows([safe_cell(value) for value in row] for row in rows)
    original_cell(safe_cell(text)) == text.replace("\0", "\u2400")

An apostrophe goes before whatever a spreadsheet could take for the beginning of a formula: at the start of a cell, and
after a line break, a tab or a semicolon inside it, which some programs read as the start of another one. Whoever reads
such a file by program takes them away again with `original_cell`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import IO, Any

_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
"""ASCII, and the full-width forms that East Asian spreadsheets read alike."""
_SPACE = " \u00a0\"'"
_BREAKS = "\t\r\n;\v\f\x1c-\x1e\x85\u2028\u2029"
_START = re.compile(rf"(\A(?=[{_SPACE}]*[{_SIGNS}\t\r\n])|(?<=[{_BREAKS}])(?=[{_SPACE}]*[{_SIGNS}]))")
_GUARDED = re.compile(rf"(\A|(?<=[{_BREAKS}]))'(?=[{_SPACE}]*[{_SIGNS}])|\A'(?=[{_SPACE}]*[\t\r\n])")


def safe_cell(value: Any, mark: str = "'") -> str:
    """The text of a value that no spreadsheet runs; "" for None, NaN and pandas's NA. NUL bytes are made visible.

    `mark` goes before a formula; what shows text and is no file may take an invisible one.
    """
    if value is None or type(value).__name__ == "NAType" or isinstance(value, Real) and math.isnan(value):
        return ""
    if isinstance(value, Real):
        return str(value)
    return _START.sub(mark, str(value).replace("\0", "\u2400"))


def original_cell(cell: str) -> str:
    """The text that `safe_cell` was given."""
    return _GUARDED.sub("", cell)


def write_csv(file: IO[str], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table of safe cells; `file` is open as text with newline=""."""
    # Lines that end in CR LF, as RFC 4180 has them: with any other end, Python leaves a CR inside a cell unquoted.
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([safe_cell(name) for name in header])
    writer.writerows([safe_cell(value) for value in row] for row in rows)
