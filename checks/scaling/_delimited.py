"""Delimited text as people export it: which character divides the cells, which row is the header, what is no row.

Understood: commas, semicolons, tabs, bars and runs of blanks; a first line `sep=;`; comment lines; title lines and two
header rows (merged cells, a row of units); a delimiter too many at the end of every row; row names without a header,
as R and pandas write them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

from checks.scaling._cells import is_number, number
from checks.scaling._files import clip
from trainvitals.errors import UsageError

DELIMITERS = "\t;,|"
BLANKS = " "
"""Stands for runs of blanks."""
SNIFFED_LINES = 50
MOST_HEADER_ROWS = 5
MOST_CELLS = 20_000_000

Row = tuple[int, list[str]]
"""The line that a row ends on, and its cells."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Header and rows of equal width."""

    header: list[str]
    rows: list[Row]
    delimiter: str


def read_grid(text: str, where: str) -> Grid:
    """Header and rows of a delimited text.

    Raises:
        UsageError: it is no such text, or a row has more cells than the header has names.
    """
    lines = text.splitlines()
    delimiter, lines = _said_delimiter(lines)
    lines, comment, remarks = _without_comments(lines)
    if not any(line.strip() for line in lines):
        raise _empty(where)
    delimiter = delimiter or _delimiter([line for line in lines if line.strip()][:SNIFFED_LINES])
    rows = [row for row in _rows(lines, delimiter, where) if any(cell.strip() for cell in row[1])]
    if not rows:
        raise _empty(where)
    header, rows = _header(rows, comment, delimiter, where)
    _refuse_rows_behind_marks(remarks, header, delimiter, where)
    if not rows:
        raise UsageError(f"{where} has a header and no rows below its header. Give one row per line.")
    if len(header) == 1 and max(len(cells) for _, cells in rows[:SNIFFED_LINES]) == 1:
        raise UsageError(f"{where} has one column, {clip(header[0])!r}. Give a table with a column per quantity, "
                         "divided by commas.")
    return _squared(header, rows, delimiter, where)


def _empty(where: str) -> UsageError:
    return UsageError(f"{where} is empty. Give a table with a header and one row per line.")


def _said_delimiter(lines: list[str]) -> tuple[str, list[str]]:
    """The delimiter of Excel's `sep=;` line, which is then blank so that lines keep their numbers."""
    if lines and (found := re.fullmatch(r'"?sep=(.)"?[,;\t]*', lines[0].strip("\ufeff"), re.IGNORECASE)):
        return found[1], ["", *lines[1:]]
    return "", lines


def _without_comments(lines: list[str]) -> tuple[list[str], str, list[tuple[int, str]]]:
    """The lines, comments blanked; the last comment above the first row, which may hold the names; those below it."""
    above, kept, below = "", [], []
    begun = False
    for i, line in enumerate(lines, 1):
        word = line.lstrip()
        if word.startswith(("#", "%", "//")) and not word.startswith(("#,", "#;", "#\t")):
            above = above if begun else word.lstrip("#%/").strip()
            below += [(i, word)] if begun else []
            line = ""
        begun = begun or bool(line.strip())
        kept.append(line)
    return kept, above, below


def _refuse_rows_behind_marks(remarks: list[tuple[int, str]], header: list[str], delimiter: str, where: str) -> None:
    """A line `#7,1e9,2e10,3.1` is a run called #7 to one and a run taken out to another."""
    for line, text in remarks:
        if delimiter != BLANKS and len(header) > 1 and _width(text, delimiter) == len(header):
            raise UsageError(f"{where}: line {line:,} begins with {text[0]!r} and holds a row. Delete the mark, or the "
                             "line if the row is not to count.")


def _delimiter(lines: list[str]) -> str:
    """The one that cuts the most lines alike into two cells or more; blanks only where none does."""
    best, most = "", (0.0, 0)
    for delimiter in DELIMITERS:
        widths = [_width(line, delimiter) for line in lines]
        usual = max(set(widths), key=lambda w: (widths.count(w), w))
        # A comma too many, or two header rows, leave a few lines of another width.
        score = (widths.count(usual) / len(widths), min(usual, 2))
        if usual > 1 and score > most:
            best, most = delimiter, score
    if best:
        return best
    widths = [len(line.split()) for line in lines]
    return BLANKS if min(widths) > 1 and len(set(widths)) == 1 else ","


def _width(line: str, delimiter: str) -> int:
    """Cells of a line; delimiters between quotes do not count."""
    return "".join(line.split('"')[::2]).count(delimiter) + 1


def _rows(lines: list[str], delimiter: str, where: str) -> Iterator[Row]:
    if delimiter == BLANKS:
        yield from ((i, line.split()) for i, line in enumerate(lines, 1))
        return
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    total = 0
    try:
        for cells in reader:
            total += len(cells)
            if total > MOST_CELLS:
                raise UsageError(f"{where} has more than {MOST_CELLS:,} cells. Keep the columns that are needed.")
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UsageError(f"{where} is not a CSV file: line {reader.line_num:,}, {error}. Look for a quote that is not "
                         "closed.") from error


def _header(rows: list[Row], comment: str, delimiter: str, where: str) -> tuple[list[str], list[Row]]:
    width = max(len(cells) for _, cells in rows[:SNIFFED_LINES])
    while len(rows) > 1 and width > 1 and len([c for c in rows[0][1] if c]) == 1 and not _has_number(rows[0][1]):
        rows = rows[1:]  # a title above the table
    named = 0
    while named < min(len(rows), MOST_HEADER_ROWS) and not _has_number(rows[named][1]):
        named += 1
    if named == 0:
        first = rows[0][1]
        if all(is_number(cell) or not cell for cell in first):
            names = comment.split(None if delimiter == BLANKS else delimiter)
            if len(names) == len(first):
                return [name.strip() for name in names], rows
            return _bare(first, rows, where), rows
        named = 1  # a column may be called 2024
    if named == len(rows) and named > 1:
        named = 1  # rows of words: what is wrong with them is for the caller to say
    return _joined([cells for _, cells in rows[:named]]), rows[named:]


def _bare(first: list[str], rows: list[Row], where: str) -> list[str]:
    """The names of a file that has none: MLflow's metric files are known by their time stamps."""
    # https://mlflow.org/docs/latest/ml/tracking: "timestamp value step", milliseconds since 1970.
    if len(first) in (3, 4) and all(len(c) >= 3 and (number(c[0]) or 0) > 1e11 for _, c in rows[:5]):
        return ["timestamp", "value", "step", "_"][: len(first)]
    raise UsageError(f"{where} has no names of columns: line {rows[0][0]:,} holds numbers. Add a header line above it.")


def _has_number(cells: list[str]) -> bool:
    return any(is_number(cell) for cell in cells)


def _joined(parts: list[list[str]]) -> list[str]:
    """One name per column from one or more header rows: the lowest, with its unit or, where needed, its group."""
    names = list(parts[-1])
    for above in reversed(parts[:-1]):
        width = max(len(above), len(names))
        above, names = above + [""] * (width - len(above)), names + [""] * (width - len(names))
        if all(_is_unit(name) for name in names):
            names = [f"{a} ({n.strip('()[]')})" if a and n else a or n for a, n in zip(above, names, strict=True)]
            continue
        group = ""
        merged = []
        for a, n in zip(above, names, strict=True):
            group = a or group
            merged.append(n if n and names.count(n) == 1 else f"{group} {n}".strip())
        names = merged
    return names


def _is_unit(name: str) -> bool:
    plain = name.strip("()[] ").lower()
    return not plain or plain in _UNITS


_UNITS = frozenset(
    "k m b g t bn thousand thousands million millions billion billions trillion trillions nats nats/token bits "
    "bits/token bits/byte flops flop tokens parameters params steps step".split()
)


def _squared(header: list[str], rows: list[Row], delimiter: str, where: str) -> Grid:
    """All rows as wide as the header, which gains a nameless column where every row begins with a row name."""
    while len(header) > 1 and not header[-1] and all(not any(c[len(header) - 1 :]) for _, c in rows):
        header = header[:-1]
    longer = [row for row in rows if any(row[1][len(header) :])]
    if longer and _row_names(header, rows):
        header, longer = ["", *header], []
    if longer:
        line, cells = longer[0]
        raise UsageError(
            f"{where} is not a CSV file with one header: line {line:,} has {len(cells)} cells, where the header has "
            f"{len(header)}. Put cells that hold a {'blank' if delimiter == BLANKS else delimiter!r} in quotes."
        )
    width = len(header)
    return Grid(header, [(line, (cells + [""] * (width - len(cells)))[:width]) for line, cells in rows], delimiter)


def _row_names(header: list[str], rows: list[Row]) -> bool:
    """Whether every row has one cell more than the header, and the first of them counts or names the rows."""
    if any(len(cells) != len(header) + 1 or not cells[-1] for _, cells in rows):
        return False
    first = [cells[0] for _, cells in rows]
    counted = any(first == [str(start + i) for i in range(len(first))] for start in (0, 1))
    return counted or (len(set(first)) == len(first) and not any(is_number(name) for name in first))
