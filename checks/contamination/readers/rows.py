"""The rows of a benchmark as Python objects: benchmarks are small, and the cleaned copy is made of their rows."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.readers import hub
from checks.contamination.readers.arrays import json_values
from checks.contamination.readers.columnar import ARROW_MAGIC
from checks.contamination.readers.compressed import plain_blocks
from checks.contamination.readers.ledger import Ledger
from checks.contamination.readers.stored import local_path
from trainvitals.errors import UsageError

Row = Mapping[str, Any]

MOST_BYTES = 4 << 30
"""Of one JSON value of a benchmark: it is held in memory anyway."""
HEADLESS_MMLU = ("question", "A", "B", "C", "D", "answer")
"""Columns of the CSV files of https://github.com/hendrycks/test, which have no header."""
NOT_OBJECT = "Not a JSON object: the row was left out."
NOT_UTF8 = "Invalid UTF-8: the bytes were replaced."
WRONG_CELLS = "Another number of cells than the header has: the row was left out."
csv.field_size_limit(1 << 26)


def read_rows(source: str, kind: str, ledger: Ledger) -> list[Row]:
    """All rows of a file or data set; broken ones are noted and left out.

    Raises:
        UsageError: the file cannot be opened, or is not what its name says.
    """
    readers = {"jsonl": _lines, "json": _json, "csv": _csv, "parquet": _parquet, "arrow": _arrow, "dataset": _dataset}
    if kind not in readers:
        raise UsageError(f"{source} is no benchmark. Give JSONL, JSON, CSV, Parquet, Arrow or a data set's name.")
    try:
        rows = list(readers[kind](source, ledger))
    except (OSError, pa.ArrowInvalid) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        raise UsageError(f"{source} cannot be read as {kind}: {reason}. Check the file.") from error
    ledger.tally.records += len(rows)
    return rows


def unwrapped(rows: list[Row]) -> list[Row]:
    """The rows inside a single object that holds one list of objects, as `{"version": 1, "data": [...]}` does."""
    lists = [value for value in rows[0].values() if isinstance(value, list) and value and type(value[0]) is dict]
    return [row for row in lists[0] if type(row) is dict] if len(rows) == len(lists) == 1 else rows


def canonical_sha256(rows: list[Row]) -> str:
    """Hash of rows that come from no file: of their canonical JSON, one row a line."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":"), default=str).encode() + b"\n")
    return digest.hexdigest()


def _content(source: str, ledger: Ledger) -> str:
    content = b"".join(plain_blocks(source, ledger))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        ledger.note(NOT_UTF8, f"byte {error.start}")
        return content.decode("utf-8-sig", "replace")


def _lines(source: str, ledger: Ledger) -> Iterator[Row]:
    for number, line in enumerate(_content(source, ledger).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, strict=False)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield row
        else:
            _left_out(ledger, NOT_OBJECT, f"line {number}")


def _json(source: str, ledger: Ledger) -> Iterator[Row]:
    """An array of rows, or rows one after another."""
    try:
        values = list(json_values(plain_blocks(source, ledger), MOST_BYTES))
    except ValueError as error:
        raise UsageError(f"{source} is not valid JSON at about {error}. Mend or convert it to JSONL.") from error
    for number, value in enumerate(values, start=1):
        if isinstance(value, dict):
            yield value
        else:
            _left_out(ledger, NOT_OBJECT, f"element {number}")


def _csv(source: str, ledger: Ledger) -> Iterator[Row]:
    content = _content(source, ledger)
    delimiter = "\t" if ".tsv" in source.lower() else ","
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    try:
        table = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UsageError(f"{source} is not readable CSV at line {reader.line_num}: {error}. Mend the file.") from error
    if not table:
        return
    header = table[0][1]
    if len(header) == len(HEADLESS_MMLU) and all(cells[-1:] and cells[-1] in list("ABCD") for _, cells in table):
        header = list(HEADLESS_MMLU)
    else:
        table = table[1:]
    for line, cells in table:
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            _left_out(ledger, WRONG_CELLS, f"line {line}")


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
