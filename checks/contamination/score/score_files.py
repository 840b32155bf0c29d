"""The file layouts that scores come in, each as plain rows of item and score."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.readers.encodings import sniffed
from checks.contamination.records import Problem
from trainvitals.errors import UsageError

ID_NAMES = ("item_id", "id", "doc_id", "task_id", "question_id")
SCORE_NAMES = ("score", "correct", "is_correct", "acc", "exact_match", "pass@1", "passed", "acc_norm", "em")
SAMPLES = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d:.-]+)?\.jsonl(?:\.gz)?")
"""File names of lm-eval's `--log_samples` (https://github.com/EleutherAI/lm-evaluation-harness)."""
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "pass": 1.0, "fail": 0.0, "correct": 1.0, "incorrect": 0.0}
MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
"""What stands in a cell without a score."""
TEXT_CHARACTERS, TELLING_CHARACTERS = 200, 20
"""How much of a document's strings is compared with the item, and from which length on a string tells anything."""


@dataclass(frozen=True, slots=True)
class Row:
    """One score as the file states it. Empty strings where it says nothing; NaN where it has no score."""

    item_id: str
    score: float
    model: str = ""
    benchmark: str = ""
    positional: bool = False
    """Whether the id may be the item's position, from 0: a `doc_id` as lm-eval counts."""
    text: str = ""
    """Starts of the strings of lm-eval's `doc`, parted by NUL: they tell whether a position means the same item."""


def read_rows(source: str) -> tuple[list[Row], list[Problem]]:
    """All scores of one file, and what had to be chosen or left out.

    Raises:
        UsageError: with the place and the remedy.
    """
    if "://" not in source and os.path.exists(source) and not os.path.isfile(source):
        raise UsageError(f"Cannot read the scores {source}: it is no file. Check the path.")
    try:
        with fsspec.open(source, "rb", compression="infer") as file:
            raw = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"Cannot read the scores {source}: {error}. Check the path and the compression.") from error
    records = _records(source, raw)
    names = list(dict.fromkeys(name for _, record in records[:1000] for name in record))
    id_name = _first(ID_NAMES, names)
    score_name = _first(SCORE_NAMES, names) or (_stated_metric(records[0][1]) if records else None)
    records = [(place, record) for place, record in records if not _is_blank(record, id_name, score_name)]
    if not records:
        raise UsageError(f"The score file {source} is empty. Give one with an item and a score per row.")
    if id_name is None or score_name is None:
        wanted, accepted = ("item", ID_NAMES) if id_name is None else ("score", SCORE_NAMES)
        raise UsageError(
            f"{source} has no column for the {wanted}: it has {', '.join(names[:12])}. Name it {' or '.join(accepted)}."
        )
    kept, problems = _one_filter(source, records)
    metrics = [name for name in names if name.strip().lower() in SCORE_NAMES and name != score_name]
    if metrics:
        problems.append(Problem(source, "columns", f"{score_name} is used as the score, not {', '.join(metrics)}."))
    rows = [
        Row(
            _item_id(record, id_name, source, place),
            _score(record.get(score_name), source, place),
            _string(record.get("model")),
            _string(record.get("benchmark")),
            id_name.strip().lower() == "doc_id",
            _starts(record.get("doc")),
        )
        for place, record in kept
    ]
    return rows, problems


def _records(source: str, raw: bytes) -> list[tuple[str, Mapping[str, Any]]]:
    """Each record with its place, for messages."""
    name = source.lower().removesuffix(".gz").removesuffix(".zst").removesuffix(".bz2").removesuffix(".xz")
    if name.endswith(".parquet"):
        try:
            table = pq.read_table(io.BytesIO(raw))
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"{source} is not a readable Parquet file: {error}. Write it again.") from error
        return [(f"row {i}", record) for i, record in enumerate(table.to_pylist())]
    text = _decoded(source, raw)
    if name.endswith((".csv", ".tsv")):
        return _table(source, text, "\t" if name.endswith(".tsv") else ",")
    if name.endswith(".jsonl"):
        return list(_json_lines(source, text))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{source} is not JSON{where}. Scores come as .json, .jsonl, .csv or .parquet.") from error
    return list(_json_mapping(source, content))


def _decoded(source: str, raw: bytes) -> str:
    """The text, by its byte-order mark: spreadsheets write UTF-16."""
    encoding, mark = sniffed(raw)
    try:
        return raw[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 at byte {error.start + mark:,}. Save it as UTF-8.") from error


def _table(source: str, text: str, delimiter: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of a spreadsheet: of the separator that it states (`sep=;`) or its header shows, empty rows left out."""
    stated = re.match(r"sep=(.)\r?\n", text)
    if stated:
        delimiter, text = stated[1], text[stated.end() :]
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    if not stated and delimiter not in header:
        delimiter = next((sign for sign in (";", "\t", "|") if sign in header), delimiter)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="")
    rows: list[tuple[str, Mapping[str, Any]]] = []
    try:
        for record in reader:
            place = f"line {reader.line_num + bool(stated)}"
            if any(cell.strip() for cell in record.get("") or () if isinstance(cell, str)):
                raise UsageError(f"{source} {place} has more cells than the header. Quote cells that hold a comma.")
            row = {name.strip(): cell for name, cell in record.items() if name and name.strip()}
            if delimiter == ";":  # where a comma is the decimal point
                row = {name: _with_point(cell) if name.lower() in SCORE_NAMES else cell for name, cell in row.items()}
            rows.append((place, row))
    except csv.Error as error:
        raise UsageError(f"{source} is not readable CSV at line {reader.line_num}: {error}. Mend the file.") from error
    return rows


def _with_point(cell: Any) -> Any:
    return cell.replace(",", ".") if isinstance(cell, str) and cell.count(",") == 1 else cell


def _json_lines(source: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Not splitlines(): JSON strings may hold U+2028 and other ends of lines that JSONL does not know.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else "too deep, or a number too long"
            raise UsageError(f"{source} line {number} is not JSON: {why}. Mend or delete the line.") from error
        if not isinstance(record, Mapping):
            raise UsageError(f"{source} line {number} is not a JSON object. Write one object with item and score.")
        if record:
            yield f"line {number}", record


def _json_mapping(source: str, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, Sequence) and content and all(isinstance(record, Mapping) for record in content):
        yield from ((f"entry {i}", record) for i, record in enumerate(content))
        return
    if not isinstance(content, Mapping):
        raise UsageError(f"{source} holds no scores. Write {{item: score}} or {{model: {{item: score}}}}.")
    for key, value in content.items():
        if isinstance(value, Mapping) and _first(SCORE_NAMES, list(value)):
            yield f"item {key}", {"item_id": key, **value}
        elif isinstance(value, Mapping):
            yield from ((f"model {key}", {"item_id": i, "score": v, "model": key}) for i, v in value.items())
        else:
            yield f"item {key}", {"item_id": key, "score": value}


def _one_filter(
    source: str, records: list[tuple[str, Mapping[str, Any]]]
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[Problem]]:
    """lm-eval repeats each document for every answer filter: the first filter of the file is kept."""
    filters = list(dict.fromkeys(_string(record.get("filter")) for _, record in records))
    if len(filters) < 2:
        return records, []
    said = f"The filter {filters[0]!r} is used, not {', '.join(map(repr, filters[1:]))}."
    return [r for r in records if _string(r[1].get("filter")) == filters[0]], [Problem(source, "filters", said)]


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The name that is meant, whatever its case and the spaces around it."""
    known = {name.strip().lower(): name for name in reversed(names)}
    return next((known[name] for name in wanted if name in known), None)


def _is_blank(record: Mapping[str, Any], id_name: str | None, score_name: str | None) -> bool:
    """Whether a row says nothing at all, as spreadsheets leave them behind."""
    told = [record.get(name) for name in (id_name, score_name) if name is not None] or list(record.values())
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in told)


def _stated_metric(record: Mapping[str, Any]) -> str | None:
    """The first of the metrics that an lm-eval sample lists."""
    metrics = record.get("metrics")
    return str(metrics[0]) if isinstance(metrics, list) and metrics and str(metrics[0]) in record else None


def _item_id(record: Mapping[str, Any], name: str, source: str, place: str) -> str:
    value = record.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UsageError(f"{source} {place} has a score but no {name}. Add it or delete the row.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _score(value: Any, source: str, place: str) -> float:
    word = value.strip().lower() if isinstance(value, str) else ""
    if value is None or (isinstance(value, str) and word in MISSING):
        return math.nan
    try:
        if word.endswith("%"):
            score = float(word.rstrip("% ")) / 100
        else:
            score = TRUTH[word] if word in TRUTH else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{source} {place}: {str(value)[:60]!r} is no score. Give a number from 0 to 1.") from None
    if not math.isnan(score) and not 0.0 <= score <= 1.0:
        raise UsageError(f"{source} {place}: the score {score:g} is not between 0 and 1. Divide percentages by 100.")
    return score


def _string(value: Any) -> str:
    return "" if value is None else str(value)


def _starts(doc: Any) -> str:
    strings = [" ".join(v.split()) for v in doc.values() if isinstance(v, str)] if isinstance(doc, Mapping) else []
    return "\0".join(s[:TEXT_CHARACTERS] for s in strings if len(s) >= TELLING_CHARACTERS)
