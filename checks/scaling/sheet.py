"""A table as somebody exported it: CSV of any dialect, Excel's Unicode text, JSON, JSON lines or Parquet.

    sheet = read_sheet("ladder.csv")
    values, said = sheet.numbers(("N", "loss"))["loss"]

One reader for ladders and curves. What a table says in several ways (decimal commas, thousands, rows of units) is read
rightly, or refused in one sentence that names the line and the column.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checks.scaling._cells import Floats, decimal_mark, number, numbers
from checks.scaling._delimited import read_grid
from checks.scaling._files import clip, listed, read_file
from checks.scaling._json_rows import read_rows
from trainvitals.errors import UsageError

MOST_LISTED = 12
BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
FORMATS = {b"PK\x03\x04": "an Excel workbook or a zip archive", b"\xd0\xcf\x11\xe0": "an old Excel workbook",
           b"SQLite": "a SQLite database", b"\x89HDF": "an HDF5 file", b"\x93NUM": "a NumPy file"}
PRINTABLE = frozenset(range(32, 256)) | frozenset(b"\t\r\n\f\v")


@dataclass(frozen=True, slots=True)
class Sheet:
    """Names of columns, and the cells as text."""

    where: str
    header: tuple[str, ...]
    lines: tuple[int, ...]
    """[rows] line of the file, or entry of a list, that each row stands at"""
    cells: tuple[Sequence[str], ...]
    """[columns][rows]"""
    delimiter: str = ","
    counts: str = "line"
    """What `lines` number."""

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """Where a row stands, for a message."""
        return f"{self.counts.capitalize()} {self.lines[row]:,} of {self.where}"

    def names(self) -> str:
        """The columns for a message, a bounded list."""
        return listed((clip(name) or f"(column {i} has no name)" for i, name in enumerate(self.header, 1)), MOST_LISTED)

    def texts(self, column: str, what: str = "") -> Sequence[str]:
        """The cells of a column; `what` it should hold, for messages.

        Raises:
            UsageError: no column has this name, or several that differ.
        """
        at = [i for i, name in enumerate(self.header) if name == column]
        if not at:
            sought = f"{clip(column)!r} for {what}" if what else repr(clip(column))
            raise UsageError(f"{self.where} has no column {sought}. It has {self.names()}.")
        if other := next((i for i in at[1:] if self.cells[i] != self.cells[at[0]]), 0):
            raise UsageError(
                f"{self.where} has two columns called {clip(column)!r}, number {at[0] + 1} and {other + 1}, that "
                "differ. Rename one."
            )
        return self.cells[at[0]]

    def numbers(self, columns: Iterable[str]) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
        """Per column its values [rows], NaN where blank or so written, and where anything is written [rows].

        All columns are read with one decimal mark.

        Raises:
            UsageError: a cell is no number, or nothing tells whether a comma is decimal.
        """
        texts = {column: self.texts(column) for column in dict.fromkeys(columns)}
        mark = decimal_mark(texts.values(), self.delimiter)
        if isinstance(mark, tuple):
            raise UsageError(self._undecided(texts, *mark))
        found = {}
        for column, cells in texts.items():
            values, said, bad = numbers(cells, mark)
            if bad is not None:
                raise UsageError(
                    f"{self.place(bad)} has {clip(cells[bad])!r} in column {clip(column)!r}, which is not a number. "
                    f"{_remedy(cells[bad])}"
                )
            found[column] = values, said
        return found

    def _undecided(self, texts: dict[str, Sequence[str]], one: str, other: str) -> str:
        places = [
            f"{clip(cell)!r} in column {clip(column)!r} ({self.counts} {self.lines[cells.index(cell)]:,})"
            for cell in dict.fromkeys((one, other)) for column, cells in texts.items() if cell in cells
        ]
        if one == other:
            plain = [f"{number(one, mark):g}" for mark in ".,"]
            return f"{self.where}: {places[0]} may be {plain[0]} or {plain[1]}. Write numbers without groups."
        return f"{self.where} mixes decimal points and commas: {listed(places, 2, between=' and ')}. Use one of them."

    def rows(self, keep: NDArray[np.intp]) -> Sheet:
        """The sheet with these rows only."""
        cells = tuple([column[i] for i in keep] for column in self.cells)
        return Sheet(self.where, self.header, tuple(self.lines[i] for i in keep), cells, self.delimiter, self.counts)


def _remedy(cell: str) -> str:
    if cell.rstrip().endswith("%"):
        return "Write percentages as shares of 1."
    return "Write plain numbers, 7e9 for 7B."


def read_sheet(path: str | Path) -> Sheet:
    """The table in a file.

    Raises:
        UsageError: there is no such file, it has no end, or it is no table.
    """
    content = read_file(path)
    if content[:4] == b"PAR1":
        return _of_parquet(content, str(path))
    text = _text(content, str(path))
    if text.lstrip()[:1] in ("{", "["):
        header, rows, are_lines = read_rows(text, str(path))
        return _sheet(str(path), header, rows, ",", "line" if are_lines else "entry")
    grid = read_grid(text, str(path))
    return _sheet(str(path), grid.header, grid.rows, grid.delimiter, "line")


def sheet_of(frame: Any, where: str) -> Sheet:
    """A data frame as a sheet; rows are numbered from 2, as in a file whose header is line 1."""
    cells = tuple(
        ["" if value is None or value != value else str(value) for value in frame.iloc[:, i].tolist()]
        for i in range(frame.shape[1])
    )
    return Sheet(where, tuple(map(str, frame.columns)), tuple(range(2, len(frame) + 2)), cells)


def _sheet(where: str, header: Sequence[str], rows: list[tuple[int, list[str]]], delimiter: str, counts: str) -> Sheet:
    cells = tuple([row[i] for _, row in rows] for i in range(len(header)))
    return Sheet(where, tuple(name.strip() for name in header), tuple(i for i, _ in rows), cells, delimiter, counts)


def _text(content: bytes, where: str) -> str:
    """Unicode by its mark, else UTF-8, else the code page in which Windows saves CSV files."""
    for start, kind in FORMATS.items():
        if content.startswith(start):
            raise UsageError(f"{where} is {kind}. Save the table as CSV.")
    encoding = next((name for mark, name in BOMS if content.startswith(mark)), "")
    if not encoding and content[:2000].count(0) > len(content[:2000]) // 4:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    for name in [encoding] if encoding else ["utf-8", "cp1252"]:
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and (name != "cp1252" or PRINTABLE.issuperset(content)):
            return text
    raise UsageError(f"{where} is not a CSV file, nor any other text. Give a table with a header and one row per line.")


def _of_parquet(content: bytes, where: str) -> Sheet:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (ValueError, OSError, NotImplementedError, KeyError) as error:
        raise UsageError(f"{where} is a damaged Parquet file: {clip(str(error), 80)}. Write it again.") from error
    found = sheet_of(frame.reset_index(drop=True), where)
    return Sheet(where, found.header, tuple(range(1, len(frame) + 1)), found.cells, counts="entry")
