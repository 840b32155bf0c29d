"""The file layouts that scores come in, each as plain rows of item and score."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from checks.contamination.records import Problem
from trainvitals.errors import UsageError

ID_NAMES = ("item_id", "id", "doc_id", "task_id", "question_id")
SCORE_NAMES = ("score", "correct", "is_correct", "acc", "exact_match", "pass@1", "passed", "acc_norm", "em")
SAMPLES = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d:.-]+)?\.jsonl(?:\.gz)?")
"""File names of lm-eval's `--log_samples` (https://github.com/EleutherAI/lm-evaluation-harness)."""
TRUTH = {"true": 1.0, "false": 0.0}
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
    try:
        with fsspec.open(source, "rb", compression="infer") as file:
            raw = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"Cannot read the scores {source}: {error}. Check the path and the compression.") from error
    records = _records(source, raw)
    if not records:
        raise UsageError(f"The score file {source} is empty. Give one with an item and a score per row.")
    names = list(dict.fromkeys(name for _, record in records[:1000] for name in record))
    id_name = _first(ID_NAMES, names)
    score_name = _first(SCORE_NAMES, names) or _stated_metric(records[0][1])
    if id_name is None or score_name is None:
        wanted, accepted = ("item", ID_NAMES) if id_name is None else ("score", SCORE_NAMES)
        raise UsageError(
            f"{source} has no column for the {wanted}: it has {', '.join(names[:12])}. Name it {' or '.join(accepted)}."
        )
    kept, problems = _one_filter(source, records)
    metrics = [name for name in SCORE_NAMES if name in names and name != score_name]
    if metrics:
        problems.append(Problem(source, "columns", f"{score_name} is used as the score, not {', '.join(metrics)}."))
    rows = [
        Row(
            _item_id(record, id_name, source, place),
            _score(record.get(score_name), source, place),
            _string(record.get("model")),
            _string(record.get("benchmark")),
            id_name == "doc_id",
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
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 at byte {error.start:,}. Save it as UTF-8.") from error
    if name.endswith((".csv", ".tsv")):
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if name.endswith(".tsv") else ",")
        return [(f"line {reader.line_num}", {k: v for k, v in record.items() if k}) for record in reader]
    if name.endswith(".jsonl"):
        return list(_json_lines(source, text))
    try:
        return list(_json_mapping(source, json.loads(text)))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{source} is not JSON at line {error.lineno}: {error.msg}. Scores come as .json, .jsonl, .csv or .parquet."
        ) from error


def _json_lines(source: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Not splitlines(): JSON strings may hold U+2028 and other ends of lines that JSONL does not know.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{source} line {number} is not JSON: {error.msg}. Mend or delete the line.") from error
        if not isinstance(record, Mapping):
            raise UsageError(f"{source} line {number} is not a JSON object. Write one object with item and score.")
        yield f"line {number}", record


def _json_mapping(source: str, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, Sequence) and content and all(isinstance(record, Mapping) for record in content):
        yield from ((f"entry {i}", record) for i, record in enumerate(content))
        return
    if not isinstance(content, Mapping):
        raise UsageError(f"{source} holds no scores. Write {{item: score}} or {{model: {{item: score}}}}.")
    for key, value in content.items():
        if isinstance(value, Mapping):
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
    return next((name for name in wanted if name in names), None)


def _stated_metric(record: Mapping[str, Any]) -> str | None:
    """The first of the metrics that an lm-eval sample lists."""
    metrics = record.get("metrics")
    return str(metrics[0]) if isinstance(metrics, list) and metrics and str(metrics[0]) in record else None


def _item_id(record: Mapping[str, Any], name: str, source: str, place: str) -> str:
    value = record.get(name)
    if value is None or value == "":
        raise UsageError(f"{source} {place} has a score but no {name}. Add it or delete the row.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _score(value: Any, source: str, place: str) -> float:
    if value is None or value == "":
        return math.nan
    word = value.strip().lower() if isinstance(value, str) else ""
    try:
        score = TRUTH[word] if word in TRUTH else float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{source} {place}: {str(value)[:60]!r} is no score. Give a number from 0 to 1.") from None
    if not math.isnan(score) and not 0.0 <= score <= 1.0:
        raise UsageError(f"{source} {place}: the score {score:g} is not between 0 and 1. Divide percentages by 100.")
    return score


def _string(value: Any) -> str:
    return "" if value is None else str(value)


def _starts(doc: Any) -> str:
    strings = [" ".join(v.split()) for v in doc.values() if isinstance(v, str)] if isinstance(doc, Mapping) else []
    return "\0".join(s[:TEXT_CHARACTERS] for s in strings if len(s) >= TELLING_CHARACTERS)
