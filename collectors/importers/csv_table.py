"""A table of any tool as delimited text: which column is what is guessed by its name, and shown."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from collectors.importers.importer import BlindSpot, Facts, Importer, Item, Note, Replaced, Rows, RunOf
from collectors.importers.numbers import DECIMAL_COMMA, column, number
from collectors.importers.roles import SCALARS_ONLY, Roles, Steps, of_training, roles_of, seconds
from collectors.importers.textfile import Lines, encoding_of, text_of, whole_lines
from trainvitals.errors import UsageError
from trainvitals.formulas import given

DELIMITERS = ",;\t|"
BLANKS = " "
"""Stands for runs of blanks."""
SNIFFED = 50
MOST_COLUMNS = 10_000
MOST_RUNS, SCANNED_BYTES = 500, 64 << 20
"""Runs that are told apart in one table, and how large it may be for that."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a table is written."""

    header: tuple[str, ...]
    delimiter: str
    decimal_comma: bool
    encoding: str
    start: int
    """Offset of the first row, bytes."""


class CsvTable(Importer):
    """Any table with a header and a row per step; several runs where a column tells them apart."""

    format = "csv"
    title = "CSV or other delimited text"
    generic = True
    blanks = True
    blind: ClassVar[tuple[BlindSpot, ...]] = (SCALARS_ONLY,)

    def recognises(self, path: Path, head: bytes) -> str:
        """By a header of names, one of them known in training, and rows of as many cells with a number at least."""
        form = form_of(head)
        if form is None or len(form.header) < 2 or not of_training(form.header):
            return ""
        cells = [_cells(line, form.delimiter) for line in _body(head, form)[:SNIFFED]]
        fit = [row for row in cells if len(row) == len(form.header)]
        named = sum(bool(name.strip()) and number(name) is None for name in form.header)
        numeric = [all(number(row[i], form.decimal_comma) is not None for row in fit) for i in range(len(form.header))]
        if not fit or len(fit) < 0.8 * len(cells) or named < len(form.header) - 1 or not any(numeric):
            return ""
        return f"a header of {len(form.header)} names and rows of as many cells"

    def runs(self, path: Path) -> list[RunOf]:
        """One; or those that a column such as `seed` or `run` tells apart, where their steps begin anew."""
        path = self.file_of(path)
        form = _needed_form(path)
        roles = roles_of(form.header)
        if not roles.run or not roles.step or path.stat().st_size > SCANNED_BYTES:
            return [RunOf(path, path.stem)]
        at, step = form.header.index(roles.run), form.header.index(roles.step)
        seen: dict[str, float] = {}
        again = False
        for batch in whole_lines(path, form.start, form.encoding, open_end=True):
            for row in _rows(batch.lines, form.delimiter):
                if len(row) == len(form.header) and (value := number(row[step])) is not None:
                    again = again or (row[at] not in seen and bool(seen) and value <= max(seen.values()))
                    seen[row[at]] = max(value, seen.get(row[at], value))
        if not again or not 1 < len(seen) <= MOST_RUNS:
            return [RunOf(path, path.stem)]
        return [RunOf(path, f"{path.stem}-{roles.run}-{key}", key) for key in seen]

    def file_of(self, path: Path) -> Path:
        """The table at a path."""
        return path

    def read(self, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        """Rows behind the last one that was read."""
        run = replace(run, path=self.file_of(run.path))
        form = _needed_form(run.path)
        if state.get("header", list(form.header)) != list(form.header):
            raise Replaced("its header changed")
        roles = roles_of(form.header, state.get("map", {}))
        if roles.step and roles.step not in form.header:
            raise UsageError(f"{run.path} has no column {roles.step!r}. It has {', '.join(form.header)[:300]}.")
        if "header" not in state:
            state["header"] = list(form.header)
            yield Facts(blind=roles.blind)
        reader = _Reader(run, form, roles, state)
        for batch in whole_lines(run.path, max(form.start, state.get("at", 0)), form.encoding, open_end=True):
            yield from reader.batch(batch)
        yield from reader.notes()


class _Reader:
    """Lines of one table into rows."""

    def __init__(self, run: RunOf, form: Form, roles: Roles, state: dict[str, Any]) -> None:
        self._run, self._form, self._roles, self._state = run, form, roles, state
        self._steps = Steps(roles.counted, state.get("rows", 0))
        self._left_out: dict[str, int] = {}
        self._named = [i for i, name in enumerate(form.header) if name.strip()]

    def batch(self, batch: Lines) -> Iterator[Item]:
        """The rows of some lines."""
        self._say("lines of more than a megabyte", batch.too_long)
        if batch.loose:
            yield from self._loose(batch.lines[0])
            return
        lines = batch.lines
        if lines and lines[0] == self._state.pop("loose", None):
            lines = lines[1:]
        self._state["at"] = batch.end
        yield from self._taken(lines)
        self._state["rows"] = self._steps.rows

    def _loose(self, line: str) -> Iterator[Item]:
        """A last line without an end counts if it has all cells, and is read again once it ends."""
        whole = len(_cells(line, self._form.delimiter)) == len(self._form.header)
        if not whole or self._roles.step == self._form.header[-1] or self._state.get("loose") == line:
            return  # it is cut, or may be within its step, or is known
        self._state["loose"] = line
        yield from self._taken([line])
        if not self._state.get("said"):
            self._state["said"] = True
            yield Note("import", "The last line of the table has no line end: it is taken as it stands, and may be cut")

    def _taken(self, lines: Sequence[str]) -> Iterator[Rows]:
        header = self._form.header
        rows = [row for row in _rows(lines, self._form.delimiter) if any(cell.strip() for cell in row)]
        fit = [row for row in rows if len(row) == len(header) and tuple(cell.strip() for cell in row) != header]
        self._say("lines with another number of cells than the header", sum(len(row) != len(header) for row in rows))
        if self._run.key:
            at = header.index(self._roles.run)
            fit = [row for row in fit if row[at] == self._run.key]
        if fit:
            yield self._rows(fit)

    def _rows(self, rows: list[list[str]]) -> Rows:
        header, comma = self._form.header, self._form.decimal_comma
        cells = list(zip(*rows, strict=True))
        columns: dict[str, NDArray[np.float64]] = {}
        times, steps = None, None
        for i in self._named:
            name = header[i]
            if name == self._roles.time and (times := seconds(cells[i])) is not None:
                continue
            values, texts = column(cells[i], comma)
            if name == self._roles.step:
                steps = values
                if self._roles.counted != "epochs":
                    continue
            if texts < len(values):
                self._say(f"cells of {name[:60]} that are no numbers", texts)
            if given(values).any() and not (self._run.key and name == self._roles.run):
                columns[name] = values
        at, has = self._steps.of(steps, len(rows))
        self._say("rows without a whole step", int((~has).sum()))
        when = np.full(len(rows), np.nan) if times is None else times
        return Rows(at[has], when[has], {name: values[has] for name, values in columns.items()})

    def _say(self, what: str, count: int) -> None:
        if count:
            self._left_out[what] = self._left_out.get(what, 0) + count

    def notes(self) -> Iterator[Note]:
        """What was left out."""
        for what, count in self._left_out.items():
            yield Note("import", f"{count:,} {what} are left out", hides=True)


def _needed_form(path: Path) -> Form:
    with path.open("rb") as file:
        form = form_of(file.read(1 << 20))
    if form is None or all(number(name) is not None for name in form.header):
        raise UsageError(f"{path} has no header and rows of a table. Give delimited text with names in its first line.")
    return form


def form_of(head: bytes) -> Form | None:
    """How a table is written, by its beginning; None where it is none."""
    text = text_of(head)
    encoding, mark = encoding_of(head)
    lines = text.split("\n")
    whole = lines if len(head) < (64 << 10) else lines[:-1]
    skipped = next((i for i, line in enumerate(whole) if line.strip() and not line.lstrip().startswith("#")), None)
    if skipped is None:
        return None
    sample = [line for line in whole[skipped : skipped + SNIFFED] if line.strip()]
    delimiter = _delimiter(sample)
    header = tuple(cell.strip().strip("\ufeff") for cell in _cells(sample[0], delimiter))
    if len(header) > MOST_COLUMNS or len(set(header)) < len(header):
        return None
    start = mark + len("".join(f"{line}\n" for line in whole[: skipped + 1]).encode(encoding, "replace"))
    cells = [cell for line in sample[1:] for cell in _cells(line, delimiter)]
    comma = delimiter != "," and any(DECIMAL_COMMA.fullmatch(cell) for cell in cells) and not any(
        "." in cell and number(cell) is not None for cell in cells)
    return Form(header, delimiter, comma, encoding, start)


def _body(head: bytes, form: Form) -> list[str]:
    lines = head[form.start :].decode(form.encoding, "replace").split("\n")
    return [line for line in (lines if len(head) < (64 << 10) else lines[:-1]) if line.strip()]


def _delimiter(lines: Sequence[str]) -> str:
    """The one that cuts the most lines into as many cells as the first."""
    best, most = "", 0
    for delimiter in DELIMITERS:
        width = len(_cells(lines[0], delimiter))
        alike = sum(len(_cells(line, delimiter)) == width for line in lines) if width > 1 else 0
        if alike > most:
            best, most = delimiter, alike
    if best:
        return best
    return BLANKS if len(lines[0].split()) > 1 and len({len(line.split()) for line in lines}) == 1 else ","


def _cells(line: str, delimiter: str) -> list[str]:
    return next(iter(_rows([line], delimiter)), [])


def _rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if delimiter == BLANKS:
        return [line.split() for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:  # a cell that is too long, say: its line alone must pay for it
        return [row for line in lines for row in _one(line, delimiter)]


def _one(line: str, delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [[]]
