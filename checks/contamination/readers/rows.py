"""The rows of a benchmark as Python objects: benchmarks are small, and the cleaned copy is made of their rows."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.readers import hub
from checks.contamination.readers.arrays import Values
from checks.contamination.readers.columnar import ARROW_MAGIC
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.encodings import decoded
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.roles import canonical, known_names
from checks.contamination.readers.stored import local_path
from trainvitals.errors import UsageError

Row = Mapping[str, Any]

MOST_BYTES = 4 << 30
"""Of one JSON value of a benchmark: it is held in memory anyway."""
HEADLESS_MMLU = ("question", "A", "B", "C", "D", "answer")
"""Columns of the CSV files of https://github.com/hendrycks/test, which have no header."""
NOT_OBJECT = "Not a JSON object: the row was left out."
SENTENCE_SPACES = 3
"""Spaces in a cell that no column's name has."""
WRONG_CELLS = "Another number of cells than the header has: the row was left out."
csv.field_size_limit(1 << 26)


def read_rows(source: str, kind: str, ledger: Ledger, *, numbered: bool = False) -> list[Row]:
    """All rows of a file or data set; broken ones are noted and left out.

    Cells of a CSV file without a header, and of JSON rows that are arrays, have the numbers of their columns for names,
    from 0; `numbered` says that a file has no header.

    Raises:
        UsageError: the file cannot be opened, or is not what its name says.
    """
    readers = {"jsonl": _lines, "json": _json, "parquet": _parquet, "arrow": _arrow, "dataset": _dataset}
    if kind not in (*readers, "csv"):
        raise UsageError(f"{source} is no benchmark. Give JSONL, JSON, CSV, Parquet, Arrow or a data set's name.")
    try:
        rows = list(_csv(source, ledger, numbered) if kind == "csv" else readers[kind](source, ledger))
    except (OSError, pa.ArrowInvalid) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        raise UsageError(f"{source} cannot be read as {kind}: {reason}. Check the file.") from error
    ledger.tally.records += len(rows)
    return rows


def canonical_sha256(rows: list[Row]) -> str:
    """Hash of rows that come from no file: of their canonical JSON, one row a line."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":"), default=str).encode() + b"\n")
    return digest.hexdigest()


def _content(source: str, ledger: Ledger) -> str:
    raw = b"".join(plain_blocks(source, ledger))
    content, said = decoded(raw)
    if said:
        ledger.note(said, f"byte {_first_strange(raw)}")
    return content


def _first_strange(raw: bytes) -> int:
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _lines(source: str, ledger: Ledger) -> Iterator[Row]:
    values = []
    for number, line in enumerate(_content(source, ledger).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append((f"line {number}", json.loads(line, strict=False)))
        except (ValueError, RecursionError):
            values.append((f"line {number}", None))
    yield from _as_rows(values, ledger)


def _json(source: str, ledger: Ledger) -> Iterator[Row]:
    """An array of rows, or rows one after another."""
    found = Values(iter([_content(source, ledger).encode("utf-8", "surrogatepass")]), MOST_BYTES)
    values = list(found)
    if found.broken:
        raise UsageError(f"{source} is not valid JSON at about byte {found.place}. Mend or convert it to JSONL.")
    yield from _as_rows([(f"element {i}", value) for i, value in enumerate(values, start=1)], ledger)


def _as_rows(values: list[tuple[str, Any]], ledger: Ledger) -> Iterator[Row]:
    """Objects as they are, arrays by number of their cells or by the names in the first of them."""
    lists = [value for _, value in values if isinstance(value, list)]
    header: list[str] = []
    if lists and len(lists) > len(values) / 2:
        header = _header([[str(cell) for cell in value] for value in lists], numbered=False)
    skip_first = bool(header) and [str(cell) for cell in lists[0]] == header
    for place, value in values:
        if isinstance(value, dict):
            yield value
        elif isinstance(value, list) and len(value) == len(header):
            if not (skip_first and value is lists[0]):
                yield dict(zip(header, value, strict=True))
        else:
            _left_out(ledger, WRONG_CELLS if header and isinstance(value, list) else NOT_OBJECT, place)


def _csv(source: str, ledger: Ledger, numbered: bool) -> Iterator[Row]:
    content = _content(source, ledger)
    delimiter = "\t" if ".tsv" in source.lower() else ","
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    if delimiter == "\t" and '"' in content and _is_even(content):
        quoting = csv.QUOTE_NONE  # many TSV files hold quotation marks that quote nothing
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, quoting=quoting)
    try:
        table = [(reader.line_num, cells) for cells in reader if any(cells)]
    except csv.Error as error:
        raise UsageError(f"{source} is not readable CSV at line {reader.line_num}: {error}. Mend the file.") from error
    if not table:
        return
    header = _header([cells for _, cells in table], numbered)
    if table[0][1] == header:
        table = table[1:]
    for line, cells in table:
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            _left_out(ledger, WRONG_CELLS, f"line {line}")


def _is_even(content: str) -> bool:
    """Whether every line of a TSV file has as many cells as the others, but not if its quotation marks quoted."""
    if len({line.count("\t") for line in content.splitlines() if line.strip()}) != 1:
        return False
    try:
        quoted = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter="\t") if any(row)]
    except csv.Error:
        return True
    return len({len(row) for row in quoted}) != 1 or any("\n" in cell for row in quoted for cell in row)


def _header(table: list[list[str]], numbered: bool) -> list[str]:
    """The names of the columns: the first row, or numbers from 0 where that is a row like the others."""
    first = table[0]
    if not numbered:
        if len(first) == len(HEADLESS_MMLU) and all(cells[-1:] and cells[-1] in list("ABCDE") for cells in table):
            return list(HEADLESS_MMLU)
        known = known_names() & {canonical(cell) for cell in first}
        sentence = any(cell.count(" ") >= SENTENCE_SPACES or cell.rstrip().endswith("?") for cell in first)
        if known or not sentence:
            return first
    return [str(i) for i in range(len(first))]


def _parquet(source: str, ledger: Ledger) -> Iterator[Row]:
    with local_path(source, ledger.tally) as path, pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def _arrow(source: str, ledger: Ledger) -> Iterator[Row]:
    with local_path(source, ledger.tally) as path, pa.OSFile(path) as file:
        is_file = file.read(len(ARROW_MAGIC)) == ARROW_MAGIC
        file.seek(0)
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        yield from reader.read_all().to_pylist()


def _dataset(source: str, ledger: Ledger) -> Iterator[Row]:
    for table in hub.tables(source):
        yield from table.to_pylist()


def _left_out(ledger: Ledger, what: str, place: str) -> None:
    ledger.tally.records += 1
    ledger.skip(what, place)
